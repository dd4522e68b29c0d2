"""Golden folders of the checks: ``checks/NAME/CASE`` is a Dockerfile, what a build knows besides, and what NAME finds.

``facts.json`` holds ``args`` (--build-arg), ``ignore`` (.dockerignore) and ``images`` by the name that FROM has, with
``env``, ``shell``, ``platform``, ``onbuild``; an image that it does not name is not known. ``expected.txt`` has a line
for each finding; where the check finds nothing there is none.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from minidock.dockerfile.checks.find import CHECKS, description_of, find
from minidock.dockerfile.checks.settings import Settings
from minidock.dockerfile.checks.subject import StageFacts, Subject, read_stages
from minidock.dockerfile.expand import expand
from minidock.dockerfile.ignore import IgnoreRules
from minidock.dockerfile.instructions import Stage
from minidock.dockerfile.parser import Dockerfile, parse, parse_trigger

GOLDEN = os.path.join(os.path.dirname(__file__), "golden", "checks")
PATH = "/usr/bin:/bin"
AUTOMATIC = {
    f"{side}{name}": value
    for side in ("TARGET", "BUILD")
    for name, value in (("PLATFORM", "linux/amd64"), ("OS", "linux"), ("ARCH", "amd64"), ("VARIANT", ""))
}
CASES = [(check, case) for check in sorted(os.listdir(GOLDEN)) for case in sorted(os.listdir(f"{GOLDEN}/{check}"))]


def text_of(check: str, case: str, name: str) -> str:
    try:
        with open(os.path.join(GOLDEN, check, case, name), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def scope_of(dockerfile: Dockerfile, given: dict[str, str]) -> dict[str, str]:
    scope = dict(AUTOMATIC)
    for instruction in dockerfile.global_args:
        for name, default in instruction.args:
            if name in given or default is not None:
                scope[name] = given.get(name) or expand(default or "", scope)
    return scope


def facts_of(dockerfile: Dockerfile, stage: Stage, scope: dict[str, str], images: dict[str, Any]) -> StageFacts:
    names = {other.name: other.position for other in dockerfile.stages[: stage.position] if other.name}
    base = expand(stage.base, scope)
    platform = expand(stage.platform, scope) or "linux/amd64"
    if base in names:
        return StageFacts(stage, names[base])
    if base == "scratch":
        return StageFacts(stage, env={"PATH": PATH})
    if base not in images:
        return StageFacts(stage, platform=platform)
    image = images[base]
    triggers = [parse_trigger(text) for text in image.get("onbuild", [])]
    return StageFacts(
        stage,
        env={"PATH": PATH, **image.get("env", {})},
        has_shell=image.get("shell", False),
        triggers=tuple(trigger._replace(location=stage.location) for trigger in triggers),
        image_platform=image.get("platform", ""),
        platform=platform,
    )


def found_in(check: str, case: str) -> list[str]:
    dockerfile = parse(text_of(check, case, "Dockerfile"))
    known = json.loads(text_of(check, case, "facts.json") or "{}")
    given = known.get("args", {})
    scope = scope_of(dockerfile, given)
    facts = [facts_of(dockerfile, stage, scope, known.get("images", {})) for stage in dockerfile.stages]
    stages = read_stages(dockerfile, facts, scope=scope, given=given)
    rules = IgnoreRules.parse(known.get("ignore", ""))
    ignored = rules.prunes if rules.patterns else None
    subject = Subject(dockerfile, scope, scope_of(dockerfile, {}), stages, ignored)
    found = find(subject, Settings(experimental=frozenset(["all"])))
    return [f"line {f.line}: {f.message}" for f in found if f.check == check]


@pytest.mark.parametrize(("check", "case"), CASES)
def test_check(check: str, case: str) -> None:
    assert found_in(check, case) == text_of(check, case, "expected.txt").splitlines()


def test_every_check_has_a_case_that_it_finds_and_one_that_it_does_not() -> None:
    names = [check.name for check in CHECKS]
    assert len(names) == len(set(names)) == 22
    found = {check: [bool(text_of(check, case, "expected.txt")) for _, case in CASES if _ == check] for check in names}
    assert {check for check, _ in CASES} == set(names)
    assert [check for check, each in found.items() if set(each) != {True, False}] == []


def test_the_manual_names_every_check() -> None:
    with open(os.path.join(os.path.dirname(__file__), "../../../docs/checks.md"), encoding="utf-8") as file:
        rows = [line.split("`")[1] for line in file if line.startswith("| `")]
    assert rows == sorted(check.name for check in CHECKS)


def test_every_check_says_what_it_is_about() -> None:
    for check in CHECKS:
        assert description_of(check.name) == check.description
        assert len(check.description) > 20
        assert not check.description.endswith(".")
