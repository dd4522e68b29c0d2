"""From options to settings: what is refused, and what each option becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minidock import Engine
from minidock.engine.options import CreateOptions
from minidock.engine.settings import check_options, environment, make_settings, pairs
from minidock.errors import MountSpecError, UsageError
from minidock.model.container import Settings
from minidock.model.mounts import Mount


def test_without_options_the_image_and_docker_decide() -> None:
    assert make_settings("img", ("a",)) == Settings("img", ("a",))


def test_options_become_settings() -> None:
    settings = make_settings(
        "img",
        [],
        entrypoint=["sh", "-c"],
        cap_add=["ALL"],
        stop_timeout=-1,
        hostname="h",
        user="1000:1000",
        workdir="/w",
        network="none",
    )
    assert settings.entrypoint == ("sh", "-c")
    assert settings.cap_add == ("ALL",)
    assert (settings.stop_timeout, settings.hostname, settings.user) == (-1, "h", "1000:1000")


def test_an_empty_entrypoint_is_not_none() -> None:
    assert make_settings("img", (), entrypoint=()).entrypoint == ()


def test_an_unknown_option_is_pythons_own_error() -> None:
    options: dict[str, Any] = {"publish": "80"}
    with pytest.raises(TypeError, match="publish"):
        make_settings("img", (), **options)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"workdir": "rel"}, "'rel'"),
        ({"hostname": "a b"}, "'a b'"),
        ({"hostname": "x" * 65}, "xxx"),
        ({"network": "mynet"}, "'mynet'"),
        ({"user": "1:2:3"}, "'1:2:3'"),
        ({"env": ["=x"]}, "'=x'"),
        ({"env": ["A=\0"]}, "A="),
        ({"labels": ["=x"]}, "'=x'"),
        ({"volumes": ["x:/y:zz"]}, "zz"),
        ({"mounts": ["dst=y"]}, "'y'"),
        ({"mounts": ["type=image,src=i,dst=/y"]}, "image"),
        ({"tmpfs": ["y"]}, "'y'"),
        ({"sysctls": ["kernel.sem=\0"]}, "kernel.sem"),
        ({"group_add": ["a\0"]}, "a"),
    ],
)
def test_what_makes_no_sense_is_125(options: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_settings("img", (), **options)
    assert caught.value.exit_status == 125
    assert word in str(caught.value)


def test_variables_without_a_value_are_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "1=2")
    monkeypatch.delenv("ABSENT", raising=False)
    assert environment(["A=b", "HERE", "ABSENT", "E="]) == ("A=b", "HERE=1=2", "ABSENT", "E=")
    assert environment({"A": "b", "C": ""}) == ("A=b", "C=")


def test_of_two_labels_with_one_name_the_last_counts() -> None:
    assert pairs(["a=1", "b", "a=2=3"]) == (("a", "2=3"), ("b", ""))
    assert pairs({"x": "y"}) == (("x", "y"),)


def test_relative_sources_are_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = Mount("tmpfs", "", "/t")
    settings = make_settings("img", (), volumes=["./a:/a"], mounts=["type=bind,src=./b,dst=/b", given], tmpfs=["/c"])
    assert [(m.type, m.source, m.target) for m in settings.mounts] == [
        ("bind", f"{tmp_path}/a", "/a"),
        ("bind", f"{tmp_path}/b", "/b"),
        ("tmpfs", "", "/t"),
        ("tmpfs", "", "/c"),
    ]


def test_the_path_of_a_seccomp_profile_is_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = make_settings("img", (), security_opt=["seccomp=p.json", "no-new-privileges"])
    assert settings.security_opt == (f"seccomp={tmp_path}/p.json", "no-new-privileges")


def test_kernel_parameters_come_as_texts_or_as_a_mapping() -> None:
    assert make_settings("img", (), sysctls=["kernel.sem=1 2"]).sysctls == ("kernel.sem=1 2",)
    assert make_settings("img", (), sysctls={"kernel.sem": "1=2"}).sysctls == ("kernel.sem=1=2",)


def test_mount_errors_keep_their_kind() -> None:
    with pytest.raises(MountSpecError):
        make_settings("img", (), volumes=[""])


def test_no_size_is_the_default_and_no_tmpfs_without_limit() -> None:
    assert make_settings("img", (), shm_size=0).shm_size == 64 * 1024 * 1024


@pytest.mark.parametrize("options", [{"shm_size": -1}, {"shm_size": 2**63}, {"stop_timeout": -2}])
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=str(next(iter(options.values())))):
        make_settings("img", (), **options)


@pytest.mark.parametrize("verb", ["run", "create", "explain"])
def test_an_option_that_there_is_not_is_a_type_error_of_the_verb(verb: str, tmp_path: Path) -> None:
    engine = Engine(str(tmp_path / "root"))
    with pytest.raises(TypeError, match=rf"^{verb}\(\) got an unexpected keyword argument 'colour'$"):
        getattr(engine, verb)("img", "true", colour="red")
    assert not (tmp_path / "root").exists()


def test_every_option_of_the_type_is_known() -> None:
    check_options("run", dict.fromkeys(CreateOptions.__annotations__))


@pytest.mark.parametrize("text", ["a\udcff", "a\0b"])
@pytest.mark.parametrize("option", ["command", "env", "labels", "volumes", "workdir", "entrypoint"])
def test_texts_that_no_record_can_hold_are_refused(option: str, text: str) -> None:
    options: dict[str, Any] = {
        "env": {"env": [f"A={text}"]},
        "labels": {"labels": {"a": text}},
        "volumes": {"volumes": [f"/{text}:/x"]},
        "workdir": {"workdir": f"/{text}"},
        "entrypoint": {"entrypoint": [text]},
    }.get(option, {})
    with pytest.raises(UsageError):
        make_settings("img", ("echo", text) if option == "command" else (), **options)


def test_a_host_name_is_measured_in_bytes() -> None:
    assert make_settings("img", (), hostname="\u00fc" * 32).hostname == "\u00fc" * 32
    with pytest.raises(UsageError, match="invalid host name"):
        make_settings("img", (), hostname="\u00fc" * 33)
