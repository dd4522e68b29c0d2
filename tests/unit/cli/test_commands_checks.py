"""The commands that look for damage: what they ask of the engine, what they print, how they end."""

from __future__ import annotations

from typing import Any

from minidock.engine.findings import CheckResult, Problem, Unneeded, Verdict
from minidock.errors import CorruptObjectError, NoSuchImageError

WELL = Verdict("sha256:" + "a" * 64, ("app:1", "app:2"), ())
UNNAMED = Verdict(
    "sha256:" + "b" * 64, (), (Problem("a layer is missing", "make it again"), Problem("so is\n\x1b that"))
)


class TestVerify:
    def test_a_line_for_each_image_or_problem(self, run: Any, engine: Any) -> None:
        engine.results["verify"] = [WELL, UNNAMED]
        done = run("image", "verify")
        assert (done.status, done.err) == (1, "")
        assert done.out.splitlines() == [
            "app:1, app:2 (aaaaaaaaaaaa): ok",
            "<none> (bbbbbbbbbbbb): a layer is missing; make it again",
            "<none> (bbbbbbbbbbbb): so is\\n\\x1b that",
        ]
        assert engine.calls == [("verify", (), {})]

    def test_quiet_prints_problems_only(self, run: Any, engine: Any) -> None:
        engine.results["verify"] = [WELL, UNNAMED]
        assert run("image", "verify", "-q").out.count("\n") == 2
        engine.results["verify"] = [WELL]
        done = run("image", "verify", "--quiet", "app:1")
        assert (done.status, done.out) == (0, "")

    def test_nothing_there_is_well(self, run: Any, engine: Any) -> None:
        engine.results["verify"] = []
        assert (run("image", "verify").status, run("image", "verify").out) == (0, "")

    def test_of_several_the_others_are_looked_at(self, run: Any, engine: Any) -> None:
        engine.results["verify"] = lambda name: NoSuchImageError("no such image: b") if name == "b" else [WELL]
        done = run("image", "verify", "a", "b", "", "c")
        assert (done.status, done.out) == (1, "app:1, app:2 (aaaaaaaaaaaa): ok\n" * 2)
        assert done.err.startswith("minidock: no such image: b\nminidock: a name is empty\n")

    def test_a_damaged_index_is_a_failure(self, run: Any, engine: Any) -> None:
        engine.results["verify"] = CorruptObjectError("the image index is missing")
        done = run("image", "verify")
        assert (done.status, done.err) == (1, "minidock: the image index is missing\n")
        assert run("image", "verify", "--all").status == 125


class TestCheck:
    def test_all_is_well(self, run: Any, engine: Any) -> None:
        engine.results["check"] = CheckResult((), 1, 2, 3, 4_000_000, Unneeded())
        done = run("system", "check")
        assert (done.status, done.out) == (0, "Checked 1 image, 2 containers, 3 blobs (4MB): all is well\n")
        assert engine.calls == [("check", (), {"repair": False})]

    def test_problems_and_what_is_not_needed(self, run: Any, engine: Any) -> None:
        problems = (Problem("a layer is missing", "make it again"), Problem("an index is torn", "it is removed", True))
        engine.results["check"] = CheckResult(problems, 0, 1, 1, 10, Unneeded(2, 1500, 1))
        done = run("system", "check", "--repair")
        assert done.status == 1
        assert done.out.splitlines() == [
            "a layer is missing; make it again",
            "an index is torn; it is removed",
            "Checked 0 images, 1 container, 1 blob (10B): 1 problem, 1 repaired",
            "Not needed: 2 blobs (1.5kB) and 1 layer, which go when an image is next removed",
        ]
        assert engine.calls == [("check", (), {"repair": True})]

    def test_what_was_repaired_is_no_failure(self, run: Any, engine: Any) -> None:
        problems = (Problem("an index is torn", "it is removed", True),) * 2
        engine.results["check"] = CheckResult(problems, 0, 0, 0, 0, Unneeded())
        done = run("system", "check", "--repair")
        assert (done.status, done.out.splitlines()[-1]) == (
            0, "Checked 0 images, 0 containers, 0 blobs (0B): all is well, 2 repaired",
        )  # fmt: skip
