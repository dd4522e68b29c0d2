"""What people type and mistype: switches with a value, ``help``, empty names, streams that are closed or full."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from minidock import errors
from minidock.cli.declare import closest

MAIN = [sys.executable, "-m", "minidock.cli.main"]


class TestSwitches:
    @pytest.mark.parametrize(
        ("flag", "value"), [("--rm", True), ("--rm=true", True), ("--rm=1", True), ("--rm=false", False)]
    )
    def test_a_switch_may_say_true_or_false(self, run: Any, engine: Any, flag: str, value: bool) -> None:
        engine.results["create"] = "i"
        run("create", flag, "img")
        assert engine.calls[0][2]["auto_remove"] is value

    def test_the_last_of_a_cluster_takes_the_value(self, run: Any, engine: Any) -> None:
        engine.results["create"] = "i"
        run("create", "-it=false", "img")
        assert (engine.calls[0][2]["interactive"], engine.calls[0][2]["tty"]) == (True, False)

    def test_the_last_one_counts(self, run: Any, engine: Any) -> None:
        engine.results["create"] = "i"
        run("create", "--init", "--init=false", "img")
        assert engine.calls[0][2]["init"] is False

    @pytest.mark.parametrize("line", [("run", "--rm=maybe", "x"), ("run", "-it=maybe", "x"), ("--debug=maybe", "ps")])
    def test_any_other_value_is_refused_by_name(self, run: Any, engine: Any, line: tuple[str, ...]) -> None:
        done = run(*line)
        assert (done.status, engine.calls) == (125, [])
        assert done.err.startswith("minidock: invalid value 'maybe' for -")
        assert "use true or false\nUsage: minidock" in done.err

    def test_a_short_flag_takes_its_value_after_an_equals_sign(self, run: Any, engine: Any) -> None:
        engine.results["logs"] = ()
        run("logs", "-n=3", "c")
        assert engine.calls[0][2]["tail"] == 3


class TestHelp:
    def test_help_is_what_the_flag_prints(self, run: Any) -> None:
        assert run("help").out == run("--help").out
        assert run("help", "run").out == run("run", "--help").out
        assert run("help", "volume", "create").out == run("volume", "create", "--help").out
        assert run("--debug", "help", "ps").status == 0

    def test_help_for_no_command_names_it(self, run: Any) -> None:
        done = run("help", "rnu")
        assert (done.status, done.out) == (1, "")
        assert done.err.startswith("minidock: there is no command 'rnu', did you mean ru")

    def test_usage_shows_what_repeats_and_what_may_be_left_out(self, run: Any) -> None:
        for command, usage in (
            ("run", "[OPTIONS] IMAGE [COMMAND...]"),
            ("exec", "[OPTIONS] CONTAINER COMMAND..."),
            ("rm", "[OPTIONS] CONTAINER..."),
            ("images", "[OPTIONS] [REPOSITORY]"),
            ("import", "[OPTIONS] TAR [NAME]"),
        ):
            assert run(command, "--help").out.startswith(f"Usage: minidock {command} {usage}\n")


def test_suggestions_are_near_or_none() -> None:
    flags = ["--name", "--rm", "--hostname", "--user"]
    assert closest("--nam", flags) == "--name"
    assert closest("--bogus", flags) == ""
    assert closest("stpo", ["stop", "start"]) == "stop"


class TestEmptyNames:
    @pytest.mark.parametrize(
        ("line", "status"),
        [
            (("logs", ""), 1),
            (("exec", "", "ls"), 1),
            (("run", ""), 125),
            (("history", ""), 1),
            (("tag", "a", ""), 1),
            (("build", ""), 1),
            (("import", ""), 1),
        ],
    )
    def test_one_is_refused_by_the_arguments_name(
        self, run: Any, engine: Any, line: tuple[str, ...], status: int
    ) -> None:
        done = run(*line)
        assert (done.status, engine.calls) == (status, [])
        assert done.err.startswith("minidock: the argument ")
        assert " is empty\ngive a" in done.err

    def test_an_empty_word_of_the_containers_command_is_its_own(self, run: Any, engine: Any) -> None:
        engine.results["create"] = "i"
        assert run("create", "img", "echo", "").status == 0
        assert engine.calls[0][1] == ("img", "echo", "")

    @pytest.mark.parametrize("verb", ["rm", "stop", "rmi", "inspect"])
    def test_of_several_the_others_are_done(self, run: Any, engine: Any, verb: str) -> None:
        engine.results = {"inspect": {"Id": "a"}, "rmi": ()}
        done = run(verb, "", "a")
        assert done.status == 1
        assert [call[1] for call in engine.calls] == [("a",)]
        assert "minidock: a name is empty\ngive a name or an ID\n" in done.err


class TestFailures:
    def test_a_name_that_is_none_is_1_except_where_a_container_starts(self, run: Any, engine: Any) -> None:
        engine.results["tag"] = errors.InvalidReferenceError("invalid image reference 'A'")
        engine.results["create"] = engine.results["tag"]
        assert run("tag", "A", "b").status == 1
        assert run("create", "A").status == 125

    @pytest.mark.parametrize(
        ("number", "hint"), [(30, "read-only"), (28, "free some space"), (13, "as root"), (5, "--debug")]
    )
    def test_the_kernels_refusal_says_what_to_do(self, run: Any, engine: Any, number: int, hint: str) -> None:
        engine.results["tag"] = OSError(number, os.strerror(number), "/x")
        lines = run("tag", "x", "y").err.splitlines()
        assert lines[0] == f"minidock: {os.strerror(number).lower()}: /x"
        assert hint in lines[1]


class TestStreams:
    """In processes of their own, whose standard streams are closed or full."""

    def test_closed_streams_are_as_good_as_nothing(self) -> None:
        for fd in (0, 1, 2):
            done = subprocess.run(["sh", "-c", f'exec "$@" {fd}>&-', "sh", *MAIN, "version"], check=False)
            assert done.returncode == 0
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" >&-', "sh", *MAIN, "nothing"], check=False, stderr=subprocess.PIPE, text=True
        )
        assert (done.returncode, "Traceback" in done.stderr) == (1, False)

    def test_a_full_output_is_a_sentence(self) -> None:
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = subprocess.run([*MAIN, "version"], check=False, stdout=full, stderr=subprocess.PIPE, text=True)
        assert (done.returncode, done.stderr) == (1, "minidock: no space left on device: standard output\n")

    def test_a_reader_that_has_enough_is_no_failure(self) -> None:
        read, write = os.pipe()
        os.close(read)
        try:
            done = subprocess.run([*MAIN, "version"], check=False, stdout=write, stderr=subprocess.PIPE, text=True)
        finally:
            os.close(write)
        assert (done.returncode, done.stderr) == (141, "")
