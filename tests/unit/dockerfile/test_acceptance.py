"""Golden cases of the Dockerfile's documentation that end in the parser: trap forms, late directives, heredocs, ENV."""

from __future__ import annotations

import pytest

from minidock.dockerfile.fields import expanded
from minidock.dockerfile.instructions import Copy, Env, Run
from minidock.dockerfile.parser import parse
from minidock.errors import DockerfileError


def test_case_1_single_quotes_are_shell_text_and_numbers_are_refused() -> None:
    (run,) = parse("FROM x\nRUN ['a','b']\n").stages[0].instructions
    assert isinstance(run, Run)
    assert (run.form, run.text) == ("shell", "['a','b']")
    with pytest.raises(DockerfileError, match="one element is a number"):
        parse('FROM x\nRUN ["a",1]\n')


def test_case_2_an_escape_directive_after_a_comment_is_ignored() -> None:
    found = parse("# about this file\n# escape=`\nFROM x\nRUN a \\\n b `\nRUN c\n")
    assert found.escape == "\\"
    assert [i.text for i in found.stages[0].instructions if isinstance(i, Run)] == ["a  b `", "c"]


@pytest.mark.parametrize(
    ("word", "body", "expected"),
    [
        ('<<"E"', "$X\nE\n", "$X\n"),
        ("<<E", "$X\nE\n", "one\n"),
        ("<<-E", "\t\ta\n  b\n\tE\n", "a\n  b\n"),
        ('<<-"E"', "\t$X\n\tE\n", "$X\n"),
    ],
)
def test_case_3_heredocs(word: str, body: str, expected: str) -> None:
    (copy,) = parse(f"FROM x\nCOPY {word} /f\n{body}").stages[0].instructions
    found = expanded(copy, {"X": "one"})
    assert isinstance(found, Copy)
    assert (found.heredocs[0].name, found.heredocs[0].body) == ("E", expected)


def test_case_5_env_uses_the_value_from_before_the_line() -> None:
    environment: dict[str, str] = {}
    for instruction in parse("FROM x\nENV a=1\nENV a=2 b=$a\n").stages[0].instructions:
        found = expanded(instruction, environment)
        assert isinstance(found, Env)
        environment |= dict(found.pairs)
    assert environment == {"a": "2", "b": "1"}
