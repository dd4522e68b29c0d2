"""Image references: the familiar and the full form, the grammar's refusals, and the round trip."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidock.errors import InvalidReferenceError
from minidock.model.reference import Reference, parse_reference

# The machine may be busy: how long an example takes says nothing.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("user/name:T_1.x-y", "docker.io/user/name:T_1.x-y", "user/name:T_1.x-y"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost:5000/x/y:z", "localhost:5000/x/y:z", "localhost:5000/x/y:z"),
        ("example.com/a__b/c---d.e_f", "example.com/a__b/c---d.e_f", "example.com/a__b/c---d.e_f"),
        ("HOST/x", "HOST/x", "HOST/x"),
        ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}", f"busybox@{DIGEST}"),
        (f"a.b/c:d@{DIGEST}", f"a.b/c:d@{DIGEST}", f"a.b/c:d@{DIGEST}"),
        ("x:5000", "docker.io/library/x:5000", "x:5000"),
        ("x:" + "t" * 128, "docker.io/library/x:" + "t" * 128, "x:" + "t" * 128),
    ],
)
def test_forms(text: str, full: str, familiar: str) -> None:
    found = parse_reference(text)
    assert (found.full(), found.familiar()) == (full, familiar)
    assert parse_reference(full) == found
    assert parse_reference(familiar) == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it is empty"),
        ("Busybox", "a repository name is lower-case"),
        ("user/Name", "a repository name is lower-case"),
        ("a b", "is not a repository name"),
        ("a//b", "is not a repository name"),
        ("a/", "is not a repository name"),
        ("/a", "is not a repository name"),
        ("-a", "is not a repository name"),
        ("a-", "is not a repository name"),
        ("a..b", "is not a repository name"),
        ("a___b", "is not a repository name"),
        ("../x", "'..' is not a host name"),
        ("ex_ample.com/x", "is not a host name"),
        ("-x.com/a", "is not a host name"),
        ("x.com:port/a", "is not a host name"),
        ("a:", "is not a tag"),
        ("a:-t", "is not a tag"),
        ("a:t\n", "is not a tag"),
        ("a\n", "is not a repository name"),
        ("a:" + "t" * 129, "is not a tag"),
        ("a@", "'' is not a digest"),
        ("a@sha256:00", "is not a digest"),
        (f"a@{DIGEST}@{DIGEST}", "is not a digest"),
        ("a" * 256, "at most 255 characters"),
    ],
)
def test_refusals(text: str, reason: str) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        parse_reference(text)
    assert reason in caught.value.message


def test_the_default_tag_is_added_only_where_nothing_says_which_image() -> None:
    assert parse_reference("a").tagged().familiar() == "a:latest"
    assert parse_reference("a:b").tagged().tag == "b"
    assert parse_reference(f"a@{DIGEST}").tagged().tag == ""


def test_repositories() -> None:
    found = parse_reference("busybox:1")
    assert (found.repository, found.familiar_repository) == ("docker.io/library/busybox", "busybox")
    assert parse_reference("x.y/z").familiar_repository == "x.y/z"


PART = st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", fullmatch=True).filter(lambda text: len(text) < 40)
REFERENCES = st.builds(
    Reference,
    st.sampled_from(
        ["docker.io", "localhost", "localhost:5000", "example.com", "Registry.example:1", "[2001:db8::1]:80"]
    ),
    st.lists(PART, min_size=2, max_size=4).map("/".join),
    st.one_of(st.just(""), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)),
    st.sampled_from(["", DIGEST]),
)


@given(REFERENCES)
@CALM
def test_round_trip(reference: Reference) -> None:
    assert parse_reference(reference.full()) == reference


@given(REFERENCES)
@CALM
def test_familiar_round_trip(reference: Reference) -> None:
    assert parse_reference(reference.familiar()) == reference


@given(st.text("aB0._-/:@[] \n", max_size=20))
@CALM
def test_what_parses_is_stable_and_the_rest_is_refused(text: str) -> None:
    try:
        found = parse_reference(text)
    except InvalidReferenceError:
        return
    assert parse_reference(found.full()) == found
    assert not {" ", "\n"} & set(found.full())
    assert ".." not in found.path.split("/")
