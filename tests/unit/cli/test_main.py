"""Reading command lines: flags, statuses, and the words for what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from minidock import errors
from minidock.cli import click_reader, main
from minidock.cli.declare import Command


def test_a_bad_flag_of_any_command_is_125_with_usage_and_a_hint(run: Any) -> None:
    for name in main.command_modules():
        done = run(name, "--no-such-flag", "x", "y")
        assert done.status == 125, name
        assert done.err.startswith("minidock: unknown flag: --no-such-flag"), done.err
        assert "Usage: minidock" in done.err
        assert "--help' for what it takes" in done.err


@pytest.mark.parametrize("flag", ["-p", "--publish", "--restart", "--memory", "-m", "--gpus"])
def test_flags_of_docker_that_are_not_there_yet_are_refused_by_name(run: Any, engine: Any, flag: str) -> None:
    done = run("run", flag, "80:80", "image")
    assert (done.status, engine.calls) == (125, [])
    assert done.err.startswith(f"minidock: {flag} is not there yet\n")


def test_a_missing_argument_is_named(run: Any) -> None:
    done = run("run")
    assert done.status == 125
    assert done.err.startswith("minidock: missing argument: IMAGE\n")


def test_a_missing_value_is_named(run: Any) -> None:
    done = run("run", "--name")
    assert done.status == 125
    assert done.err.startswith(
        "minidock: the flag --name needs a value\nUsage: minidock run [OPTIONS] IMAGE [COMMAND...]"
    )


def test_an_unknown_command_is_named(run: Any) -> None:
    done = run("runn", "x")
    assert done.status == 1
    assert done.err.startswith("minidock: there is no command 'runn', did you mean run?\nUsage: minidock [OPTIONS]")
    assert "did you mean" not in run("zzzz").err
    assert run("volume", "crate", "x").err.startswith("minidock: there is no command 'crate', did you mean create?\n")


def test_superfluous_arguments_are_refused(run: Any, engine: Any) -> None:
    assert run("tag", "a", "b", "c").status == 1
    assert run("run").status == 125
    assert engine.calls == []


def test_help_is_status_0_and_names_every_command(run: Any) -> None:
    for line in ((), ("--help",)):
        done = run(*line)
        assert done.status == 0
        assert all(name in done.out for name in main.command_modules())
    assert "--cap-drop" in run("run", "--help").out
    assert "bootstrap" in run("image").out


def test_version(run: Any) -> None:
    assert run("--version").out.startswith("minidock version ")
    assert run("-v").out == run("--version").out


def test_global_flags_reach_the_engine(run: Any, engine: Any) -> None:
    run("--root", "/r", "--storage-driver=vfs", "--debug", "pause", "x")
    assert engine.made_with == {
        "root": "/r",
        "storage_driver": "vfs",
        "layers": None,
        "debug": True,
        "version": False,
    }


def test_click_hands_global_and_own_values_over() -> None:
    seen = []

    def keep(command: Command, global_values: dict[str, Any], values: dict[str, Any]) -> int:
        seen.append((command.name, global_values["root"], values))
        return 7

    status = click_reader.run(
        ["--root", "/r", "container", "pause", "x", "y"],
        load=main.load,
        members=main.command_modules(),
        run_command=keep,
    )
    assert (status, seen) == (7, [("pause", "/r", {"container": ("x", "y")})])


def test_click_completes_commands_and_flags(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, index, expected in (("minidock unp", "1", "unpause"), ("minidock run --cap-d", "2", "--cap-drop")):
        monkeypatch.setenv("_MINIDOCK_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", index)
        with pytest.raises(SystemExit):
            main.run_line([])
        assert expected in capsys.readouterr().out


def test_a_value_that_makes_no_sense_names_the_flag(run: Any) -> None:
    done = run("run", "--shm-size", "big", "image")
    assert (done.status, done.err.split("\n")[0]) == (
        125,
        "minidock: invalid value 'big' for --shm-size: use a number with or without a unit, such as 64m or 1g",
    )


def test_management_forms_are_the_same_commands(run: Any, engine: Any) -> None:
    run("container", "stop", "-t", "3", "x")
    run("stop", "-t", "3", "x")
    assert engine.calls[0] == engine.calls[1] == ("stop", ("x",), {"signal": "", "timeout": 3})
    assert run("container", "nothing").status == 1


def test_every_command_of_every_group_loads() -> None:
    names = [*main.command_modules().values()]
    for module in names:
        declared = main.load(module)
        for member in getattr(declared, "members", {}).values():
            assert main.load(member).summary.endswith(".")
        assert declared.name == module.rstrip("_")


class TestFailures:
    def test_a_sentence_and_a_hint(self, run: Any, engine: Any) -> None:
        engine.results["tag"] = errors.NoSuchImageError("no such image: x", hint="see `minidock images`")
        done = run("tag", "x", "y")
        assert (done.status, done.err) == (1, "minidock: no such image: x\nsee `minidock images`\n")

    def test_what_nobody_foresaw_is_one_line_and_how_to_get_more(self, run: Any, engine: Any) -> None:
        engine.results["tag"] = RuntimeError("boom\nsecond line")
        done = run("tag", "x", "y")
        assert done.status == 1
        assert done.err.split("\n")[0] == "minidock: unexpected RuntimeError: boom"
        assert "--debug" in done.err
        assert "Traceback" not in done.err

    def test_debug_prints_the_traceback(self, run: Any, engine: Any) -> None:
        engine.results["tag"] = RuntimeError("boom")
        assert "Traceback" in run("--debug", "tag", "x", "y").err
        engine.results["tag"] = errors.NoSuchImageError("no such image")
        assert run("--debug", "tag", "x", "y").err == "minidock: no such image\n"

    def test_a_containers_own_debug_flag_is_not_ours(self, run: Any) -> None:
        assert "Traceback" not in run("run", "--bad", "image", "--debug").err

    def test_the_kernels_refusal_is_a_sentence(self, run: Any, engine: Any) -> None:
        engine.results["tag"] = PermissionError(13, "Permission denied", "/x")
        assert run("tag", "x", "y").err.startswith("minidock: permission denied: /x\n")

    def test_an_excerpt_comes_first(self, run: Any, engine: Any) -> None:
        engine.results["build"] = errors.BuildError("it failed", excerpt="Dockerfile:3\n   3 | >>> RUN false\n")
        done = run("build", ".")
        assert done.status == 1
        assert done.err == "Dockerfile:3\n   3 | >>> RUN false\nminidock: it failed\n"

    def test_control_characters_are_escaped(self, run: Any, engine: Any) -> None:
        engine.results["tag"] = errors.MinidockError("bad name \x1b[31mred\x07")
        assert run("tag", "x", "y").err == "minidock: bad name \\x1b[31mred\\x07\n"

    def test_ctrl_c_is_130_without_a_word(self, run: Any, engine: Any) -> None:
        engine.results["wait"] = KeyboardInterrupt()
        done = run("wait", "x")
        assert (done.status, done.err) == (130, "")

    def test_a_closed_pipe_is_141(self, run: Any, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        silenced = []
        monkeypatch.setattr(main, "_silence_output", lambda: silenced.append(True))
        engine.results["tag"] = BrokenPipeError()
        done = run("tag", "x", "y")
        assert (done.status, done.err, silenced) == (141, "", [True])

    def test_several_names_are_done_past_a_failure(self, run: Any, engine: Any) -> None:
        engine.results["rm"] = lambda name, **_: (
            errors.NoSuchContainerError(f"no such container: {name}") if name == "b" else None
        )
        done = run("rm", "a", "b", "c")
        assert (done.status, done.out, done.err) == (1, "a\nc\n", "minidock: no such container: b\n")
