"""Small parts that the golden folders reach only by one side: excerpts, durations, signals, ports, triggers, flags."""

from __future__ import annotations

import pytest

from minidock.dockerfile.durations import parse_duration
from minidock.dockerfile.excerpt import Source, excerpt
from minidock.dockerfile.fields import expanded, expanded_arg
from minidock.dockerfile.heredoc import heredoc_word, heredoc_words
from minidock.dockerfile.instructions import Add, ArgDefault, Copy, Expose, Flag, Label, Location, Run, Volume
from minidock.dockerfile.parser import parse, parse_trigger
from minidock.dockerfile.ports import exposed_ports
from minidock.dockerfile.signals import check_signal
from minidock.dockerfile.words import json_form, split_flags, split_words
from minidock.errors import BuildError, DockerfileError

TEXT = "".join(f"line {n}\n" for n in range(1, 8))


def test_excerpt_marks_one_line_with_two_neighbours() -> None:
    assert excerpt(TEXT, filename="D", line=4, end_line=4) == (
        "D:4\n--------------------\n"
        "   2 |     line 2\n   3 |     line 3\n   4 | >>> line 4\n   5 |     line 5\n   6 |     line 6\n"
        "--------------------"
    )


def test_excerpt_marks_several_lines_with_one_neighbour() -> None:
    assert excerpt(TEXT, filename="D", line=6, end_line=99).split("\n")[2:-1] == [
        "   5 |     line 5",
        "   6 | >>> line 6",
        "   7 | >>> line 7",
    ]
    assert excerpt("a\n\n", filename="D", line=1, end_line=1).split("\n")[2:-1] == ["   1 | >>> a", "   2 |"]


def test_excerpt_of_a_line_that_is_not_there_is_empty() -> None:
    for line in (0, 8, -1):
        assert excerpt(TEXT, filename="D", line=line, end_line=line) == ""
    assert excerpt("", filename="D", line=1, end_line=1) == ""


def test_excerpt_is_fit_for_a_terminal() -> None:
    shown = excerpt("a\x1b[31m\tb\r\n" + "x" * 300, filename="D", line=1, end_line=1)
    assert "\x1b" not in shown
    assert "\r" not in shown
    assert "a\ufffd[31m\tb" in shown
    assert "x" * 200 + "..." in shown


def test_locate_adds_a_place_once() -> None:
    source = Source("D", TEXT)
    bare = DockerfileError("bad word", hint="try another")
    placed = source.locate(bare, Location(2, 3, ""))
    assert (placed.filename, placed.line, placed.end_line, placed.hint) == ("D", 2, 3, "try another")
    assert ">>> line 3" in placed.excerpt
    assert source.locate(placed, Location(5, 5, "")) is placed
    assert isinstance(BuildError("x"), DockerfileError)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("0s", 0),
        ("+1s", 10**9),
        ("1m30s", 90 * 10**9),
        ("1.5h", 5400 * 10**9),
        (".5ms", 500_000),
        ("1.ms", 10**6),
        ("7ns", 7),
        ("2us3µs4μs", 9000),
    ],
)
def test_durations(text: str, expected: int) -> None:
    assert parse_duration(text, what="x") == expected


@pytest.mark.parametrize(
    "text", ["", "1", "s", "-1s", ".s", "1d", "1s ", "1 s", "1e3s", "9" * 18 + "h", "9" * 30 + "s"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(DockerfileError, match=r"x (takes a duration|is out of range)"):
        parse_duration(text, what="x")


@pytest.mark.parametrize("text", ["TERM", "SIGTERM", "sigkill", "9", "1", "64", "RTMIN", "RTMIN+15", "SIGRTMAX-14"])
def test_signals(text: str) -> None:
    assert check_signal(text) == text


@pytest.mark.parametrize("text", ["", "0", "65", "-1", "SIGFOO", "RTMIN+16", "RTMAX-0", "TERM ", "999"])
def test_no_signals(text: str) -> None:
    with pytest.raises(DockerfileError, match="invalid signal"):
        check_signal(text)


def test_ports_are_written_out_sorted_and_unique() -> None:
    words = ["8080", "80/TCP", "80", "53/udp", "80-82/sctp", "7-7"]
    assert exposed_ports(words) == ("7/tcp", "53/udp", "80/sctp", "80/tcp", "81/sctp", "82/sctp", "8080/tcp")


@pytest.mark.parametrize("word", ["", "0", "65536", "3-2", "a", "80/", "80/x", "80/tcp/udp", "-1", "1-"])
def test_no_ports(word: str) -> None:
    with pytest.raises(DockerfileError, match="in EXPOSE"):
        exposed_ports([word])


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("8080:80", ("80/tcp",)),
        ("127.0.0.1:8080:80/udp", ("80/udp",)),
        ("127.0.0.1::80", ("80/tcp",)),
        ("[::1]:8080:80", ("80/tcp",)),
        ("::1:8080:80", ("80/tcp",)),
        ("8080-8081:80-81", ("80/tcp", "81/tcp")),
        (":80", ("80/tcp",)),
    ],
)
def test_a_mapping_in_expose_gives_the_port_of_the_container(word: str, expected: tuple[str, ...]) -> None:
    assert exposed_ports([word]) == expected


@pytest.mark.parametrize("word", ["a:80", "0:80", "1.2.3:80:80", "[::1:80:80", "localhost:80:80", "80:", ":"])
def test_no_mapping_of_ports(word: str) -> None:
    with pytest.raises(DockerfileError, match="in EXPOSE"):
        exposed_ports([word])


def test_fields_expand_and_flags_stay_as_written() -> None:
    env = {"X": "1", "P": "80 81/udp", "E": ""}
    stage = parse(
        "FROM x\nCOPY --chown=$X:$X --chmod=$X --exclude=$X/* $X/a /$X\nADD --checksum=sha256:$X --exclude=$X $X /$X/\n"
        "EXPOSE $P\nVOLUME /$X /b\nLABEL a$X='$X'\nUSER $X\nWORKDIR /$X\nSTOPSIGNAL $X\nARG a$X=$X b\n"
    ).stages[0]
    copy, add, expose, volume, label, user, workdir, signal, arg = (expanded(i, env) for i in stage.instructions)
    assert isinstance(copy, Copy)
    assert (copy.sources, copy.destination, copy.chown, copy.chmod) == (("1/a",), "/1", "1:1", "1")
    assert (copy.exclude, copy.flags[0]) == (("1/*",), Flag("chown", "$X:$X"))
    assert str(copy.flags[0]) == "--chown=$X:$X"
    assert str(Flag("link", None)) == "--link"
    assert isinstance(add, Add)
    assert (add.sources, add.destination, add.checksum, add.exclude) == (("1",), "/1/", "sha256:1", ("1",))
    assert isinstance(expose, Expose)
    assert expose.ports == ("80/tcp", "81/udp")
    assert isinstance(volume, Volume)
    assert volume.paths == ("/1", "/b")
    assert isinstance(label, Label)
    assert label.pairs == (("a1", "$X"),)
    assert (user[0], workdir[0], signal[0]) == ("1", "/1", "1")
    assert arg[0] == (ArgDefault("a1", "1"), ArgDefault("b", None))
    for line in ("WORKDIR $E", "USER $E", "VOLUME $E", "COPY $E /a", "ADD $E /a", "ENV $E=1", "ARG $E=1"):
        (instruction,) = parse(f"FROM x\n{line}\n").stages[0].instructions
        with pytest.raises(DockerfileError, match=r"empty after expansion|can not be blank"):
            expanded(instruction, env)
    for line in ("COPY a $E", "ADD a $E"):
        (instruction,) = parse(f"FROM x\n{line}\n").stages[0].instructions
        found = expanded(instruction, env)
        assert isinstance(found, Copy | Add)
        assert found.destination == "", "the working directory"


def test_an_arg_alone() -> None:
    assert expanded_arg(ArgDefault("A", "'$X'$X"), {"X": "1"}) == ArgDefault("A", "$X1")


def test_triggers() -> None:
    run = parse_trigger("RUN --network=none <<E\na\nE")
    assert isinstance(run, Run)
    assert (run.network, run.shell_text, run.location) == ("none", "a\n", Location(1, 3, "RUN --network=none <<E"))
    for text, reason in (
        ("", "one instruction, not 0"),
        ("RUN a\nRUN b", "one instruction, not 2"),
        ("FROM x", "isn't allowed"),
        ("onbuild RUN a", "isn't allowed"),
        ("RUN", "requires at least one argument"),
    ):
        with pytest.raises(DockerfileError, match=reason):
            parse_trigger(text)


@pytest.mark.parametrize("word", ["<E", "<<", "<<<E", "a<<E", "<<E<", "<<''", "<<'E", "<<a b", "E", '"<<E"'])
def test_no_heredoc_words(word: str) -> None:
    assert heredoc_word(word) is None


def test_heredoc_words() -> None:
    assert heredoc_word("3<<-'a'b") == ("ab", False, True, 3)
    assert heredoc_word("<<'a\\b'") == ("a\\b", False, False, 0)
    assert heredoc_word('<<"it\'s"') == ("it's", False, False, 0)
    assert heredoc_words("RUN cat <<A 'x <<B' \\<<C") == (("A", True, False, 0),)
    assert heredoc_words('RUN cat <<A "open') == ()
    assert heredoc_words('RUN ["<<A"]') == ()
    assert heredoc_words("ENV a=<<A") == ()


def test_flags_know_quotes_and_backslashes() -> None:
    flags, rest = split_flags(r"""--a="x y" --b=\$x'' --c --d=e\ """)
    assert flags == (Flag("a", "x y"), Flag("b", "$x"), Flag("c", None), Flag("d", "e "))
    assert rest == ""
    assert split_flags("--a=x\\") == ((Flag("a", "x"),), "")
    assert split_flags("a --b") == ((), "a --b")
    assert split_flags("--\tx") == ((), "x")


def test_words_keep_quotes_and_escapes() -> None:
    assert split_words(r"""a="b c" d\ e 'f\' g" """, escape="\\") == (('a="b c"', r"d\ e", r"'f\'", 'g" '), False)
    assert split_words("a`", escape="`") == (("a",), True)


def test_json_is_read_as_go_reads_it() -> None:
    assert json_form('["\\ud800x", "\\ud83d\\ude00"]') == ("\ufffdx", "😀")
    assert json_form("[]") == ()
    assert json_form('["a"') is None
    assert json_form('["a\tb"]') is None
    assert json_form("[" * 100_000) is None
    assert json_form("[1" + "0" * 10_000 + "x]") is None
    with pytest.raises(DockerfileError, match="a number"):
        json_form("[1" + "0" * 10_000 + "]")


def test_env_with_nothing_but_an_escape_is_refused() -> None:
    for word in ("ENV", "ARG"):
        with pytest.raises(DockerfileError, match="requires at least one argument"):
            parse(f"FROM x\n{word} \\\x0b\n")
