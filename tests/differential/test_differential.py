"""Each case built by minidock and by docker's BuildKit: equal outcome, tree and configuration.

What docker gave is recorded; ``--with-docker`` builds with docker once more and compares it with what was recorded, and
``--record-docker`` records it anew. ``differences.toml`` lists every difference with its reason.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.differential.builders import Builder
from tests.differential.cases import Case, read_cases
from tests.differential.facts import BUILT, Result
from tests.differential.recording import (
    Difference,
    Differences,
    Everywhere,
    compare,
    read_differences,
    read_recording,
    record,
)


def test_minidock_gives_what_docker_gave(recorded_case: Case, mine: Builder) -> None:
    docker = read_recording()[recorded_case.name]
    result = mine.result(recorded_case)
    found = compare(recorded_case.name, result.facts, docker.facts, read_differences())
    assert not found.unlisted, "\n".join(("without a reason:", *found.unlisted, result.message, docker.message))
    assert not found.gone, "\n".join(("listed, and no difference any more:", *found.gone))
    check_message(recorded_case, result)


def test_minidock_gives_what_buildkit_s_manual_or_test_says(cited_case: Case, mine: Builder) -> None:
    result = mine.result(cited_case)
    expected = {"outcome": BUILT, **cited_case.expect}
    found = {
        fact: value for fact, value in result.facts.items() if fact in expected or fact.startswith(("tree ", "outcome"))
    }
    assert found == expected, (cited_case.cites, result.message)
    check_message(cited_case, result)


def check_message(case: Case, result: Result) -> None:
    """Whether a failure is of the kind that the case is about; of the outcome itself others have to speak."""
    if case.says and result.message:
        assert re.search(case.says, result.message, re.IGNORECASE), result.message


def test_docker_gives_what_was_recorded(live_case: Case, docker: Builder, request: pytest.FixtureRequest) -> None:
    result = docker.result(live_case)
    if request.config.getoption("--record-docker"):
        record(live_case.name, result)
    assert result.facts == read_recording()[live_case.name].facts, result.message
    check_message(live_case, result)


def test_every_case_is_recorded_or_cited() -> None:
    cases = read_cases()
    assert {case.name for case in cases if not case.cites} == read_recording().keys()
    assert all(case.expect for case in cases if case.cites)
    assert not any(case.expect for case in cases if not case.cites)
    assert len(cases) >= 150


def test_the_list_of_differences_names_cases_that_are_there() -> None:
    names = {case.name for case in read_cases() if not case.cites}
    listed = [key.partition(": ")[0] for difference in read_differences().listed for key in difference.minidock]
    assert set(listed) <= names
    assert all(difference.reason and difference.minidock for difference in read_differences().listed)


@pytest.mark.parametrize("rule", read_differences().everywhere, ids=lambda rule: rule.fact.replace(" ", "-"))
def test_a_difference_everywhere_is_one_somewhere(rule: Everywhere, mine: Builder) -> None:
    (case,) = [case for case in read_cases() if case.name == rule.seen_in]
    facts, docker = mine.result(case).facts, read_recording()[case.name].facts
    without = Differences([], read_differences().listed)
    found = compare(case.name, facts, docker, without).unlisted
    kinds = [re.sub(r"^history [0-9]+", "history", text) for text in found]
    assert f"{rule.fact}: minidock {rule.minidock!r}, docker {rule.docker!r}" in kinds


def test_a_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    result = Result({"outcome": "failed at line 2", "exit status": "3"}, "it failed")
    record("chapter/one", result, tmp_path)
    record("chapter/two", Result({"outcome": BUILT}), tmp_path)
    assert read_recording(tmp_path) == {"chapter/one": result, "chapter/two": Result({"outcome": BUILT})}


@pytest.mark.parametrize(
    ("mine", "listed", "unlisted", "gone"),
    [
        ({"tree f": "one"}, {}, 0, 0),
        ({"tree f": "two"}, {}, 1, 0),
        ({}, {}, 1, 0),
        ({"tree f": "two"}, {"a/b: tree f": "two"}, 0, 0),
        ({"tree f": "three"}, {"a/b: tree f": "two"}, 1, 1),
        ({"tree f": "one"}, {"a/b: tree f": "two"}, 0, 1),
        ({"tree f": "two"}, {"a/c: tree f": "two"}, 1, 0),
        ({"tree f": "one", "history 3 comment": "x"}, {}, 1, 0),
        ({"tree f": "one", "history 3 comment": "y"}, {}, 0, 0),
        ({"outcome": "failed at line 3"}, {}, 1, 0),
    ],
)
def test_what_is_compared(mine: dict[str, str], listed: dict[str, str], unlisted: int, gone: int) -> None:
    differences = Differences(
        [Everywhere("history comment", "y", "", "it is so", "a/b")], [Difference("it is so", listed)]
    )
    docker = {"outcome": BUILT, "tree f": "one"}
    found = compare("a/b", {"outcome": BUILT, **mine}, docker, differences)
    assert (len(found.unlisted), len(found.gone)) == (unlisted, gone)
