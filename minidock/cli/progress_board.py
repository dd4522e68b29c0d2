"""The live view of a build as text: what its events have told so far, laid out for a terminal of some size."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from minidock.cli.text import printable, size
from minidock.model.events import BEGIN, CACHED, CANCELED, COPIED, DONE, ENDS, ERROR, MISSED, OUTPUT, WARNING, Event

if TYPE_CHECKING:
    from collections.abc import Sequence

_TAIL = 20
_STAGES, _STEPS = "stages", "steps"
# What is drawn together, and how many lines of a running step's output are shown: the roomiest first.
_DENSITIES = (("", 6), ("", 3), ("", 1), (_STAGES, 3), (_STAGES, 1), (_STEPS, 3), (_STEPS, 1), (_STEPS, 0))
_LIVE_WARNINGS = 3
_LONGEST_REST = 4096
_NARROW = 40
_LEAST_LEFT = 8
_RULE = 20
_WORDS = {DONE: "Built in", CANCELED: "Canceled after", ERROR: "Failed after"}
_STYLES = {DONE: "green", CACHED: "cyan", CANCELED: "yellow", ERROR: "bold red"}
_MARKS = {CACHED: "CACHED ", CANCELED: "CANCELED ", ERROR: "ERROR "}
_LABEL = re.compile(r"\[(?:(.*) )?(?:\d+/\d+|internal)\] ")
# Colours and other attributes of text, which say nothing in the view's own; whatever else a program sends is escaped.
_ATTRIBUTES = re.compile(r"\x1b\[[0-9;:]*m")


class _Step:
    """A step; ``stage`` is what its title's label says before the numbers, None for one without a label. ``misses``
    say why the cache had it not, where that was asked for."""

    __slots__ = ("_rest", "begun", "copied", "ended", "how", "message", "misses", "stage", "tail", "title")

    def __init__(self, title: str, begun: float) -> None:
        self.title = clean(title.replace("\n", " "))
        label = _LABEL.match(self.title)
        self.stage = None if label is None else "internal" if label[0] == "[internal] " else label[1] or ""
        self.begun = begun
        self.ended = 0.0
        self.how = ""
        self.message = ""
        self.copied = 0
        self.misses: list[str] = []
        self.tail: deque[tuple[float, str]] = deque(maxlen=_TAIL)
        self._rest = b""

    def output(self, when: float, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST_REST:
            lines.append(self._rest)
            self._rest = b""
        self.tail.extend((when - self.begun, _shown(line)) for line in lines[-_TAIL:])

    def last_lines(self, count: int) -> list[str]:
        """The last lines of the output, also the one that has not ended: a program's own progress."""
        lines = [line for _, line in self.tail]
        if self._rest:
            lines.append(_shown(self._rest))
        return lines[-count:] if count else []

    def end(self, event: Event) -> None:
        if self._rest:
            self.output(event.when, b"\n")
        self.how, self.ended, self.message = event.kind, event.when, event.text


class Board:
    """The state of a build. ``feed`` it events; ``frame`` is what to show while it runs, ``summary`` at its end."""

    __slots__ = ("_begun", "_latest", "_stages", "_steps", "_warnings")

    def __init__(self) -> None:
        self._steps: dict[str, _Step] = {}
        self._stages: dict[str, list[_Step]] = {}
        self._warnings: list[str] = []
        self._begun = -1.0
        self._latest = 0.0

    def feed(self, event: Event) -> None:
        """Take note of an event."""
        if self._begun < 0:
            self._begun = event.when
        self._latest = event.when
        if event.kind == WARNING:
            self._warnings.append(clean(event.text.replace("\n", " ")))
            return
        if event.kind == BEGIN:
            step = self._steps[event.step] = _Step(event.text, event.when)
            # What has no stage stands alone, where it came.
            self._stages.setdefault(f"#{event.step}" if step.stage is None else step.stage, []).append(step)
            return
        known = self._steps.get(event.step)
        if known is None:
            return
        if event.kind == OUTPUT:
            known.output(event.when, event.data)
        elif event.kind == COPIED:
            known.copied = event.size
        elif event.kind == MISSED:
            known.misses.append(clean(event.text.replace("\n", " ")))
        elif event.kind in ENDS:
            known.end(event)

    def break_off(self) -> None:
        """Nothing more will come: the steps under way were canceled."""
        for step in self._steps.values():
            if not step.how:
                step.end(Event(CANCELED, "", self._latest))

    def frame(self, width: int, height: int, now: float) -> list[Text]:
        """At most ``height`` lines of at most ``width`` cells: the stages one after the other, each with its steps; of
        the running ones the last lines of their output. What does not fit is drawn together, the finished first."""
        lines: list[Text] = []
        for together, tail in _DENSITIES:
            lines = [self._header(width, now), *self._lines(width, now, tail=tail, together=together)]
            lines += [_warning(text, width) for text in self._warnings[-_LIVE_WARNINGS:]]
            if len(lines) <= height:
                return lines
        return [lines[0], *lines[len(lines) - height + 1 :]][:height]

    def summary(self, width: int) -> list[Text]:
        """Every step, every warning, and of the step that failed the end of its output."""
        lines = [self._header(width, self._latest, over=True)]
        lines += self._lines(width, self._latest, tail=0, together="", said=True)
        lines += [_warning(text, 0) for text in self._warnings]
        rule = Text("-" * min(_RULE, width))
        for step in self._steps.values():
            if step.how == ERROR and step.tail:
                lines += [rule, _cut(f" > {step.title}:", width, "bold")]
                lines += [Text(f"{elapsed:.3f} {line}") for elapsed, line in step.tail]
                lines.append(rule)
        return lines

    def _lines(self, width: int, now: float, *, tail: int, together: str, said: bool = False) -> list[Text]:
        """``said`` adds what the steps of no stage have to say: an export its names."""
        lines: list[Text] = []
        for stage, every in self._stages.items():
            steps = every
            ended = [step for step in every if step.how in {DONE, CACHED}]
            if len(ended) > 1 and (together == _STEPS or (together == _STAGES and len(ended) == len(every))):
                lines.append(_together(stage, ended, width))
                steps = [step for step in every if step not in ended]
            elif together == _STEPS and len(ended) == 1 < len(every):
                # What runs has more to say than the one step before it.
                steps = [step for step in every if step not in ended]
            for step in steps:
                lines.append(_step_line(step, width, now))
                if tail or said:
                    lines += [_cut(f" => => miss: {reason}", 0 if said else width, "yellow") for reason in step.misses]
                if said and step.stage is None and step.how == DONE:
                    lines += [Text(f" => => {line}", style=_STYLES[DONE]) for _, line in step.tail]
                if not step.how:
                    lines += [_cut(f" => => # {line}", width, "dim") for line in step.last_lines(tail)]
        return lines

    def _header(self, width: int, now: float, *, over: bool = False) -> Text:
        hows = [step.how for step in self._steps.values()]
        word, style = "Building", "bold"
        if over:
            worst = next((how for how in (ERROR, CANCELED) if how in hows), DONE)
            word, style = _WORDS[worst], f"bold {_STYLES[worst]}"
        elapsed = max(now - self._begun, 0.0) if self._begun >= 0 else 0.0
        return _cut(f"[+] {word} {elapsed:.1f}s ({sum(map(bool, hows))}/{len(hows)})", width, style)


def clean(text: str) -> str:
    """``text`` without the colours that a program gave it, and with everything else escaped that drives a terminal."""
    return printable(_ATTRIBUTES.sub("", text).expandtabs())


def _shown(line: bytes) -> str:
    """A line of output as a terminal would have it in the end: what follows the last return."""
    return clean(line.removesuffix(b"\r").rpartition(b"\r")[2].decode("utf-8", "backslashreplace"))


def _step_line(step: _Step, width: int, now: float) -> Text:
    elapsed = max((step.ended if step.how else now) - step.begun, 0.0)
    amount = f"{size(step.copied)} " if step.copied and width >= _NARROW else ""
    mark = _MARKS.get(step.how, "")
    return _row(f" => {mark}{step.title}", f"{amount}{elapsed:.1f}s", width, _STYLES.get(step.how, ""))


def _together(stage: str, steps: Sequence[_Step], width: int) -> Text:
    """Several steps of a stage as one line."""
    elapsed = max(step.ended for step in steps) - min(step.begun for step in steps)
    cached = sum(step.how == CACHED for step in steps)
    name = f"[{stage}] " if stage else ""
    text = f" => {name}{len(steps)} steps" + (f", {cached} cached" if cached else "")
    return _row(text, f"{elapsed:.1f}s", width, _STYLES[DONE])


def _row(left: str, right: str, width: int, style: str) -> Text:
    """A line whose right part stands at the terminal's edge; where there is no room for both, the left one alone."""
    room = width - cell_len(right) - 1
    if room < _LEAST_LEFT:
        return _cut(left, width, style)
    return Text(f"{_fit(left, room)} {right}", style=style)


def _warning(text: str, width: int) -> Text:
    """A warning, in one line where ``width`` is not 0."""
    return _cut(f"WARNING: {text}", width or cell_len(text) + _RULE, "yellow")


def _cut(text: str, width: int, style: str) -> Text:
    """A line of at most ``width`` cells, the whole text where that is 0."""
    return Text(_fit(text, width).rstrip() if 0 < width < cell_len(text) else text, style=style)


def _fit(text: str, width: int) -> str:
    """``text`` in exactly ``width`` cells; an ellipsis marks a cut."""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    return set_cell_size(text, max(width - 1, 0)) + "…"[:width]
