"""Progress of several steps at once, across a pipe, and for programs."""

from __future__ import annotations

import base64
import io
import json
import time
from typing import Any

import pytest

from minidock.build.events import EventProgress, Relay
from minidock.build.progress import PlainProgress, QuietProgress
from minidock.build.rawjson import RawJsonProgress
from minidock.model.events import COPIED, ERROR, Event, decode_event


class Clock:
    """The monotonic clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


class TestPlain:
    def test_steps_one_after_the_other(self, clock: Clock) -> None:
        stream = io.BytesIO()
        progress = PlainProgress(stream.write)
        first = progress.step("[1/2] RUN a")
        first.copied(5)
        first.output(b"one\ntw")
        clock.now += 1.5
        first.output(b"o")
        first.done()
        progress.step("[2/2] RUN b").cached()
        assert stream.getvalue().decode() == (
            "#1 [1/2] RUN a\n#1 0.000 one\n#1 1.500 two\n#1 DONE 1.5s\n\n#2 [2/2] RUN b\n#2 CACHED\n\n"
        )

    @pytest.mark.usefixtures("clock")
    def test_who_has_the_word_keeps_it_until_it_ends(self) -> None:
        stream = io.BytesIO()
        progress = PlainProgress(stream.write)
        first, second = progress.step("A"), progress.step("B")
        first.output(b"a1\n")
        second.output(b"b1\n")
        first.output(b"a2\n")
        first.done()
        assert stream.getvalue() == b"#1 A\n#1 0.000 a1\n#1 0.000 a2\n#1 DONE 0.0s\n\n#2 B\n#2 0.000 b1\n"
        second.done()
        assert stream.getvalue().endswith(b"#2 DONE 0.0s\n\n")

    def test_a_silent_step_loses_the_word_and_gets_it_back(self, clock: Clock) -> None:
        stream = io.BytesIO()
        progress = PlainProgress(stream.write)
        first, second = progress.step("A"), progress.step("B")
        first.output(b"a1\n")
        clock.now += 1.25
        second.output(b"b1\n")
        first.output(b"a2\n")
        second.error("broke")
        assert stream.getvalue().decode().split("\n") == [
            "#1 A",
            "#1 0.000 a1",
            "#1 ...",
            "",
            "#2 B",
            "#2 1.250 b1",
            "#2 ERROR: broke",
            "",
            "#1 A",
            "#1 1.250 a2",
            "",
        ]
        first.canceled()
        assert stream.getvalue().endswith(b"#1 CANCELED\n\n")

    def test_who_waits_is_heard_when_nothing_else_happens(self, clock: Clock) -> None:
        stream = io.BytesIO()
        progress = PlainProgress(stream.write)
        first, second, third = progress.step("A"), progress.step("B"), progress.step("C")
        third.done()
        second.output(b"b1\n")
        clock.now += 0.5
        progress.tick()
        assert stream.getvalue() == b"#1 A\n"
        clock.now += 1
        progress.tick()
        assert stream.getvalue() == b"#1 A\n#1 ...\n\n#2 B\n#2 0.000 b1\n"
        clock.now += 1.5
        progress.tick()
        assert stream.getvalue().endswith(b"#2 ...\n\n#3 C\n#3 DONE 0.0s\n\n#1 A\n")
        clock.now += 1.5
        progress.tick()
        first.done()
        assert stream.getvalue().endswith(b"#1 DONE 4.5s\n\n#2 B\n")

    @pytest.mark.usefixtures("clock")
    def test_those_that_ended_unheard_are_told_when_the_speaker_ends(self) -> None:
        stream = io.BytesIO()
        progress = PlainProgress(stream.write)
        steps = [progress.step(name) for name in "ABCD"]
        steps[2].cached()
        steps[1].done()
        assert b"#2" not in stream.getvalue()
        assert b"#3" not in stream.getvalue()
        steps[0].done()
        titles = [line for line in stream.getvalue().decode().split("\n") if line]
        assert titles == ["#1 A", "#1 DONE 0.0s", "#2 B", "#2 DONE 0.0s", "#3 C", "#3 CACHED", "#4 D"]
        steps[3].done()
        progress.step("E")
        assert stream.getvalue().endswith(b"#4 DONE 0.0s\n\n#5 E\n")


class TestAcrossAPipe:
    @pytest.mark.usefixtures("clock")
    def test_everything_arrives(self) -> None:
        told, direct = io.BytesIO(), io.BytesIO()
        relay = Relay(PlainProgress(told.write))
        for progress in (EventProgress(relay.feed), PlainProgress(direct.write)):
            step = progress.step("[1/1] RUN \udcff\nx")
            step.output(b"\xff\x00 bytes\n")
            step.copied(3)
            step.error("broke\x1b")
            progress.warning("careful")
            progress.step("a").cached()
            progress.step("b").done()
            progress.step("c").canceled()
        assert told.getvalue() == direct.getvalue()

    def test_pieces_of_lines(self) -> None:
        lines, out = io.BytesIO(), io.BytesIO()
        EventProgress(lines.write).step("x").done()
        relay = Relay(PlainProgress(out.write))
        for byte in lines.getvalue():
            relay.feed(bytes([byte]))
        assert out.getvalue() == b"#1 x\n#1 DONE 0.0s\n\n"

    def test_the_steps_of_a_sender_that_died_are_canceled(self) -> None:
        out = io.BytesIO()
        relay = Relay(PlainProgress(out.write))
        progress = EventProgress(relay.feed)
        progress.step("x").done()
        progress.step("y")
        relay.close()
        assert out.getvalue().endswith(b"#2 y\n#2 CANCELED\n\n")

    def test_senders_do_not_share_names(self) -> None:
        out = io.BytesIO()
        shown = PlainProgress(out.write)
        first, second = (EventProgress(Relay(shown).feed) for _ in range(2))
        a, b = first.step("A"), second.step("B")
        b.output(b"from b\n")
        a.done()
        b.done()
        assert b"#1 DONE" in out.getvalue()
        assert b"#2 0.000 from b\n#2 DONE" in out.getvalue()

    def test_a_view_that_is_gone_ends_no_build(self) -> None:
        calls = []

        def write(data: bytes) -> None:
            calls.append(data)
            raise BrokenPipeError

        step = EventProgress(write).step("x")
        step.output(b"y")
        step.done()
        assert len(calls) == 1

    @pytest.mark.usefixtures("clock")
    def test_bytes_and_messages(self) -> None:
        out = io.BytesIO()
        step = EventProgress(out.write).step("x")
        step.copied(7)
        step.error("broke")
        events = [decode_event(line) for line in out.getvalue().splitlines()]
        assert events[1:] == [Event(COPIED, "1", 100.0, size=7), Event(ERROR, "1", 100.0, "broke")]


def _raw(told: bytes) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for line in told.splitlines():
        ((kind, (value,)),) = json.loads(line).items()
        found.append((kind, value))
    return found


def test_rawjson_has_the_shape_of_buildkits() -> None:
    out = io.BytesIO()
    progress = RawJsonProgress(out.write)
    step = progress.step("[1/2] RUN \x1b x")
    step.output(b"\xff\n")
    step.copied(12)
    step.error("broke")
    progress.step("[1/2] RUN \x1b x").cached()
    progress.step("y").canceled()
    progress.step("z").done()
    progress.warning("careful")
    told = _raw(out.getvalue())
    assert [kind for kind, _ in told] == ["vertexes", "logs", "statuses", *["vertexes"] * 7, "warnings"]
    begun, log, status, failed, _, cached, _, canceled, _, done, warning = [value for _, value in told]
    assert begun.keys() == {"digest", "name", "started"}
    assert begun["name"] == "[1/2] RUN \x1b x"
    assert begun["digest"].startswith("sha256:")
    assert base64.b64decode(log["data"]) == b"\xff\n"
    assert (log["vertex"], log["stream"]) == (begun["digest"], 1)
    assert (status["vertex"], status["current"]) == (begun["digest"], 12)
    assert failed.items() > begun.items()
    assert failed["error"] == "broke"
    assert cached["digest"] != begun["digest"], "two steps of one title are two"
    assert cached["cached"] is True
    assert canceled["error"] == "context canceled"
    assert done["completed"] >= done["started"]
    assert "error" not in done
    assert base64.b64decode(warning["short"]) == b"careful"


@pytest.mark.usefixtures("clock")
class TestMisses:
    def test_they_are_told_in_each_form(self) -> None:
        plain, quiet, raw = io.BytesIO(), io.BytesIO(), io.BytesIO()
        for progress in (PlainProgress(plain.write), QuietProgress(quiet.write), RawJsonProgress(raw.write)):
            progress.step("[1/1] RUN a\nb").missed("ARG V\nwas \x1b")
        assert plain.getvalue() == b"#1 [1/1] RUN a b\n#1 miss: ARG V was \\x1b\n"
        assert quiet.getvalue() == b"[1/1] RUN a b: miss: ARG V was \\x1b\n"
        (log,) = json.loads(raw.getvalue().splitlines()[-1])["logs"]
        assert base64.b64decode(log["data"]) == b"miss: ARG V\nwas \x1b\n"

    def test_they_cross_a_pipe(self) -> None:
        stream, told = io.BytesIO(), io.BytesIO()
        EventProgress(stream.write).step("A").missed("why")
        Relay(PlainProgress(told.write)).feed(stream.getvalue())
        assert told.getvalue() == b"#1 A\n#1 miss: why\n"
