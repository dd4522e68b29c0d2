"""A forecast as the command line prints it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from minidock.cli.plan import print_plan
from minidock.model.forecast import CACHED, MAY_RUN, RUNS, StepForecast

STEPS = (
    StepForecast("[1/5] FROM busybox", "FROM", CACHED),
    StepForecast("[2/5] COPY\ta  \x1b[2J /", "COPY", CACHED, 1, 5, 2048),
    StepForecast("[3/5] RUN true", "RUN", CACHED, layer=0),
    StepForecast("[4/5] ADD b /" + "x" * 60, "ADD", RUNS, 3, 2_000_000, why=("file b is new", "file \x1b is gone")),
    StepForecast("[5/5] RUN make", "RUN", MAY_RUN, why=("below it, [4/5] ADD b / is made anew",)),
)


class Printer:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def print(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def session() -> Any:
    return Printer()


def test_the_table(session: Any) -> None:
    assert print_plan(session, STEPS, form="auto", phrases=False) == 10
    assert session.lines == [
        f"{'STEP':<60}   FORECAST   COPIES         LAYER     WHY",
        f"{'[1/5] FROM busybox':<60}   cached",
        f"{'[2/5] COPY a ' + chr(92) + 'x1b[2J /':<60}   cached     1 file, 5B     2.048kB",
        f"{'[3/5] RUN true':<60}   cached                    none",
        f"{'[4/5] ADD b /' + 'x' * 46}…   runs       3 files, 2MB             file b is new; file \\x1b is gone",
        f"{'[5/5] RUN make':<60}   may run                             below it, [4/5] ADD b / is made anew",
        "5 steps: 3 cached, 1 to run, 1 that may run; 3 files with 2MB to copy",
    ]


def test_the_text(session: Any) -> None:
    assert print_plan(session, STEPS, form="plain", phrases=True) == 10
    text = "\n".join(session.lines)
    assert "[3/5] RUN true: cached\n" in text
    assert "It made no difference, so there is no layer of it." in text
    assert "    It is done: file b is new; file \\x1b is gone." in text
    assert "[5/5] RUN make: may run" in text
    assert max(map(len, session.lines)) <= 100
    assert "\x1b" not in text


@pytest.mark.parametrize("phrases", [True, False])
def test_nothing_and_json(session: Any, phrases: bool) -> None:
    assert print_plan(session, STEPS[:3], form="quiet", phrases=phrases) == 0
    assert session.lines == []
    assert print_plan(session, STEPS, form="rawjson", phrases=phrases) == 10
    assert [json.loads(line) for line in session.lines] == [{**step._asdict(), "why": list(step.why)} for step in STEPS]


def test_a_build_without_steps(session: Any) -> None:
    assert print_plan(session, (), form="plain", phrases=False) == 0
    assert session.lines[-1] == "0 steps: nothing to do"
