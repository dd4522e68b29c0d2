"""Whatever the text, parser and expander answer or raise DockerfileError; and what is printed parses the same."""

from __future__ import annotations

import json
from collections.abc import Callable

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from minidock.dockerfile.checks.find import find
from minidock.dockerfile.checks.settings import Settings, parse_settings
from minidock.dockerfile.checks.subject import StageFacts, Subject, read_stages
from minidock.dockerfile.expand import expand, expand_body, expand_words
from minidock.dockerfile.fields import expanded
from minidock.dockerfile.glob import match
from minidock.dockerfile.ignore import IgnoreRules
from minidock.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Finding,
    Flag,
    From,
    Healthcheck,
    Heredoc,
    Instruction,
    Label,
    Location,
    Onbuild,
    Run,
    Shell,
    Volume,
)
from minidock.dockerfile.parser import Dockerfile, parse, parse_trigger
from minidock.errors import DockerfileError

# The machine may be busy: how long an example takes says nothing.
CALM = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

WORDS = (
    "FROM RUN COPY ADD ENV ARG LABEL ONBUILD CMD ENTRYPOINT SHELL HEALTHCHECK EXPOSE VOLUME USER WORKDIR STOPSIGNAL "
    'MAINTAINER FOO # \\ ` \' " $ ${ } :- a b=c 80/tcp <<E <<-E <<"E" [ ] , ["a"] -- --from=x --mount= --link NONE 1 *'
)
OTHERS = ["# escape=`", " ", " ", "\t", "\n", "\n", "\r\n", "\\\n", "`\n", "\nE\n", "AS x", "CMD x", "\x00", "\ufeff"]
PIECES = st.sampled_from([*WORDS.split(" "), *OTHERS, " ", "\n", "\u2028", "\x0b", "\x0c", "é", "\ud800"])
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=30).map("".join))
PLACE = Location(0, 0, "")
ENV = {"a": "1", "b": "x y", "E": ""}


def is_unicode(text: str) -> bool:
    """Whether a text's JSON form says the same: what is no UTF-8 is replaced there, as docker does it."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def refusal(attempt: Callable[[], object]) -> DockerfileError | None:
    """The DockerfileError that ``attempt`` raised, or None; any other error fails the test."""
    try:
        attempt()
    except DockerfileError as error:
        return error
    return None


@given(TEXTS, st.sampled_from(["", "FROM x\n"]))
@settings(CALM, max_examples=600)
def test_any_text_parses_or_is_refused(text: str, head: str) -> None:
    text = head + text
    error = refusal(lambda: parse(text))
    if error:
        assert error.message
        assert 0 <= error.line <= error.end_line <= text.count("\n") + 1
        assert not error.line or error.excerpt.startswith(f"Dockerfile:{error.line}\n")
        return
    found = parse(text)
    check_places(found, text)
    for stage in found.stages:
        for instruction in stage.instructions:
            check_expansion(instruction, found.escape)


@given(TEXTS, st.sampled_from(["", "FROM x\n", "ARG a=1\nFROM x AS y\n"]))
@settings(CALM, max_examples=400)
def test_any_text_is_checked_or_refused(text: str, head: str) -> None:
    try:
        found = parse(head + text)
    except DockerfileError:
        return
    facts = [StageFacts(stage, -1, {}, triggers=()) for stage in found.stages]
    stages = read_stages(found, facts, scope={"a": "1"}, given={"b": "2"})
    subject = Subject(found, {"a": "1"}, {}, stages, lambda path: "a" in path)
    wanted = Settings(experimental=frozenset(["all"]))
    findings: list[Finding] = []
    error = refusal(lambda: findings.extend(find(subject, wanted)))
    assert error is None or error.message
    for finding in findings:
        assert 1 <= finding.line <= (finding.end_line or finding.line) <= (head + text).count("\n") + 1


@given(st.one_of(st.text(), st.text("skiperoxmntal=,; ")))
@settings(CALM, max_examples=300)
def test_any_check_directive_is_read_or_refused(text: str) -> None:
    error = refusal(lambda: parse_settings(text))
    assert error is None or error.message


@given(TEXTS.filter(is_unicode), st.sampled_from(["FROM x\n", "# escape=`\nARG a\nFROM x\n"]))
@example("CMD 0`\f", "# escape=`\nFROM x\n")
@example("CMD `\f", "# escape=`\nFROM x\n")
@settings(CALM, max_examples=600)
def test_what_any_text_says_is_printed_and_parses_the_same(text: str, head: str) -> None:
    try:
        found = parse(head + text)
    except DockerfileError:
        return
    again = parse(print_file(found))
    assert without_places(again) == without_places(found)


def check_places(found: Dockerfile, text: str) -> None:
    places = [arg.location for arg in found.global_args]
    for stage in found.stages:
        places += [stage.location, *(instruction.location for instruction in stage.instructions)]
    end = 0
    for place in places:
        assert end < place.line <= place.end_line <= text.count("\n") + 1
        end = place.end_line


def check_expansion(instruction: Instruction, escape: str) -> None:
    error = refusal(lambda: expanded(instruction, ENV, escape=escape))
    assert error is None or error.message
    if isinstance(instruction, Onbuild) and escape == "\\":
        again = parse_trigger(instruction.text)
        assert again._replace(location=PLACE) == instruction.trigger._replace(location=PLACE)


@given(st.one_of(st.text(), st.text("$${}:-+?#%/\\'\"`*ab \n")), st.sampled_from("\\`"))
@settings(CALM, max_examples=400)
def test_any_word_expands_or_is_refused(text: str, escape: str) -> None:
    whole = refusal(lambda: expand(text, ENV, escape=escape))
    split = refusal(lambda: expand_words(text, ENV, escape=escape))
    body = refusal(lambda: expand_body(text, ENV))
    assert str(whole) == str(split)
    assert body is None or body.message


@given(st.text("ab*?[]^-\\/!# .\n"), st.text("ab/", min_size=1))
@settings(CALM, max_examples=400)
def test_any_pattern_matches_or_is_refused(pattern: str, path: str) -> None:
    for attempt in (lambda: match(pattern, path), lambda: IgnoreRules.parse(pattern).prunes(path)):
        error = refusal(attempt)
        assert error is None or error.message


@given(st.text(st.characters(exclude_characters="$'\"\\", exclude_categories=["Cs"])))
@CALM
def test_plain_text_expands_to_itself(text: str) -> None:
    assert expand(text, {}) == text
    assert expand(f"'{text}'", {}) == text
    assert expand(f'"{text}"', {}) == text


WORD = st.text("abcXYZ019._/-$", min_size=1, max_size=8).filter(lambda text: not text.startswith("-"))
LINE = st.lists(WORD, min_size=1, max_size=4).map(" ".join)
NAME = st.text("abcXYZ_", min_size=1, max_size=6)
QUOTED = st.one_of(WORD, st.text("ab c$", max_size=6).map(lambda text: f'"{text}"'))
BODY = st.lists(st.text("ab $\t\\#'\"", max_size=8), max_size=3).map(
    lambda lines: "".join(f"{line}\n" for line in lines)
)
ARGV = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), min_size=1, max_size=3).map(tuple)
HEREDOCS = st.lists(
    st.builds(lambda body, expands, tabs: Heredoc("EOT", body, expands, tabs, 0), BODY, st.booleans(), st.booleans()),
    max_size=2,
).map(lambda found: tuple(heredoc._replace(name=f"EOT{n}") for n, heredoc in enumerate(found)))


@st.composite
def instructions(draw: st.DrawFn) -> str:
    """One instruction as text, in one of many shapes."""
    heredocs = draw(HEREDOCS)
    words = "".join(f" <<{'-' * h.strip_tabs}{h.name if h.expand else repr(h.name)}" for h in heredocs)
    bodies = "".join(f"\n{h.body}{h.name}" for h in heredocs)
    pairs = " ".join(f"{draw(NAME)}={draw(QUOTED)}" for _ in range(draw(st.integers(1, 3))))
    line = draw(LINE)
    argv = json.dumps(draw(ARGV))
    return draw(
        st.sampled_from(
            [
                f"RUN {line}",
                f"RUN {argv}",
                f"RUN --network=none --mount=type=tmpfs,target=/x {line}",
                f"RUN {line}{words}{bodies}",
                f"COPY{words} {line} /d/{bodies}",
                f"ADD {line} /d/",
                f"COPY --from=b --chown=1:2 --link {line} /d",
                f"ADD --unpack=false --checksum=x {line} /d/",
                f"ENV {pairs}",
                f"LABEL {pairs}",
                f"ARG {pairs}",
                f"ENV {draw(NAME)} {line}",
                f"CMD {argv}",
                f"CMD {line}",
                f"ENTRYPOINT {argv}",
                f"SHELL {argv}",
                f"WORKDIR {line}",
                f"USER {line}",
                f"VOLUME {line}",
                f"EXPOSE {line}",
                f"STOPSIGNAL {line}",
                f"MAINTAINER {line}",
                f"HEALTHCHECK CMD {line}",
                f"HEALTHCHECK --interval=3s --retries=2 CMD {argv}",
                "HEALTHCHECK NONE",
                f"ONBUILD RUN {line}",
                f"ONBUILD COPY{words} {line} /d/{bodies}",
                f"FROM {draw(WORD)} AS {draw(st.sampled_from(['b', 'C']))}",
            ]
        )
    )


@given(st.lists(instructions(), max_size=6))
@settings(CALM, max_examples=300)
def test_what_is_printed_parses_the_same(lines: list[str]) -> None:
    found = parse("\n".join(["FROM scratch", *lines]))
    printed = print_file(found)
    again = parse(printed)
    assert without_places(again) == without_places(found)
    assert print_file(again) == printed


def without_places(found: Dockerfile) -> list[object]:
    values: list[object] = [found.escape, *(arg._replace(location=PLACE) for arg in found.global_args)]
    for stage in found.stages:
        values.append(stage.origin._replace(location=PLACE))
        for instruction in stage.instructions:
            plain = instruction._replace(location=PLACE)
            if isinstance(plain, Onbuild):
                plain = plain._replace(trigger=plain.trigger._replace(location=PLACE))
            values.append(plain)
    return values


def print_file(found: Dockerfile) -> str:
    lines = [print_instruction(arg) for arg in found.global_args]
    for stage in found.stages:
        lines.append(print_from(stage.origin))
        lines += [print_instruction(instruction) for instruction in stage.instructions]
    # A text may end with the escape character only where something follows that is trimmed, but is no blank.
    lines = [line + "\f" if line.endswith(found.escape) and "\n" not in line else line for line in lines]
    return "\n".join([f"# escape={found.escape}", *lines])


def print_from(origin: From) -> str:
    flag = f"{print_flag(Flag('platform', origin.platform))} " if origin.platform else ""
    return f"FROM {flag}{origin.base}" + (f" AS {origin.name}" if origin.name else "")


def print_flag(flag: Flag) -> str:
    """Every character that could mean something has its backslash."""
    name, value = ("".join(char if char.isalnum() else f"\\{char}" for char in text or "") for text in flag)
    return f"--{name}" if flag.value is None else f"--{name}={value}"


def print_instruction(found: Instruction) -> str:
    return f"{type(found).__name__.upper()} {print_rest(found)}"


def print_rest(found: Instruction) -> str:
    rest: object = found[0]
    match found:
        case Run() | Copy() | Add():
            rest = " ".join([*map(print_flag, found.flags), "--", print_operands(found)])
        case Cmd() | Entrypoint():
            rest = json.dumps(found.args, ensure_ascii=False) if found.form == "exec" else found.text
        case Shell() | Volume():
            rest = json.dumps(found[0], ensure_ascii=False)
        case Env() | Label():
            rest = " ".join(f"{pair.key}{' ' if found.legacy else '='}{pair.value}" for pair in found.pairs)
        case Arg():
            rest = " ".join(a.name if a.default is None else f"{a.name}={a.default}" for a in found.args)
        case Expose():
            rest = " ".join(found.ports)
        case Healthcheck():
            rest = print_healthcheck(found)
    return str(rest)


def print_operands(found: Run | Copy | Add) -> str:
    bodies = "".join(f"\n{heredoc.body}{heredoc.name}" for heredoc in found.heredocs)
    if isinstance(found, Run):
        return (json.dumps(found.args, ensure_ascii=False) if found.form == "exec" else found.text) + bodies
    words = [f"{h.fd}<<{'-' * h.strip_tabs}{print_delimiter(h)}" for h in found.heredocs]
    operands = [*found.sources, found.destination]
    plain = all(operand and not any(map(str.isspace, operand)) for operand in operands)
    if not words and (not plain or operands[0].startswith("[")):
        return json.dumps(operands, ensure_ascii=False)
    return " ".join([*words, *operands]) + bodies


def print_delimiter(heredoc: Heredoc) -> str:
    """The delimiter with a backslash before each character if it was quoted."""
    return heredoc.name if heredoc.expand else "".join(f"\\{char}" for char in heredoc.name)


def print_healthcheck(found: Healthcheck) -> str:
    kind, *rest = found.test
    if kind == "NONE":
        return "NONE"
    times = {"interval": found.interval, "timeout": found.timeout, "start-period": found.start_period}
    flags = "".join(f"--{name}={value}ns " for name, value in times.items() if value)
    flags += f"--start-interval={found.start_interval}ns --retries={found.retries} -- "
    return f"{flags}CMD {json.dumps(rest, ensure_ascii=False) if kind == 'CMD' else rest[0]}"
