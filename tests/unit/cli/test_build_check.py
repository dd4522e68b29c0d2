"""``build --check`` on the command line: what is asked for, what is printed, and the status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minidock.build.checks import Checked, Report
from minidock.errors import DockerfileError

EXCERPT = "Dockerfile:1\n--------------------\n   1 | >>> FROM\tx\x1b\n--------------------"
FOUND = Checked("StageNameCasing", "stage names should be lower-case", "the stage name 'A' should be", 1, EXCERPT)


def test_nothing_found(run: Any, engine: Any) -> None:
    engine.results["lint"] = Report((), None)
    done = run("build", "--check", ".")
    assert (done.status, done.out, done.err) == (0, "Check complete, no warnings found.\n", "")
    assert engine.calls == [("lint", (".",), {"text": None, "dockerfile": ""})]


def test_each_finding_is_printed_with_its_lines(run: Any, engine: Any) -> None:
    engine.results["lint"] = Report((FOUND, FOUND), None)
    done = run("build", "--check", ".")
    block = (
        "\nWARNING: StageNameCasing - stage names should be lower-case\nthe stage name 'A' should be\n"
        "Dockerfile:1\n--------------------\n   1 | >>> FROM\tx\\x1b\n--------------------\n"
    )
    assert (done.status, done.err) == (1, "")
    assert done.out == f"Check complete, 2 warnings have been found!\n{block}{block}"
    engine.results["lint"] = Report((FOUND,), None)
    assert run("build", "--check", ".").out.startswith("Check complete, 1 warning has been found!\n")


def test_what_a_build_would_fail_with_comes_after_the_findings(run: Any, engine: Any) -> None:
    engine.results["lint"] = Report((FOUND,), DockerfileError("no such word", excerpt="Dockerfile:7"))
    done = run("build", "--check", ".")
    assert done.status == 1
    assert "WARNING: StageNameCasing" in done.out
    assert done.err == "Dockerfile:7\nminidock: no such word\n"
    engine.results["lint"] = Report((), DockerfileError("no such word"))
    assert run("build", "--check", ".").status == 1


def test_what_decides_the_findings_is_handed_on(run: Any, engine: Any) -> None:
    engine.results["lint"] = Report((), None)
    run("build", "--check", "-f", "D", "--build-arg", "a=1", "--target", "t", "--build-context", "n=.", "/c")
    run("build", "--check", "--ignorefile", "i", "/c")
    assert engine.calls == [
        (
            "lint",
            ("/c",),
            {"text": None, "dockerfile": "D", "build_args": ("a=1",), "target": "t", "contexts": ("n=.",)},
        ),
        ("lint", ("/c",), {"text": None, "dockerfile": "", "ignorefile": "i"}),
    ]


def test_a_dockerfile_on_standard_input(run: Any, engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from minidock.cli.commands import build

    monkeypatch.setattr(build, "_standard_input", lambda: "FROM scratch\n")
    engine.results["lint"] = Report((), None)
    run("build", "--check", "-f", "-", str(tmp_path))
    assert engine.calls == [("lint", (str(tmp_path),), {"text": "FROM scratch\n", "dockerfile": ""})]
