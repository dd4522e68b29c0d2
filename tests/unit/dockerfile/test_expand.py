"""Word expansion: every modifier of ``${}``, quotes, escapes, nesting, splitting and refusals."""

from __future__ import annotations

import time

import pytest

from minidock.dockerfile.expand import expand, expand_body, expand_words
from minidock.errors import DockerfileError

ENV = {"V": "value", "E": "", "P": "/a/b.c/d.e.f", "S": "a b  c", "N": "V", "été": "summer", "12": "twelve"}

CASES = [
    ("", ""),
    ("plain", "plain"),
    ("$V", "value"),
    ("${V}x", "valuex"),
    ("$Vx", ""),
    ("$U", ""),
    ("${U}", ""),
    ("a$", "a$"),
    ("$/x", "$/x"),
    ("$été", "summer"),
    ("$12x", "twelvex"),
    ("$?", ""),
    ("${V:-w}", "value"),
    ("${E:-w}", "w"),
    ("${U:-w}", "w"),
    ("${E-w}", ""),
    ("${U-w}", "w"),
    ("${V:+w}", "w"),
    ("${E:+w}", ""),
    ("${E+w}", "w"),
    ("${U+w}", ""),
    ("${V:?m}", "value"),
    ("${E?m}", ""),
    ("${U:-${E:-${V}}}", "value"),
    ("${U:-a b}", "a b"),
    ("${U:-'}'}", "}"),
    ('${U:-"a}"}', "a}"),
    (r"${U:-\}}", "}"),
    (r"\$V", "$V"),
    (r"\\$V", r"\value"),
    (r"a\b", "ab"),
    ("a\\", "a"),
    ("'$V'", "$V"),
    ('"$V"', "value"),
    (r'"\$V \" \\ \n"', r'$V " \ \n'),
    ("'a'\"b\"c", "abc"),
    ("it''s", "its"),
    ("${P#*/}", "a/b.c/d.e.f"),
    ("${P##*/}", "d.e.f"),
    ("${P%.*}", "/a/b.c/d.e"),
    ("${P%%.*}", "/a/b"),
    ("${P#x}", "/a/b.c/d.e.f"),
    ("${P%x}", "/a/b.c/d.e.f"),
    ("${P#/?/}", "b.c/d.e.f"),
    ("${P##/*.}", "f"),
    ("${P#*.*.}", "e.f"),
    ("${U#*}", ""),
    ("${V#$N}", "value"),
    ("${V/a/A}", "vAlue"),
    ("${P/./-}", "/a/b-c/d.e.f"),
    ("${P//./-}", "/a/b-c/d-e-f"),
    (r"${P//\//_}", "_a_b.c_d.e.f"),
    ("${P/b*d/X}", "/a/X.e.f"),
    ("${P//?./}", "/a/c/f"),
    ("${P/*/x}", "x"),
    ("${P//*/x}", "x"),
    ("${V/zz/x}", "value"),
    ("${V/a*zz/x}", "value"),
    ("${V//l*/}", "va"),
    ("${U/a/b}", ""),
    ("${V/value/$S}", "a b  c"),
    ("${V///x}", "value"),
]


@pytest.mark.parametrize(("word", "expected"), CASES)
def test_expand(word: str, expected: str) -> None:
    assert expand(word, ENV) == expected


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("${V", "closing } is missing"),
        ("${", "no variable's name"),
        ("${}", "no variable's name"),
        ("${ V}", "no variable's name"),
        ("${{V}}", "no variable's name"),
        ("${V:", "closing } is missing"),
        ("${V:-a", "closing } is missing"),
        ("${V/a", "closing / is missing"),
        ("${V//}", "closing / is missing"),
        ("${V/a/b", "closing } is missing"),
        ("${V:x}", "unsupported modifier :x"),
        ("${V!x}", "unsupported modifier !"),
        ("${V[0]}", "unsupported modifier ["),
        ("${U?}", "U: is not allowed to be unset"),
        ("${E:?}", "E: is not allowed to be unset or empty"),
        ("${U:?set $V}", "U: set value"),
        ("'a", "single quote is missing"),
        ('"a', "double quote is missing"),
        ('"a\\', "double quote is missing"),
        (r"${V#\a}", r"invalid escape '\\a' in the pattern"),
        ("${V#a\\\\\\", "closing } is missing"),
        ("${V:-" * 80 + "}" * 80, "nested deeper than 64"),
    ],
)
def test_refused(word: str, reason: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        expand(word, ENV)
    assert reason in caught.value.message


def test_backtick_escapes_where_the_directive_says_so() -> None:
    assert expand(r"C:\dir`$V`` ", ENV, escape="`") == r"C:\dir$V` "
    assert expand('"`"\\`x"', ENV, escape="`") == '"\\`x'
    assert expand("${P/`/a/x}", ENV, escape="`") == "x/b.c/d.e.f"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("$S", ("a", "b", "c")),
        ('"$S"', ("a b  c",)),
        ("x$S", ("xa", "b", "c")),
        ("a 'b c' d\\ e", ("a", "b c", "d e")),
        ("  ", ()),
        ("$U", ()),
        ("${U:-1 2}", ("1", "2")),
        ("''", ()),
    ],
)
def test_expand_words(word: str, expected: tuple[str, ...]) -> None:
    assert expand_words(word, ENV) == expected


def test_body_keeps_quotes() -> None:
    assert expand_body("\"$V\" '${V}' it's\n\\$V \\\\ end\n", ENV) == "\"value\" 'value' it's\n$V \\ end\n"


def test_pattern_escapes_are_literal() -> None:
    env = {"X": "a*b?c\\d"}
    assert expand(r"${X#a\*}", env) == r"b?c\d"
    assert expand(r"${X%\?*}", env) == "a*b"
    assert expand(r"${X/\\/-}", env) == "a*b?c-d"
    assert expand('${X#"a\\*"}', env) == "b?c\\d"


def test_many_stars_cost_no_more_than_few() -> None:
    env = {"X": "a" * 20000}
    start = time.monotonic()
    assert expand("${X#" + "*a" * 60 + "b}", env) == env["X"]
    assert expand("${X%%" + "b*" * 60 + "}", env) == env["X"]
    assert expand("${X//" + "*a" * 60 + "b/x}", env) == env["X"]
    assert expand("${X//a/bb}", env) == "b" * 40000
    assert time.monotonic() - start < 5
