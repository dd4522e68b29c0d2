"""Profiles in docker's JSON form: which rules apply here, and what makes no sense."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest

from minidock.errors import UsageError
from minidock.kernel import seccomp as kernel
from minidock.runtime import seccomp

ALLOW = kernel.ALLOW


def read(
    profile: Any, *, bounding: frozenset[str] = frozenset(), machine: str = "x86_64", release: str = "6.1.0"
) -> Any:
    content = profile if isinstance(profile, bytes) else json.dumps(profile).encode()
    return seccomp.from_json(content, bounding=bounding, release=release, name="p.json", machine=machine)


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


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"{",
        b"[]",
        b"[" * 100000,
        {},
        {"defaultAction": "SCMP_ACT_NOTIFY"},
        {"defaultAction": 5},
        profile(entry(action="SCMP_ACT_WHATEVER")),
        profile(entry(names=[5])),
        profile(entry(args=[{"index": 0, "value": 1, "op": "SCMP_CMP_LIKE"}])),
        profile(entry(args=[{"index": 0, "op": "SCMP_CMP_EQ"}])),
        profile({"action": "SCMP_ACT_ALLOW"}),
        {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": 5},
    ],
)
def test_broken_profiles(broken: Any) -> None:
    with pytest.raises(UsageError, match=r"invalid seccomp profile 'p\.json'"):
        read(broken)


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
