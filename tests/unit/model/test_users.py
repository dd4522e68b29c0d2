"""USER and -u: the grammar and the look-up (docker's rules; SECURITY rows on hostile passwd files)."""

from __future__ import annotations

import time

import pytest

from minidock.errors import UsageError
from minidock.model.users import Identity, UserSpec, lookup, parse_group, parse_user

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# daemon:x:1:1::/:/bin/false
app:x:1000:1000:The app:/srv/app:/bin/sh
1000:x:0:0:numeric trap:/root:/bin/sh
short:x:7:8
broken:x:abc:1::/:/bin/sh
huge:x:4294967296:1::/:/bin/sh

"""
GROUP = """\
root:x:0:
app:x:1000:
wheel:x:10:root,app
audio:x:29:app
2000:x:0:
bad:x:-1:app
"""


@pytest.mark.parametrize("text", ["1:", ":1", "1:2:3", "-1", "+1", "4294967296", "2147483648", "1:4294967296", ":",
                                  " root", "ro ot", "a\nb", "a\x00b", "1:-2", "9" * 5000])  # fmt: skip
def test_grammar_refuses(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_user(text)
    assert caught.value.exit_status == 125
    assert "invalid user" in caught.value.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", UserSpec("", "")),
        ("app", UserSpec("app", "")),
        ("app:wheel", UserSpec("app", "wheel")),
        ("0:0", UserSpec("0", "0")),
        ("2147483647", UserSpec("2147483647", "")),
        ("www-data", UserSpec("www-data", "")),
    ],
)
def test_grammar_accepts(text: str, expected: UserSpec) -> None:
    assert parse_user(text) == expected


def _who(text: str) -> Identity:
    return lookup(parse_user(text), PASSWD, GROUP)


def test_name_brings_its_groups_and_home() -> None:
    assert _who("app") == Identity(1000, 1000, (1000, 10, 29), "/srv/app", "app")


def test_default_is_root_with_root_s_groups() -> None:
    assert _who("") == Identity(0, 0, (0, 10), "/root", "root")


def test_default_without_files_is_root() -> None:
    assert lookup(parse_user(""), "", "") == Identity(0, 0, (0,), "/", "")


def test_number_is_an_id_even_if_a_name_looks_like_it() -> None:
    assert _who("1000").uid == 1000
    assert _who("app:2000").gid == 2000


def test_number_without_entry_has_group_zero() -> None:
    assert _who("4242") == Identity(4242, 0, (0,), "/", "")


def test_explicit_group_is_the_only_group() -> None:
    assert _who("app:wheel") == Identity(1000, 10, (10,), "/srv/app", "app")
    assert _who("app:77").groups == (77,)


def test_entry_without_home_has_the_root_as_home() -> None:
    assert _who("short") == Identity(7, 8, (8,), "/", "short")


def test_extra_groups_are_added_once() -> None:
    assert lookup(parse_user("app"), PASSWD, GROUP, ("audio", "5")).groups == (1000, 10, 29, 5)


@pytest.mark.parametrize("name", ["nobody", "broken", "huge"])
def test_unknown_user_is_named(name: str) -> None:
    with pytest.raises(UsageError, match=f"unable to find user {name}: no matching entries in passwd file"):
        _who(name)


def test_unknown_group_is_named() -> None:
    with pytest.raises(UsageError, match="unable to find group staff: no matching entries in group file"):
        _who("app:staff")


def test_hostile_text_takes_linear_time() -> None:
    before = time.monotonic()
    with pytest.raises(UsageError):
        lookup(parse_user("x"), ":" * 2_000_000 + "\n" + "a:b\n" * 200_000, "")
    assert time.monotonic() - before < 5


@pytest.mark.parametrize("text", ["wheel", "0", "2147483647", "a-b", "wheel.x"])
def test_groups(text: str) -> None:
    assert parse_group(text) == text


@pytest.mark.parametrize("text", ["", "a b", "a:b", "2147483648", "-1", "+1", "a\n", "a\0"])
def test_what_is_no_group(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_group(text)
    assert caught.value.message == f"invalid group {text!r}"
