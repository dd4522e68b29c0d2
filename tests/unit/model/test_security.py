"""The values of --security-opt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.errors import UsageError
from minidock.model.security import SecurityOptions, security_options, with_whole_paths


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), SecurityOptions()),
        (("no-new-privileges",), SecurityOptions(True)),
        (("no-new-privileges:true",), SecurityOptions(True)),
        (("no-new-privileges=1",), SecurityOptions(True)),
        (("no-new-privileges=false",), SecurityOptions(False)),
        (("no-new-privileges", "no-new-privileges:false"), SecurityOptions(False)),
        (("seccomp=builtin",), SecurityOptions(seccomp="builtin")),
        (("seccomp:unconfined",), SecurityOptions(seccomp="unconfined")),
        (("seccomp=/a:b=c",), SecurityOptions(seccomp="/a:b=c")),
        (("seccomp:/a=b",), SecurityOptions(seccomp="/a=b")),
        (("systempaths=unconfined",), SecurityOptions(unconfined_paths=True)),
        (("apparmor=docker-default",), SecurityOptions(apparmor="docker-default")),
        (("apparmor:unconfined",), SecurityOptions(apparmor="unconfined")),
        (("label=disable", "label:disable"), SecurityOptions()),
        (("label=type:x", "label=level:s0:c1,c2"), SecurityOptions(labels=("type:x", "level:s0:c1,c2"))),
        (("label=type:x", "label=disable"), SecurityOptions()),
    ],
)
def test_security_options(options: tuple[str, ...], expected: SecurityOptions) -> None:
    assert security_options(options) == expected


@pytest.mark.parametrize(
    "option",
    [
        *("", "nonsense", "no-new-privileges=maybe", "no-new-privileges=", "no-new-privileges:", "seccomp=", "seccomp"),
        *("systempaths=confined", "systempaths", "label=", "label=colour:red", "label=type", "apparmor="),
        *("apparmor=a\nb", "=", ":", "no-new-privilegesx", "SECCOMP=unconfined"),
    ],
)
def test_what_is_not_known(option: str) -> None:
    with pytest.raises(UsageError) as caught:
        security_options((option,))
    assert caught.value.message == f"unsupported value {option!r} for --security-opt"


def test_a_profile_is_a_path() -> None:
    assert security_options(("seccomp=builtin",)).profile == ""
    assert security_options(("seccomp=/p",)).profile == "/p"


def test_paths_are_made_whole() -> None:
    given_options = ("seccomp=p.json", "seccomp:../q", "seccomp=/r", "seccomp=unconfined", "no-new-privileges", "what")
    assert with_whole_paths(given_options, cwd="/a/b") == (
        *("seccomp=/a/b/p.json", "seccomp=/a/q", "seccomp=/r"),
        *("seccomp=unconfined", "no-new-privileges", "what"),
    )


@given(st.sampled_from("=:"), st.text(min_size=1, max_size=20))
def test_a_path_is_never_split(separator: str, path: str) -> None:
    assert security_options((f"seccomp{separator}{path}",)) == SecurityOptions(seccomp=path)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        security_options((text,))
    except UsageError:
        return
    assert text.replace(":", "=").partition("=")[0] in {
        *("no-new-privileges", "seccomp", "systempaths", "apparmor", "label"),
    }
