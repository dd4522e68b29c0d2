"""The live view as text: what it shows of a build, at every size of a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from minidock.cli.progress_board import Board, clean
from minidock.model.events import (
    BEGIN,
    CACHED,
    CANCELED,
    COPIED,
    DONE,
    ENDS,
    ERROR,
    MISSED,
    WARNING,
    Event,
    output_event,
)


def board(*events: Event) -> Board:
    made = Board()
    for event in events:
        made.feed(event)
    return made


def plain(lines: list[Text]) -> list[str]:
    return [line.plain.rstrip() for line in lines]


def begin(step: str, title: str, when: float = 0.0) -> Event:
    return Event(BEGIN, step, when, title)


TWO_STAGES = (
    begin("1", "[internal] load build definition from Dockerfile"),
    Event(DONE, "1", 0.1),
    begin("2", "[build 1/2] FROM busybox", 0.1),
    Event(CACHED, "2", 0.1),
    begin("3", "[stage-1 1/2] FROM busybox", 0.1),
    Event(CACHED, "3", 0.1),
    begin("4", "[build 2/2] RUN make", 0.2),
    begin("5", "[stage-1 2/2] COPY . /", 0.2),
    output_event("4", 0.3, b"cc a.c\ncc b.c\nlinking 10%\rlinking 50%"),
    Event(COPIED, "5", 0.4, size=12_300_000),
)


def test_stages_are_kept_together_whatever_the_order_of_their_steps() -> None:
    assert plain(board(*TWO_STAGES).frame(60, 24, 1.2)) == [
        "[+] Building 1.2s (3/5)",
        " => [internal] load build definition from Dockerfile    0.1s",
        " => CACHED [build 1/2] FROM busybox                     0.0s",
        " => [build 2/2] RUN make                                1.0s",
        " => => # cc a.c",
        " => => # cc b.c",
        " => => # linking 50%",
        " => CACHED [stage-1 1/2] FROM busybox                   0.0s",
        " => [stage-1 2/2] COPY . /                       12.3MB 1.0s",
    ]


def test_a_small_terminal_draws_the_finished_together() -> None:
    events = [begin(str(n), f"[a {n}/9] RUN {n}") for n in range(1, 9)]
    events += [Event(DONE, str(n), 1.0) for n in range(1, 6)]
    events += [Event(CACHED, "6", 1.0), output_event("8", 1.0, b"one\ntwo\nthree\n")]
    made = board(*events)
    assert len(made.frame(40, 24, 2.0)) == 12
    assert plain(made.frame(40, 6, 2.0)) == [
        "[+] Building 2.0s (6/8)",
        " => [a] 6 steps, 1 cached           1.0s",
        " => [a 7/9] RUN 7                   2.0s",
        " => [a 8/9] RUN 8                   2.0s",
        " => => # three",
    ]
    assert plain(made.frame(40, 4, 2.0))[-1] == " => [a 8/9] RUN 8                   2.0s"
    assert plain(made.frame(40, 2, 2.0)) == ["[+] Building 2.0s (6/8)", " => [a 8/9] RUN 8                   2.0s"]


def test_narrow_lines_are_cut() -> None:
    assert plain(board(*TWO_STAGES).frame(20, 24, 1.2))[:4] == [
        "[+] Building 1.2s (…",
        " => [internal]… 0.1s",
        " => CACHED [bu… 0.0s",
        " => [build 2/2… 1.0s",
    ]


def test_the_end_tells_everything_and_the_output_of_what_failed() -> None:
    made = board(
        *TWO_STAGES,
        Event(WARNING, "", 1.0, "careful\nnow"),
        output_event("4", 2.0, b"\nbroken\n"),
        Event(ERROR, "4", 2.2, "exit code: 3"),
        Event(CANCELED, "5", 2.2),
    )
    assert plain(made.summary(60)) == [
        "[+] Failed after 2.2s (5/5)",
        " => [internal] load build definition from Dockerfile    0.1s",
        " => CACHED [build 1/2] FROM busybox                     0.0s",
        " => ERROR [build 2/2] RUN make                          2.0s",
        " => CACHED [stage-1 1/2] FROM busybox                   0.0s",
        " => CANCELED [stage-1 2/2] COPY . /              12.3MB 2.0s",
        "WARNING: careful now",
        "--------------------",
        " > [build 2/2] RUN make:",
        "0.100 cc a.c",
        "0.100 cc b.c",
        "1.800 linking 50%",
        "1.800 broken",
        "--------------------",
    ]


def test_what_was_under_way_when_the_events_ended_is_canceled() -> None:
    made = board(*TWO_STAGES)
    made.break_off()
    lines = plain(made.summary(60))
    assert lines[0] == "[+] Canceled after 0.4s (5/5)"
    assert [line.split()[1] for line in lines if "RUN make" in line or "COPY" in line] == ["CANCELED", "CANCELED"]


def test_what_an_export_says_is_told_at_the_end() -> None:
    made = board(begin("1", "exporting to image"), output_event("1", 0.0, b"naming to x\n"), Event(DONE, "1", 0.0))
    assert plain(made.summary(40))[2:] == [" => => naming to x"]
    assert len(made.frame(40, 24, 0.0)) == 2


HOSTILE = b"\x1b[2J\x1b]52;c;aGk=\x07 \xe2\x80\xae \x9b31m \x00\t\xff \x1b[31mred\x1b[0m \x08\x7f"


def test_nothing_that_drives_a_terminal_comes_through() -> None:
    text = HOSTILE.decode("utf-8", "surrogateescape")
    made = board(
        begin("1", f"[a 1/1] RUN {text}"),
        output_event("1", 0.0, HOSTILE + b"\n" + HOSTILE),
        Event(WARNING, "", 0.0, text),
    )
    shown = "".join(plain(made.frame(200, 50, 1.0)))
    made.feed(Event(ERROR, "1", 1.0, text))
    shown += "".join(plain(made.summary(200)))
    assert shown.isprintable()
    assert "\\x1b[2J\\x1b]52;c;aGk=\\x07 \\u202e" in shown
    assert clean("a\x1b[1;31mb\x1b[0mc") == "abc", "colours say nothing here"


def test_of_long_output_the_end_is_kept() -> None:
    made = board(begin("1", "x"), *(output_event("1", 0.0, b"z" * 4000) for _ in range(100)))
    made.feed(output_event("1", 0.0, b"".join(b"line %d\n" % n for n in range(1000))))
    assert plain(made.frame(40, 24, 0.0))[-1] == " => => # line 999"
    made.feed(Event(ERROR, "1", 1.0, ""))
    assert len([line for line in plain(made.summary(40)) if "line" in line]) == 20


events = st.one_of(
    st.builds(begin, st.sampled_from("123"), st.text(max_size=30), st.floats(0, 100)),
    st.builds(output_event, st.sampled_from("1234"), st.floats(0, 100), st.binary(max_size=200)),
    st.builds(Event, st.sampled_from([COPIED, WARNING, *ENDS]), st.sampled_from("1234"), st.floats(0, 100), st.text()),
)


@given(st.lists(events, max_size=30), st.integers(1, 120), st.integers(1, 40))
def test_a_frame_always_fits(told: list[Event], width: int, height: int) -> None:
    made = board(*told)
    lines = made.frame(width, height, 50.0)
    assert 1 <= len(lines) <= height
    for line in lines:
        assert cell_len(line.plain) <= width
        assert line.plain.isprintable()
    made.break_off()
    assert all(line.plain.isprintable() for line in made.summary(width))


@pytest.mark.parametrize("width", [1, 2, 5, 9, 12, 13])
def test_the_narrowest(width: int) -> None:
    assert all(cell_len(line.plain) <= width for line in board(*TWO_STAGES).frame(width, 5, 1.0))


def test_why_a_step_runs_is_told_below_it() -> None:
    events = (
        begin("1", "[1/2] COPY f /"),
        Event(MISSED, "1", 0.1, "file f was 1,\nis \x1b[2J2"),
        Event(DONE, "1", 0.2),
        begin("2", "[2/2] RUN x"),
        Event(MISSED, "2", 0.3, "ARG V was '1', is '2', which is more than fits"),
    )
    reason = " => => miss: file f was 1, is \\x1b[2J2"
    frame = plain(board(*events).frame(40, 24, 1.0))
    assert frame[2] == reason
    assert frame[4] == " => => miss: ARG V was '1', is '2', whi…"
    assert not any("miss" in line for line in plain(board(*events).frame(40, 2, 1.0))), "there is no room for it"
    assert plain(board(*events).summary(40))[2:5:2] == [
        reason,
        " => => miss: ARG V was '1', is '2', which is more than fits",
    ]
