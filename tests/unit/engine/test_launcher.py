"""Verbs in a process of their own: a real one, with requests, replies, errors and streams."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from minidock import Engine, errors
from minidock.engine import detached, launcher
from minidock.engine.results import ExecResult, RunResult
from minidock.model.mounts import Mount


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.delenv("MINIDOCK_CONFIG", raising=False)
    return Engine(str(tmp_path / "root"))


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launched process finds an engine whose verbs tell what they were given and write to their descriptors."""
    package = tmp_path / "stub" / "minidock"
    real = Path(launcher.__file__).parent.parent
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "errors.py").symlink_to(real / "errors.py")
    (package / "model").symlink_to(real / "model")
    (package / "engine").mkdir()
    (package / "engine" / "__init__.py").write_text("")
    (package / "engine" / "launcher.py").symlink_to(real / "engine" / "launcher.py")
    (package / "engine" / "results.py").symlink_to(real / "engine" / "results.py")
    (package / "engine" / "engine.py").write_text(
        "import os, threading\n"
        "from minidock import errors\n"
        "from minidock.engine.results import RunResult\n"
        "class Engine:\n"
        "    def __init__(self, root, **made): self.made = [root, made]\n"
        "    def tell(self, *arguments, **options): return [self.made, list(arguments), repr(options)]\n"
        "    def run(self, *arguments, stdin=None, stdout=None, stderr=None, detach=False, **options):\n"
        "        if detach: return RunResult('id')\n"
        "        os.write(stdout, b'out:' + os.read(stdin, 100))\n"
        "        os.write(stderr, b'err')\n"
        "        return RunResult('id', 7)\n"
        "    def exec(self, *arguments, stdout=None, **options):\n"
        "        os.write(stdout, repr(arguments).encode())\n"
        "        return RunResult(3)\n"
        "    def start(self, name, attach=False, **options): return 9 if attach else 0\n"
        "    def build(self, context, progress=None, **options):\n"
        "        if progress is not None: os.write(progress, b'#1 DONE')\n"
        "        return 'sha256:x'\n"
        "    def fail(self): raise errors.BuildError('no', filename='D', line=3, excerpt='x', hint='h')\n"
        "    def crash(self): raise RuntimeError('boom')\n"
        "    def die(self): os._exit(5)\n"
    )
    monkeypatch.syspath_prepend(str(package.parent))


@pytest.mark.usefixtures("stub")
class TestCall:
    def test_arguments_and_results_go_both_ways(self, engine: Engine) -> None:
        made, arguments, options = launcher.call(
            engine,
            "tell",
            ["ä", "b"],
            {"x": [1], "mounts": ["m", Mount("tmpfs", "", "/t", labels=(("a", "b"),))]},
            stdio=(None, None, 2),
        )
        assert made == [engine.root.path, {"driver": "", "layers": "auto", "debug": False, "may_fork": True}]
        assert arguments == ["ä", "b"]
        assert "labels=(('a', 'b'),)" in options
        assert "'m', Mount(type='tmpfs'" in options

    def test_errors_come_back_as_what_they_were(self, engine: Engine) -> None:
        with pytest.raises(errors.BuildError) as caught:
            launcher.call(engine, "fail", [], {}, stdio=(None, None, 2))
        error = caught.value
        assert (error.message, error.hint, error.filename, error.line, error.excerpt) == ("no", "h", "D", 3, "x")

    def test_a_defect_is_a_sentence(self, engine: Engine) -> None:
        with pytest.raises(errors.MinidockError, match="unexpected RuntimeError: boom"):
            launcher.call(engine, "crash", [], {}, stdio=(None, None, 2))

    def test_a_death_is_a_sentence(self, engine: Engine) -> None:
        with pytest.raises(errors.MinidockError, match="'die' ended with status 5"):
            launcher.call(engine, "die", [], {}, stdio=(None, None, 2))

    def test_no_descriptor_is_left_open(self, engine: Engine) -> None:
        before = sorted(os.listdir("/proc/self/fd"))
        launcher.call(engine, "tell", [], {}, stdio=(None, None, None))
        assert sorted(os.listdir("/proc/self/fd")) == before

    def test_output_is_captured(self, engine: Engine) -> None:
        read_end, write_end = os.pipe()
        os.write(write_end, b"in")
        os.close(write_end)
        try:
            done = engine.run("img", env={"A": "b"}, stdin=read_end)
        finally:
            os.close(read_end)
        assert done == RunResult("id", 7, b"out:in", b"err")

    def test_output_goes_where_the_caller_says(self, engine: Engine, tmp_path: Path) -> None:
        with open(tmp_path / "out", "w+b") as file:
            done = engine.run("img", stdout=file.fileno(), stderr=file.fileno())
            assert (done.stdout, done.stderr) == (b"", b"")
        assert (tmp_path / "out").read_bytes() in (b"out:err", b"err")

    def test_the_other_verbs(self, engine: Engine, tmp_path: Path) -> None:
        assert engine.run("img", detach=True) == RunResult("id")
        assert engine.exec("c", "ls", "-l") == ExecResult(3, b"('c', 'ls', '-l')", b"")
        assert engine.start("c") == 0
        assert engine.start("c", attach=True) == 9
        with open(tmp_path / "progress", "w+b") as file:
            assert engine.build(".", progress=file.fileno(), build_args={"A": "b"}) == "sha256:x"
        assert (tmp_path / "progress").read_bytes() == b"#1 DONE"
        assert engine.build(".") == "sha256:x"

    def test_it_works_beside_other_threads(self, engine: Engine) -> None:
        results: list[Any] = []
        threads = [threading.Thread(target=lambda: results.append(engine.run("img", detach=True))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [RunResult("id")] * 3


def test_the_real_engine_answers(engine: Engine) -> None:
    assert launcher.call(engine, "version", [], {}, stdio=(None, None, 2)) == engine.version()


def test_a_caller_that_reaps_its_children_itself_is_no_failure(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.waitpid

    def reaped(pid: int, options: int) -> tuple[int, int]:
        real(pid, options)
        raise ChildProcessError

    monkeypatch.setattr(os, "waitpid", reaped)
    assert launcher.call(engine, "version", [], {}, stdio=(None, None, 2)) == engine.version()


def test_options_that_json_cannot_hold_are_made_plain() -> None:
    class Labels(dict[str, str]):
        pass

    assert detached._plain({"labels": Labels(a="b"), "env": ["A=b"], "tty": True}) == {
        "labels": {"a": "b"},
        "env": ["A=b"],
        "tty": True,
    }
