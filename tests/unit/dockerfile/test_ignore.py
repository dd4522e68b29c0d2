"""Ignore rules against a second, slow and obvious implementation, and by example."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidock.dockerfile.ignore import IgnoreRules
from minidock.errors import DockerfileError

# The machine may be busy: how long an example takes says nothing.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("text", "excluded", "included"),
    [
        ("a", ["a", "a/b", "a/b/c"], ["ab", "b/a"]),
        ("/a", ["a", "a/b"], ["b/a"]),
        ("a/", ["a", "a/b"], ["b"]),
        ("./a/../b//c", ["b/c"], ["a"]),
        ("/../a", ["a"], ["b"]),
        ("../a", [], ["a"]),
        ("*", ["a", "a/b"], []),
        ("*.go", ["x.go", "x.go/y"], ["d/x.go", "x.god"]),
        ("*/*.go", ["d/x.go"], ["x.go", "d/e/x.go"]),
        ("**/*.go", ["x.go", "d/x.go", "d/e/x.go"], ["x.god"]),
        ("**", ["a", "a/b"], []),
        ("**/", ["a", "a/b"], []),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab/c"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b/c"], ["ab", "a/xb", "x/a/b"]),
        ("a**b", ["ab", "ax/b", "ax/y/b"], ["axb"]),
        ("a*b**/c", ["abxbc", "abx/c", "abx/y/c"], ["ac", "abxc"]),
        ("**/a/**/b/*c", ["a/b/c", "x/a/y/b/xc/z", "a/a/b/b/cc"], ["a/b", "a/bc"]),
        ("a/**/**/b", ["a/b", "a/x/b"], ["ab"]),
        ("?", ["a", "a/b"], ["ab"]),
        ("[a-c]x", ["ax", "cx/y"], ["dx"]),
        ("\\#a", ["#a"], ["a"]),
        ("\\!a", ["!a"], ["a"]),
        ("#a\n  # b ", ["# b"], ["#a", "b"]),
        ("  a  \n\n\t\n", ["a"], ["b"]),
        ("a b", ["a b"], ["a"]),
        (".", [], ["a"]),
        ("/", [], ["a"]),
        ("\ufeffa\r\nb\r\n", ["a", "b"], ["c"]),
        ("a\n!a/b", ["a", "a/c"], ["a/b", "a/b/c"]),
        ("a\n!a/b\na/b/c", ["a/b/c"], ["a/b", "a/b/d"]),
        ("*\n! /src/**", ["src", "x"], ["src/a"]),
        ("*.md\n!README*.md\nREADME-secret.md", ["a.md", "README-secret.md"], ["README.md", "README-1.md"]),
        ("!a", [], ["a"]),
    ],
)
def test_examples(text: str, excluded: list[str], included: list[str]) -> None:
    rules = IgnoreRules.parse(text)
    assert [path for path in (*excluded, *included) if rules.matches(path)] == excluded


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a\n[\n", 2, "syntax error in the pattern '['"),
        ("a\\", 1, "syntax error"),
        ("ok\n\n!\n", 3, "re-include rule has no pattern"),
        ("a**b**c**d**e**f**g", 1, "more than 4 '**' inside of names"),
    ],
)
def test_malformed(text: str, line: int, reason: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        IgnoreRules.parse(text, filename="x.dockerignore")
    assert reason in caught.value.message
    assert (caught.value.filename, caught.value.line) == ("x.dockerignore", line)
    assert f"x.dockerignore:{line}" in caught.value.excerpt


def test_prunes_only_where_nothing_can_come_back() -> None:
    rules = IgnoreRules.parse("*\n!src/app/*.py\n!**/keep\n")
    assert not rules.prunes("src")
    assert not rules.prunes("other")
    rules = IgnoreRules.parse("*\n!src/app/*.py\n")
    assert [path for path in ("src", "src/app", "src/app/x", "other", "srcs") if rules.prunes(path)] == [
        "other",
        "srcs",
    ]
    assert not IgnoreRules.parse("a\n").prunes("b")
    assert IgnoreRules.parse("a\n").prunes("a/b")


def obvious(patterns: tuple[str, ...], path: str) -> bool:
    """The last line whose pattern matches the path or one of its ancestors decides."""
    names = path.split("/")
    excluded = False
    for pattern in patterns:
        plain = pattern.removeprefix("!")
        regex = ""
        for token in re.finditer(r"\*\*/?|\*|\?|.", plain):
            if token.group().startswith("**"):
                regex += ".*" if token.end() == len(plain) else "(.*/)?"
            else:
                regex += {"*": "[^/]*", "?": "[^/]"}.get(token.group(), re.escape(token.group()))
        if any(re.fullmatch(regex, "/".join(names[:count])) for count in range(1, len(names) + 1)):
            excluded = not pattern.startswith("!")
    return excluded


NAMES = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join)
PATTERN_NAMES = st.sampled_from(["a", "b", "ab", "*", "a*", "*b", "*a*b", "?", "a?b", "**", "a**", "**b", "a**b"])
PATTERNS = st.lists(PATTERN_NAMES, min_size=1, max_size=4).map("/".join)


@given(st.lists(st.tuples(st.sampled_from(["", "!"]), PATTERNS).map("".join), max_size=4), NAMES)
@settings(CALM, max_examples=300)
def test_equals_the_obvious_one(patterns: list[str], path: str) -> None:
    assert IgnoreRules(patterns).matches(path) is obvious(tuple(patterns), path)


@given(st.lists(st.tuples(st.sampled_from(["", "!"]), PATTERNS).map("".join), max_size=4), NAMES, NAMES)
@settings(CALM, max_examples=200)
def test_what_is_pruned_is_excluded(patterns: list[str], directory: str, below: str) -> None:
    rules = IgnoreRules(patterns)
    if rules.prunes(directory):
        assert rules.matches(directory)
        assert rules.matches(f"{directory}/{below}")


def test_time_does_not_explode() -> None:
    path = "/".join(["a" * 255] * 16)
    start = time.monotonic()
    for pattern in ("**/" + "*a" * 60 + "b", "/".join(["**/a*a"] * 30) + "/b", "a**b**c**d", "*a*/" * 10 + "b"):
        IgnoreRules([pattern]).matches(path)
    assert time.monotonic() - start < 2
