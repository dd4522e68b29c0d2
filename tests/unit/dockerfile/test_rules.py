"""Rules of the Dockerfile's semantics that live in the parser and the expander; each test names its rule."""

from __future__ import annotations

import pytest

from minidock.dockerfile.fields import expanded, expanded_from
from minidock.dockerfile.ignore import IgnoreRules
from minidock.dockerfile.instructions import Arg, Copy, Env, Expose, Instruction, Onbuild, Pair, Run
from minidock.dockerfile.parser import parse
from minidock.errors import DockerfileError


def one(text: str) -> Instruction:
    """The only instruction after FROM."""
    (found,) = parse("FROM scratch\n" + text).stages[0].instructions
    return found


def refusal(text: str) -> str:
    with pytest.raises(DockerfileError) as caught:
        parse(text)
    return caught.value.message


def test_rule_directives_end_at_the_first_line_that_is_none() -> None:
    assert parse("# escape=`\nFROM x\n").escape == "`"
    assert parse("#\n# escape=`\nFROM x\n").escape == "\\"
    assert parse("\n# escape=`\nFROM x\n").escape == "\\"
    assert parse("# unknown=1\n# escape=`\nFROM x\n").escape == "\\"


def test_rule_comment_lines_vanish_between_continuations_and_other_hashes_are_data() -> None:
    run = one("RUN a \\\n  # gone \\\nb # kept\n")
    assert isinstance(run, Run)
    assert run.text == "a b # kept"


def test_rule_an_escaped_escape_does_not_continue_the_line() -> None:
    assert len(parse("FROM x\nRUN a \\\\\nRUN b\n").stages[0].instructions) == 2


def test_rule_what_is_not_json_is_shell_text() -> None:
    run = one("RUN ['a', 'b']\n")
    assert isinstance(run, Run)
    assert (run.form, run.text, run.args) == ("shell", "['a', 'b']", ())


def test_rule_a_json_form_holds_strings_only() -> None:
    assert "strings only" in refusal('FROM x\nRUN ["a", 1]\n')


def test_rule_flags_stand_before_everything_else() -> None:
    run = one("RUN echo --network=none\n")
    assert isinstance(run, Run)
    assert (run.flags, run.text) == ((), "echo --network=none")
    ended = one("RUN -- --network=none\n")
    assert isinstance(ended, Run)
    assert (ended.network, ended.text) == ("", "--network=none")


def test_rule_a_quoted_heredoc_is_not_expanded() -> None:
    for delimiter, expected in (("E", "1\n"), ('"E"', "$X\n"), ("'E'", "$X\n"), ("\\E", "$X\n")):
        copy = expanded(one(f"COPY <<{delimiter} /f\n$X\nE\n"), {"X": "1"})
        assert isinstance(copy, Copy)
        assert copy.heredocs[0].body == expected


def test_rule_a_dashed_heredoc_strips_tabs_and_not_spaces() -> None:
    copy = one("COPY <<-E /f\n\t\ta\tb\n  c\n\tE\n")
    assert isinstance(copy, Copy)
    assert copy.heredocs[0].content == "a\tb\n  c\n"


def test_rule_a_run_heredoc_is_never_expanded_by_the_builder() -> None:
    run = expanded(one("RUN <<E\necho $X\nE\n"), {"X": "1"})
    assert isinstance(run, Run)
    assert run.shell_text == "echo $X\n"


def test_rule_a_heredoc_that_is_the_whole_command_is_a_script() -> None:
    executed, shell, joined = (
        found
        for found in parse("FROM x\nRUN <<E\n#!/bin/x\nE\nRUN <<E\na\nE\nRUN <<E x\na\nE\n").stages[0].instructions
        if isinstance(found, Run)
    )
    assert executed.script is not None
    assert executed.script.content == "#!/bin/x\n"
    assert (shell.script, shell.shell_text) == (None, "a\n")
    assert (joined.script, joined.shell_text) == (None, "<<E x\na\nE")


def test_rule_one_instruction_sees_the_environment_as_of_before_it() -> None:
    env = expanded(one("ENV abc=bye def=$abc\n"), {"abc": "hello"})
    assert isinstance(env, Env)
    assert env.pairs == (Pair("abc", "bye"), Pair("def", "hello"))


def test_rule_commands_are_not_expanded() -> None:
    for line in ("RUN echo $X", 'CMD ["$X"]', "ENTRYPOINT $X", 'SHELL ["$X"]', "HEALTHCHECK CMD $X", "MAINTAINER $X"):
        found = one(line + "\n")
        assert expanded(found, {"X": "1"}) == found


def test_rule_copy_from_is_not_expanded() -> None:
    assert "variables are not expanded in --from=$S" in refusal("FROM x\nCOPY --from=$S a b\n")


def test_rule_mount_values_expand_except_from() -> None:
    run = expanded(one("RUN --mount=type=cache,target=/$X,id='$X' a\n"), {"X": "1"})
    assert isinstance(run, Run)
    assert run.mounts == ("type=cache,target=/1,id=1",)
    with pytest.raises(DockerfileError, match="not expanded in from="):
        expanded(one("RUN --mount=from=$X,target=/a a\n"), {"X": "1"})


def test_rule_an_unset_variable_is_empty() -> None:
    env = expanded(one("ENV a=[$U]\n"), {})
    assert isinstance(env, Env)
    assert env.pairs == (Pair("a", "[]"),)


def test_rule_only_arg_stands_before_the_first_from() -> None:
    assert parse("ARG a\nFROM x\n").global_args[0].args[0].name == "a"
    assert "RUN stands before the first FROM" in refusal("RUN a\nFROM x\n")


def test_rule_an_arg_after_from_belongs_to_its_stage() -> None:
    found = parse("FROM x\nARG a=1\n")
    assert found.global_args == ()
    assert isinstance(found.stages[0].instructions[0], Arg)


def test_rule_stage_names_are_lower_cased() -> None:
    stage = parse("# first\nFROM --platform=$P x AS BuilD\n").stages[0]
    assert (stage.position, stage.name, stage.base, stage.platform) == (0, "build", "x", "$P")
    assert stage.location.line == 2


def test_rule_a_base_that_expands_to_nothing_is_refused() -> None:
    stage = parse("FROM $X\n").stages[0]
    assert expanded_from(stage.origin, {"X": "busybox"}).base == "busybox"
    with pytest.raises(DockerfileError, match="empty after expansion"):
        expanded_from(stage.origin, {})


@pytest.mark.parametrize("word", ["FROM x", "ONBUILD RUN x", "MAINTAINER x"])
def test_rule_some_instructions_are_no_triggers(word: str) -> None:
    assert "isn't allowed as an ONBUILD trigger" in refusal(f"FROM x\nONBUILD {word}\n")


def test_rule_onbuild_stores_the_heredoc_with_its_line() -> None:
    found = one("ONBUILD COPY <<E /f\n$X\nE\n")
    assert isinstance(found, Onbuild)
    assert found.text == "COPY <<E /f\n$X\nE"
    assert expanded(found, {"X": "1"}) == found


def test_rule_the_last_matching_ignore_line_wins() -> None:
    rules = IgnoreRules.parse("*\n!src/**\nsrc/*.tmp\n")
    assert [path for path in ("a", "src", "src/a", "src/a.tmp", "src/d/b.tmp") if not rules.matches(path)] == [
        "src/a",
        "src/d/b.tmp",
    ]


def test_rule_a_hash_begins_a_comment_of_an_ignore_file_in_the_first_column_only() -> None:
    rules = IgnoreRules.parse("#a\n #b\n")
    assert not rules.matches("#a")
    assert rules.matches("#b")


def test_rule_a_colon_takes_an_empty_variable_for_an_unset_one() -> None:
    env = expanded(one("ENV a=${E:-w} b=${E-w} c=${E:+w} d=${E+w}\n"), {"E": ""})
    assert isinstance(env, Env)
    assert [pair.value for pair in env.pairs] == ["w", "", "", "w"]


def test_rule_single_quotes_keep_variables() -> None:
    env = expanded(one("""ENV a='$X' b="$X" c=\\$X\n"""), {"X": "1"})
    assert isinstance(env, Env)
    assert [pair.value for pair in env.pairs] == ["$X", "1", "$X"]


def test_rule_a_health_check_is_no_quicker_than_a_millisecond() -> None:
    assert "can not be less than 1ms" in refusal("FROM x\nHEALTHCHECK --interval=999us CMD a\n")


def test_rule_exposed_ports_are_sorted_and_single() -> None:
    found = expanded(one("EXPOSE 90-91/udp 100 80 9/sctp 80/tcp\n"), {})
    assert isinstance(found, Expose)
    assert found.ports == ("9/sctp", "80/tcp", "90/udp", "91/udp", "100/tcp")


def test_rule_a_flag_stands_once() -> None:
    assert "duplicate flag --from" in refusal("FROM x\nCOPY --from=a --from=b c d\n")
