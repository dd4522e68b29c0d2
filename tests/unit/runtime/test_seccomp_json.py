"""Profiles in docker's JSON form: which rules apply here, and what makes no sense."""

from __future__ import annotations

import errno
import json
import operator
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.errors import UsageError
from minidock.kernel import seccomp as kernel
from minidock.runtime import seccomp, seccomp_profile

ALLOW = kernel.ALLOW


def read(
    profile: Any, *, bounding: frozenset[str] = frozenset(), machine: str = "x86_64", release: str = "6.1.0"
) -> Any:
    content = profile if isinstance(profile, bytes) else json.dumps(profile).encode()
    return seccomp_profile.from_json(content, bounding=bounding, release=release, name="p.json", machine=machine)


def entry(**fields: Any) -> dict[str, Any]:
    return {"names": ["mount"], "action": "SCMP_ACT_ALLOW", **fields}


def profile(*entries: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(entries), **fields}


def test_actions() -> None:
    default, rules, _ = read(
        profile(
            entry(action="SCMP_ACT_ERRNO", errnoRet=errno.ENOSYS),
            entry(action="SCMP_ACT_KILL_PROCESS"),
            entry(action="SCMP_ACT_LOG"),
            entry(action="SCMP_ACT_TRACE", errnoRet=7),
            defaultErrnoRet=errno.EACCES,
        )
    )
    assert default == kernel.error_action(errno.EACCES)
    assert [rule.action for rule in rules] == [
        kernel.error_action(errno.ENOSYS),
        kernel.KILL_PROCESS,
        kernel.LOG,
        kernel.trace_action(7),
    ]
    assert read(profile())[0] == kernel.error_action(errno.EPERM)


@pytest.mark.parametrize(
    ("condition", "applies"),
    [
        ({}, True),
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, False),
        ({"includes": {"caps": ["CAP_CHOWN"]}}, True),
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}}, False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, True),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}}, False),
        ({"includes": {"arches": ["amd64", "x32"]}}, True),
        ({"includes": {"arches": ["arm64"]}}, False),
        ({"excludes": {"arches": ["s390", "s390x"]}}, True),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"minKernel": "4.8"}}, True),
        ({"includes": {"minKernel": "6.2"}}, False),
        ({"excludes": {"minKernel": "6.1"}}, False),
        ({"includes": {}, "excludes": {}}, True),
    ],
)
def test_conditions(condition: dict[str, Any], applies: bool) -> None:
    _, rules, _ = read(profile(entry(**condition)), bounding=frozenset({"CAP_CHOWN"}))
    assert bool(rules) is applies


def test_architectures() -> None:
    mapped = profile(
        archMap=[
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        ]
    )
    assert read(mapped)[2] == ("x86_64", "x86", "x32")
    assert read(mapped, machine="aarch64")[2] == ("aarch64", "arm")
    assert read(profile(architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]))[2] == ("x86_64", "x86")
    assert read(profile())[2] == ("x86_64",)


def test_comparisons() -> None:
    arguments = [
        {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
        {"index": 1, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"},
    ]
    _, (rule,), _ = read(profile(entry(args=arguments)))
    assert rule.comparisons == (
        kernel.Comparison(0, kernel.EQ, 1),
        kernel.Comparison(1, kernel.MASKED_EQ, 0x7E020000, 0),
    )


def test_comparisons_of_one_argument_are_taken_one_by_one() -> None:
    arguments = [{"index": 0, "value": value, "op": "SCMP_CMP_NE"} for value in (38, 40)]
    _, rules, _ = read(profile(entry(args=arguments)))
    assert [rule.comparisons for rule in rules] == [
        (kernel.Comparison(0, kernel.NE, 38),),
        (kernel.Comparison(0, kernel.NE, 40),),
    ]


def test_single_name_of_old_profiles() -> None:
    _, (rule,), _ = read(profile({"name": "mount", "action": "SCMP_ACT_ALLOW"}))
    assert rule.names == ("mount",)


NOT_JSON = "it is not JSON: "


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (b"", NOT_JSON + "expecting value in line 1, column 1"),
        (b'{\n "a": 1,,\n}', NOT_JSON + "expecting property name enclosed in double quotes in line 2, column 9"),
        (b"\xff\xfe\xff", NOT_JSON + "it is not UTF-8"),
        (b"[" * 100000, "it is not JSON that can be read: a number is too long, or it is nested too deeply"),
        (b"[]", "the profile is not a JSON object"),
        ({}, "it has no defaultAction"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "SCMP_ACT_NOTIFY needs a listener, and minidock has none"),
        ({"defaultAction": 5}, "unknown action 5"),
        (
            {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": "x"},
            "an errnoRet is 'x', not a number from 0 to 4095",
        ),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}, "an errnoRet is '4096', not a number"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": True}, "an errnoRet is 'True', not a number"),
        (profile(entry(action="SCMP_ACT_WHATEVER")), "unknown action 'SCMP_ACT_WHATEVER'"),
        (profile({"names": ["mount"]}), "unknown action None"),
        (profile(entry(names=[5])), "5 in names is not a text"),
        (profile(entry(names="mount")), "names is not a list"),
        (profile(entry(name="mount")), "an entry has both 'name' and 'names'"),
        (profile({"action": "SCMP_ACT_ALLOW"}), "an entry of syscalls has no names"),
        (profile({"name": 5, "action": "SCMP_ACT_ALLOW"}), "the name of a system call is 5"),
        (profile(entry(args=[{"index": 0, "value": 1, "op": "SCMP_CMP_LIKE"}])), "unknown operator 'SCMP_CMP_LIKE'"),
        (profile(entry(args=[{"index": 0, "value": 1, "op": []}])), "unknown operator []"),
        (
            profile(entry(args=[{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}])),
            "index is '6', not a number from 0 to 5",
        ),
        (profile(entry(args=[{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}])), "value is '-1', not a number"),
        (
            profile(entry(args=[{"index": 0, "value": 2**64, "op": "SCMP_CMP_EQ"}])),
            "value is '18446744073709551616', not a number",
        ),
        (profile(entry(args=[{"index": 0, "value": 1.5, "op": "SCMP_CMP_EQ"}])), "value is '1.5', not a number"),
        (profile(entry(args=[1])), "an entry of args is not a JSON object"),
        (profile(entry(includes=[1])), "includes is not a JSON object"),
        (profile(entry(includes={"caps": "CAP_CHOWN"})), "caps is not a list"),
        (profile(entry(excludes={"minKernel": "new"})), "minKernel is 'new', not a release such as 4.8"),
        (profile(entry(excludes={"minKernel": 4.8})), "minKernel is 4.8, not a release such as 4.8"),
        ({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": 5}, "syscalls is not a list"),
        (profile(1), "an entry of syscalls is not a JSON object"),  # type: ignore[arg-type]
        (profile(architectures=["x86_64"]), "unknown architecture 'x86_64'"),
        (
            profile(architectures=["SCMP_ARCH_X86"], archMap=[{"architecture": "SCMP_ARCH_X86_64"}]),
            "it has both 'architectures' and 'archMap'",
        ),
    ],
)
def test_broken_profiles(broken: Any, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(broken)
    assert caught.value.message.startswith(f"invalid seccomp profile 'p.json': {reason}"[:100])
    assert caught.value.message.count("\n") == 0


def test_a_mistake_is_told_where_the_rule_does_not_apply() -> None:
    with pytest.raises(UsageError, match="SCMP_CMP_LIKE"):
        read(profile(entry(includes={"arches": ["s390x"]}, args=[{"index": 0, "value": 1, "op": "SCMP_CMP_LIKE"}])))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = ("names", "name", "action", "errnoRet", "args", "includes", "excludes")
ENTRIES = st.dictionaries(st.sampled_from(KEYS), JSON | st.just(["read"]) | st.just("SCMP_ACT_ALLOW"), max_size=7)
ARG = st.dictionaries(st.sampled_from(("index", "value", "valueTwo", "op")), JSON | st.just("SCMP_CMP_EQ"), max_size=4)


@given(
    st.fixed_dictionaries(
        {"defaultAction": st.just("SCMP_ACT_ERRNO") | JSON},
        optional={
            "syscalls": st.lists(ENTRIES | st.builds(lambda arg: entry(args=[arg]), ARG), max_size=3) | JSON,
            "archMap": JSON,
            "architectures": JSON,
            "defaultErrnoRet": JSON,
        },
    )
)
def test_any_json_is_read_or_refused_in_one_sentence(value: dict[str, Any]) -> None:
    """Whatever is wrong is an UsageError, and what is read is whole."""
    message = ""
    try:
        default, rules, _ = read(value)
    except UsageError as error:
        message = error.message
    else:
        assert default >> 16 in {0x7FFF, 0x7FFC, 0x7FF0, 5, 3, 0, 0x8000}
        assert all(rule.names and rule.action >= 0 for rule in rules)
    assert "\n" not in message


COMPARE: dict[str, Callable[[int, int], bool]] = {
    "NE": operator.ne,
    "LT": operator.lt,
    "LE": operator.le,
    "EQ": operator.eq,
    "GE": operator.ge,
    "GT": operator.gt,
}
EDGES = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 38, 40, 2**31 - 1, 2**31, 2**32 - 1])


@given(st.sampled_from(sorted(COMPARE)), EDGES, EDGES, st.integers(0, 2**32 - 1))
def test_families_are_compared_by_their_low_32_bits(op: str, value: int, argument: int, above: int) -> None:
    """One of the rules holds exactly where the comparison holds for what the kernel sees."""
    args = [{"index": 0, "value": value, "op": f"SCMP_CMP_{op}"}]
    _, rules, _ = read(profile(entry(names=["socket"], args=args)))
    assert len(rules) <= 64
    for rule in rules:
        assert [c.op for c in rule.comparisons] == [kernel.MASKED_EQ]
    word = argument | above << 32
    held = sum((word & rule.comparisons[0].value) == rule.comparisons[0].value_two for rule in rules)
    assert held == COMPARE[op](argument, value)


def test_only_what_the_kernel_cuts_is_cut() -> None:
    args = [{"index": 1, "value": 7, "op": "SCMP_CMP_GT"}]
    _, (rule,), _ = read(profile(entry(names=["mount"], args=args)))
    assert rule.comparisons == (kernel.Comparison(1, kernel.GT, 7),)
    masked = [{"index": 0, "value": 0xF00000000 | 0xFF, "valueTwo": 0xF00000000 | 1, "op": "SCMP_CMP_MASKED_EQ"}]
    _, (rule,), _ = read(profile(entry(names=["personality"], args=masked)))
    assert rule.comparisons == (kernel.Comparison(0, kernel.MASKED_EQ, 0xFF, 1),)


def test_comparisons_that_multiply_without_end_are_refused() -> None:
    args = [{"index": index, "value": 0, "op": "SCMP_CMP_GT"} for index in range(3)]
    with pytest.raises(UsageError, match="the comparisons of socket make too many rules"):
        read(profile(entry(names=["socket"], args=args)))


def test_profile_of_one_s_own_is_compiled(tmp_path: Any) -> None:
    pytest.importorskip("pyseccomp", exc_type=ImportError)
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry(action="SCMP_ACT_ERRNO")]}))
    program = seccomp.program(profile=str(path), bounding=frozenset(), cache_dir=str(tmp_path / "cache"))
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}))
    other = seccomp.program(profile=str(path), bounding=frozenset(), cache_dir=str(tmp_path / "cache"))
    assert program
    assert other
    assert program != other, "the profile's content is part of the key"


def test_the_bytes_may_be_given_instead_of_the_file(tmp_path: Any) -> None:
    pytest.importorskip("pyseccomp", exc_type=ImportError)
    content = json.dumps(profile(entry())).encode()
    options: dict[str, Any] = {"bounding": frozenset(), "cache_dir": str(tmp_path / "cache")}
    program = seccomp.program(profile="/absent.json", content=content, **options)
    (tmp_path / "p.json").write_bytes(content)
    assert program == seccomp.program(profile=str(tmp_path / "p.json"), **options)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_unknown_names_are_told() -> None:
    pytest.importorskip("pyseccomp", exc_type=ImportError)
    content = json.dumps(profile(entry(names=["zz", "read", "aa", "mseal"]), entry(names=["bb"]))).encode()
    options: dict[str, Any] = {"bounding": frozenset(), "name": "p.json"}
    assert seccomp_profile.unknown_names(content, **options) == ("aa", "bb", "zz")


def test_an_architecture_that_there_is_not(tmp_path: Any) -> None:
    pytest.importorskip("pyseccomp", exc_type=ImportError)
    content = json.dumps(profile(architectures=["SCMP_ARCH_Z80"])).encode()
    with pytest.raises(UsageError) as caught:
        seccomp.program(profile="p", content=content, bounding=frozenset(), cache_dir=str(tmp_path))
    assert caught.value.message == "seccomp profile 'p' cannot be compiled: unknown architecture 'z80'"


@pytest.mark.parametrize("content", [b"", b" " * ((4 << 20) + 1)])
def test_files_that_cannot_be_profiles(tmp_path: Any, content: bytes) -> None:
    (tmp_path / "p.json").write_bytes(content)
    with pytest.raises(UsageError, match="is empty or larger than 4 MiB"):
        seccomp_profile.read_profile(str(tmp_path / "p.json"))


def test_a_pipe_is_not_waited_for(tmp_path: Any) -> None:
    os.mkfifo(tmp_path / "p")
    with pytest.raises(UsageError, match="empty"):
        seccomp_profile.read_profile(str(tmp_path / "p"))
