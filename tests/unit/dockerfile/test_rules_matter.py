"""For each of these rules, code that does not have it fails a test that names it.

A rule is taken away in place: its function gets the code of the same function with a few words replaced. Where those
words are gone because the code was changed, the case says so, and wants the new ones.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from types import FunctionType
from typing import NamedTuple

import pytest

from minidock.build.arguments import Arguments
from minidock.dockerfile import copying, fields, heredoc, lexer, ports, readers, request, words
from minidock.dockerfile.expand import _Expander
from minidock.dockerfile.ignore import IgnoreRules
from minidock.dockerfile.instructions import Heredoc
from minidock.errors import MinidockError
from tests.unit.build import test_build_parts as parts
from tests.unit.dockerfile import test_rules as rules


class Case(NamedTuple):
    """``test`` names the rule; ``function`` has it by the words ``having``, and with ``lacking`` in their stead not."""

    test: Callable[[], None]
    function: FunctionType
    having: str
    lacking: str


CASES = [
    # A1
    Case(
        rules.test_rule_directives_end_at_the_first_line_that_is_none,
        lexer._directives,
        "            break\n",
        "            continue\n",
    ),
    Case(
        rules.test_rule_comment_lines_vanish_between_continuations_and_other_hashes_are_data,
        lexer._Lines._logical_line,
        'elif not stripped.startswith("#"):',
        "else:",
    ),
    Case(
        rules.test_rule_an_escaped_escape_does_not_continue_the_line,
        lexer._Lines.__init__,
        "(?<!{escape}){escape}",
        "{escape}",
    ),
    Case(
        rules.test_rule_what_is_not_json_is_shell_text,
        words.json_form,
        "except (ValueError, RecursionError):\n        return None",
        "except (ValueError, RecursionError):\n        return ('a', 'b')",
    ),
    Case(
        rules.test_rule_a_json_form_holds_strings_only,
        words.json_form,
        "for element in value:\n        if not",
        "value = list(map(str, value))\n    for element in value:\n        if not",
    ),
    Case(
        rules.test_rule_flags_stand_before_everything_else,
        words.split_flags,
        'if word == "--":',
        "if False:",
    ),
    Case(
        rules.test_rule_a_flag_stands_once,
        request.Request.known_flags,
        "if flag.name in values and flag.name not in repeated:",
        "if False:",
    ),
    Case(
        rules.test_rule_a_quoted_heredoc_is_not_expanded,
        heredoc.heredoc_word,
        "name == delimiter",
        "True",
    ),
    Case(
        rules.test_rule_a_dashed_heredoc_strips_tabs_and_not_spaces,
        Heredoc.content.fget,  # type: ignore[attr-defined]
        r"^\t+",
        r"^\t+(?!.)",
    ),
    Case(
        rules.test_rule_a_heredoc_that_is_the_whole_command_is_a_script,
        readers._run,
        "heredoc_word(text) is not None",
        "False",
    ),
    # A2
    Case(
        rules.test_rule_a_colon_takes_an_empty_variable_for_an_unset_one,
        _Expander._substitution,
        "value = value or None",
        "pass",
    ),
    Case(
        rules.test_rule_single_quotes_keep_variables,
        _Expander.pieces,
        "self._single_quoted()",
        "expand_body(self._single_quoted(), self.env)",
    ),
    Case(
        rules.test_rule_one_instruction_sees_the_environment_as_of_before_it,
        fields._pairs,
        "found = tuple(Pair(word.plain(key), word.plain(value)) for key, value in pairs)",
        "seen = dict(word.env)\n"
        "    found = tuple(Pair(key, seen.__setitem__(key, expand(value, seen)) or seen[key]) for key, value in pairs)",
    ),
    Case(
        rules.test_rule_copy_from_is_not_expanded,
        copying.read_copy,
        'if "$" in flags.text("from"):',
        "if False:",
    ),
    # A3
    Case(
        parts.test_value_of_an_argument_in_a_stage,
        Arguments.value,
        "self.scope.get(name)",
        "None",
    ),
    Case(
        parts.test_proxies_do_not_override,
        Arguments.proxies,
        "name not in env and",
        "",
    ),
    # A4
    Case(
        rules.test_rule_stage_names_are_lower_cased,
        readers.read_from,
        "name = words[2].lower()",
        "name = words[2]",
    ),
    Case(
        lambda: rules.test_rule_some_instructions_are_no_triggers("ONBUILD RUN x"),
        readers._onbuild,
        "if inner.word in _NOT_TRIGGERS:",
        "if False:",
    ),
    Case(
        rules.test_rule_a_health_check_is_no_quicker_than_a_millisecond,
        readers._interval,
        "if duration and duration < 1_000_000:",
        "if False:",
    ),
    Case(
        rules.test_rule_exposed_ports_are_sorted_and_single,
        ports.exposed_ports,
        "sorted(found)",
        "sorted(found, reverse=True)",
    ),
    # A6
    Case(
        rules.test_rule_the_last_matching_ignore_line_wins,
        IgnoreRules.__init__,
        "in reversed(runs)",
        "in runs",
    ),
    Case(
        rules.test_rule_a_hash_begins_a_comment_of_an_ignore_file_in_the_first_column_only,
        IgnoreRules.parse.__func__,  # type: ignore[attr-defined]
        'return cls(line for line in lines if not line.startswith("#"))',
        'return cls(line for line in lines if not line.strip().startswith("#"))',
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.function.__qualname__}-{case.having[:30]}")
def test_without_the_rule_its_test_fails(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.test()
    monkeypatch.setattr(case.function, "__code__", changed(case).__code__)
    with pytest.raises((AssertionError, MinidockError, pytest.fail.Exception)):
        case.test()


def changed(case: Case) -> FunctionType:
    """The case's function without its rule."""
    source = textwrap.dedent(inspect.getsource(case.function))
    assert source.count(case.having) == 1, f"{case.function.__qualname__} does not have these words once"
    names = dict(case.function.__globals__)
    exec(
        compile(f"from __future__ import annotations\n{source.replace(case.having, case.lacking)}", "changed", "exec"),
        names,
    )
    found = names[case.function.__name__]
    found = getattr(found, "__func__", found)
    found = getattr(found, "fget", found)
    assert isinstance(found, FunctionType)
    return found


def test_there_are_rules_enough() -> None:
    assert len(CASES) >= 10
