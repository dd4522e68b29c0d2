"""The grammar sentence by sentence where no golden folder and no rule of ``test_rules`` tells it already."""

from __future__ import annotations

import pytest

from minidock.dockerfile.fields import expanded, expanded_from
from minidock.dockerfile.instructions import (
    Add,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from minidock.dockerfile.parser import parse, parse_trigger
from minidock.errors import DockerfileError


def one(text: str, *, head: str = "FROM scratch\n") -> Instruction:
    """The only instruction after FROM."""
    (found,) = parse(head + text).stages[0].instructions
    return found


def refusal(text: str) -> DockerfileError:
    with pytest.raises(DockerfileError) as caught:
        parse(text)
    return caught.value


# Directives


@pytest.mark.parametrize("line", ["#escape=`", "# escape = `", "#\t eScApE\t=` ", "# ESCAPE=`\r"])
def test_a_directive_takes_blanks_and_any_letter_case(line: str) -> None:
    assert parse(f"{line}\nFROM x\n").escape == "`"


def test_all_directives_stand_in_any_order() -> None:
    found = parse("# check=skip=all\n# escape=`\n# syntax=docker/dockerfile:1\nFROM x\n").directives
    assert (found.syntax, found.escape, found.check) == ("docker/dockerfile:1", "`", "skip=all")


@pytest.mark.parametrize("key", ["syntax", "escape", "check"])
def test_no_directive_stands_twice(key: str) -> None:
    error = refusal(f"# {key}=`\n# {key.upper()}=`\nFROM x\n")
    assert error.message == f"dockerfile parse error on line 2: only one {key} directive can be used"


# Lines


def test_blanks_after_the_escape_character_and_before_an_instruction_are_nothing() -> None:
    run = one("  \tRUN a \\ \t \n  b\n")
    assert isinstance(run, Run)
    assert run.text == "a   b", "the line that continues keeps its own blanks"


def test_the_backtick_continues_lines_and_the_backslash_is_data_where_the_directive_says_so() -> None:
    run = one("RUN dir c:\\ `\n  d:\\\n", head="# escape=`\nFROM x\n")
    assert isinstance(run, Run)
    assert run.text == "dir c:\\   d:\\"


def test_an_instruction_ends_with_the_file_whatever_its_last_character() -> None:
    for text in ("RUN a \\", "RUN a \\\n", "RUN a \\\n\n\n", "RUN a \\\n# comment"):
        run = one(text)
        assert isinstance(run, Run)
        assert run.text == "a"


def test_one_warning_stands_for_all_blank_lines_of_an_instruction() -> None:
    found = parse("FROM x\nRUN a \\\n\n \t\n b\nRUN c \\\n\nd\n").warnings
    assert [(warning.check, warning.line) for warning in found] == [
        ("NoEmptyContinuation", 3),
        ("NoEmptyContinuation", 7),
    ]


# Flags


def test_some_flags_may_be_repeated_and_no_other() -> None:
    run = one("RUN --mount=type=tmpfs,target=/a --device=x --mount=type=tmpfs,target=/b --device=y c\n")
    assert isinstance(run, Run)
    assert (len(run.mounts), run.devices) == (2, ("x", "y"))
    for line in ("COPY --exclude=a --exclude=b c d", "ADD --exclude=a --exclude=b c d"):
        copy = one(line)
        assert isinstance(copy, Copy | Add)
        assert copy.exclude == ("a", "b")
    for flags in ("--chown=1 --chown=1", "--link --link", "--chmod=1 --chmod=2"):
        assert "duplicate flag" in refusal(f"FROM x\nCOPY {flags} a b\n").message


@pytest.mark.parametrize(("written", "expected"), [("", True), ("=true", True), ("=TRUE", True), ("=false", False)])
def test_a_boolean_flag_is_bare_true_or_false(written: str, expected: bool) -> None:
    copy = one(f"COPY --link{written} --parents{written} a b\n")
    assert isinstance(copy, Copy)
    assert (copy.link, copy.parents) == (expected, expected)


@pytest.mark.parametrize("value", ["1", "yes", "", "truee"])
def test_a_boolean_flag_is_nothing_else(value: str) -> None:
    assert f"takes true or false, not {value!r}" in refusal(f"FROM x\nADD --keep-git-dir={value} a b\n").message


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("RUN --netwrok=none a", "did you mean --network?"),
        ("COPY --form=x a b", "did you mean --from?"),
        ("ADD --check-sum=x a b", "did you mean --checksum?"),
        ("HEALTHCHECK --timout=3s CMD a", "did you mean --timeout?"),
        ("FORM x", "did you mean FROM?"),
        ("ENTRYPIONT x", "did you mean ENTRYPOINT?"),
        ("WORKDIRECTORY x", ""),
    ],
)
def test_an_unknown_word_meets_a_suggestion_where_one_is_near(line: str, hint: str) -> None:
    error = refusal(f"FROM x\n{line}\n")
    assert error.line == 2
    assert error.message.startswith("dockerfile parse error on line 2: unknown ")
    assert not hint or error.hint == hint


# The JSON form


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('RUN [ "a" , "b c" ]', ("a", "b c")),
        ('CMD ["a"]', ("a",)),
        ('ENTRYPOINT ["a"]', ("a",)),
        ('SHELL ["a", "b"]', ("a", "b")),
        ('VOLUME ["/a b"]', ("/a b",)),
        ('HEALTHCHECK CMD ["a"]', ("CMD", "a")),
        ('COPY ["a b", "c d"]', ("a b", "c d")),
        ('ADD ["a b", "c d"]', ("a b", "c d")),
    ],
)
def test_who_takes_the_json_form(line: str, expected: tuple[str, ...]) -> None:
    assert vector(one(line)) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("RUN ['a']", "['a']"),
        ('RUN ["a",]', '["a",]'),
        ('RUN ["a"] b', '["a"] b'),
        ('RUN ["a" "b"]', '["a" "b"]'),
        ('CMD ["a', '["a'),
        ("ENTRYPOINT [a]", "[a]"),
        ("HEALTHCHECK CMD ['a']", ("CMD-SHELL", "['a']")),
        ('VOLUME ["/a" "/b"]', ('["/a"', '"/b"]')),
        ("COPY ['a', 'b']", ("['a',", "'b']")),
    ],
)
def test_what_fails_to_be_json_is_text_without_a_word(line: str, expected: object) -> None:
    assert vector(one(line)) == expected


def test_shell_has_the_json_form_only() -> None:
    assert "requires the arguments to be in JSON form" in refusal("FROM x\nSHELL ['a']\n").message


@pytest.mark.parametrize("word", ["RUN", "CMD", "ENTRYPOINT", "SHELL", "VOLUME", "HEALTHCHECK CMD", "COPY", "ADD"])
def test_an_element_that_is_no_string_is_refused_everywhere(word: str) -> None:
    for element in ("1", "null", "true", "{}", "[]"):
        assert "strings only" in refusal(f'FROM x\n{word} ["a", {element}]\n').message


def vector(found: Instruction) -> object:
    match found:
        case Run() | Cmd() | Entrypoint():
            return found.args or found.text
        case Shell():
            return found.args
        case Volume():
            return found.paths
        case Healthcheck():
            return found.test
        case Copy() | Add():
            return (*found.sources, found.destination)
    raise AssertionError(found)


# Heredocs


@pytest.mark.parametrize("word", ["RUN", "COPY", "ADD", "ONBUILD RUN", "ONBUILD COPY", "onbuild add"])
def test_who_takes_a_heredoc(word: str) -> None:
    found = one(f"{word} <<E /d\n# not a comment\n\n  \\\nFROM data\nE\n")
    found = found.trigger if isinstance(found, Onbuild) else found
    assert isinstance(found, Run | Copy | Add)
    assert found.heredocs[0].body == "# not a comment\n\n  \\\nFROM data\n"


@pytest.mark.parametrize(
    "line",
    [
        "CMD <<E",
        "ENTRYPOINT <<E",
        "ENV a=<<E",
        "LABEL a=<<E",
        "USER <<E",
        'RUN ["<<E"]',
        'RUN "<<E"',
        "RUN a<<E",
        "RUN << E",
    ],
)
def test_who_takes_none(line: str) -> None:
    assert len(parse(f"FROM x\n{line}\nRUN next\n").stages[0].instructions) == 2


def test_several_heredocs_follow_each_other() -> None:
    copy = one("COPY <<a 3<<-\"b\" c <<'d' /x/\n$A\na\n\t$B\n\tb\n$D\nd\n")
    assert isinstance(copy, Copy)
    assert copy.sources == ("c",)
    assert [(h.name, h.content, h.expand, h.strip_tabs, h.fd) for h in copy.heredocs] == [
        ("a", "$A\n", True, False, 0),
        ("b", "$B\n", False, True, 3),
        ("d", "$D\n", False, False, 0),
    ]


def test_a_heredoc_ends_at_its_word_alone() -> None:
    copy = one("COPY <<E /x\nE \n E\nEE\n\tE\nE\n")
    assert isinstance(copy, Copy)
    assert copy.heredocs[0].body == "E \n E\nEE\n\tE\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("RUN <<E bash", "<<E bash\nx\nE"),
        ("RUN cat <<E > /f && a", "cat <<E > /f && a\nx\nE"),
        ("RUN 3<<E", "x\n"),
        ("RUN --network=none <<E", "x\n"),
        ("RUN <<E \\\n  && b", "<<E   && b\nx\nE"),
    ],
)
def test_what_the_shell_of_run_is_handed(line: str, expected: str) -> None:
    run = one(f"{line}\nx\nE\n")
    assert isinstance(run, Run)
    assert (run.shell_text, run.script) == (expected, None)


def test_two_heredocs_of_run_are_joined_again_with_their_line() -> None:
    run = one("RUN <<A cat - <<-B\n#!/x\nA\n\ty\n\tB\n")
    assert isinstance(run, Run)
    assert run.shell_text == "<<A cat - <<-B\n#!/x\nA\n\ty\nB"
    assert run.script is None, "a heredoc that is not the whole command is no script"


# Expansion


EXPANDED = [
    ("COPY $V /$V", Copy),
    ("ADD $V /$V", Add),
    ("ENV a=$V", Env),
    ("EXPOSE $P", Expose),
    ("LABEL a=$V", Label),
    ("USER $V", User),
    ("WORKDIR $V", Workdir),
    ("VOLUME $V", Volume),
    ("STOPSIGNAL $S", Stopsignal),
    ("RUN --mount=type=tmpfs,target=/$V x", Run),
]


@pytest.mark.parametrize(("line", "kind"), EXPANDED)
def test_who_is_expanded_is_under_onbuild_too(line: str, kind: type) -> None:
    env = {"V": "v", "P": "80 81/udp", "S": "TERM"}
    trigger = one(f"ONBUILD {line}\n")
    assert isinstance(trigger, Onbuild)
    assert expanded(trigger, env) == trigger, "when it is stored it is as written"
    for found in (one(f"{line}\n"), parse_trigger(trigger.text)):
        done = expanded(found, env)
        assert type(done) is kind
        fields = {name: value for name, value in done._asdict().items() if name not in ("location", "flags")}
        assert "$" not in repr(fields)


def test_from_sees_what_it_is_handed_and_nothing_of_the_stages() -> None:
    first, second = parse("ARG V=1\nFROM a:$V\nARG V=2\nFROM --platform=$P b:$V\n").stages
    assert expanded_from(first.origin, {"V": "1"}).base == "a:1"
    origin = expanded_from(second.origin, {"V": "1", "P": "linux/amd64"})
    assert (origin.base, origin.platform) == ("b:1", "linux/amd64")


# Instructions


@pytest.mark.parametrize("name", ["a", "A", "a-b_c.d", "a1", "Build.Stage-2"])
def test_names_of_stages(name: str) -> None:
    assert parse(f"FROM x AS {name}\n").stages[0].name == name.lower()


@pytest.mark.parametrize("name", ["1", "1a", "-a", ".a", "_a", "a/b", "a:b", "a$b"])
def test_no_names_of_stages(name: str) -> None:
    assert "invalid name of a build stage" in refusal(f"FROM x AS {name}\n").message


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("ENV a b  c ", "a", "b  c"),
        ("ENV a\tb=c", "a", "b=c"),
        ("LABEL k v w", "k", "v w"),
        ('ENV a "b"', "a", '"b"'),
    ],
)
def test_the_old_form_takes_the_rest_of_the_line(line: str, key: str, value: str) -> None:
    found = one(f"{line}\n")
    assert isinstance(found, Env | Label)
    assert (found.pairs, found.legacy) == (((key, value),), True)


def test_pairs_take_quotes_and_escapes() -> None:
    found = expanded(one("""LABEL "a b"=c d='e f' g=h\\ i j="k=\\"l" m=\n"""), {})
    assert isinstance(found, Label)
    assert found.pairs == (("a b", "c"), ("d", "e f"), ("g", "h i"), ("j", 'k="l'), ("m", ""))


def test_every_time_of_a_health_check() -> None:
    found = one("HEALTHCHECK --interval=1m --timeout=3s --start-period=1ms --start-interval=2s --retries=4 CMD a b\n")
    assert isinstance(found, Healthcheck)
    assert found.test == ("CMD-SHELL", "a b")
    times = (found.interval, found.timeout, found.start_period, found.start_interval)
    assert times == (60 * 10**9, 3 * 10**9, 10**6, 2 * 10**9)
    assert found.retries == 4


def test_zero_leaves_a_health_check_to_its_base() -> None:
    found = one("HEALTHCHECK --interval=0s --timeout=0 --retries=0 CMD a\n")
    assert isinstance(found, Healthcheck)
    assert (found.interval, found.timeout, found.retries) == (0, 0, 0)
