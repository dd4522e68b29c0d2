"""``from minidock import Engine`` in a program with threads of its own, on the real kernel."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock import Engine
from minidock.errors import ConflictError


@pytest.fixture
def engine(minidock: Any) -> Iterator[Engine]:
    """An engine on a data root with busybox, in a process that has a second thread."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    yield Engine(str(minidock.root))
    stop.set()
    thread.join()


def state_of_this_process() -> tuple[Any, ...]:
    """What an engine must not change."""
    mask = os.umask(0)
    os.umask(mask)
    handlers = tuple(signal.getsignal(number) for number in signal.valid_signals())
    namespaces = tuple(os.readlink(f"/proc/self/ns/{kind}") for kind in ("mnt", "pid", "net", "pid_for_children"))
    return mask, handlers, namespaces, os.getcwd(), sorted(os.listdir("/proc/self/fd"))


def test_run_captures_output_and_status_and_changes_nothing_here(engine: Engine) -> None:
    before = state_of_this_process()
    done = engine.run("busybox", "sh", "-c", "echo out; echo err >&2; exit 7", network="none", auto_remove=True)
    assert (done.exit_code, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert state_of_this_process() == before
    assert engine.ps(all=True) == []


def test_a_detached_container(engine: Engine) -> None:
    container = engine.run("busybox", "sleep", "100", detach=True, network="none", labels={"a": "b"}).id
    assert [c.labels for c in engine.ps()] == [{"a": "b"}]
    done = engine.exec(container, "sh", "-c", "echo $X; exit 3", env={"X": "y"})
    assert (done.exit_code, done.stdout) == (3, b"y\n")
    engine.pause(container)
    with pytest.raises(ConflictError):
        engine.exec(container, "true")
    engine.unpause(container)
    engine.kill(container)
    assert engine.wait(container) == 137
    engine.rm(container)


def test_volumes(engine: Engine) -> None:
    volume = engine.volume_create("data", labels={"a": "b"})
    engine.run("busybox", "touch", "/d/file", volumes=["data:/d"], network="none", auto_remove=True)
    assert Path(volume.mountpoint, "file").exists()
    assert [v.name for v in engine.volumes(dangling=True)] == ["data"]
    container = engine.create("busybox", "true", mounts=["src=data,dst=/d"])
    assert engine.volumes(dangling=True) == []
    with pytest.raises(ConflictError):
        engine.volume_rm("data")
    assert engine.volume_prune(all=True).names == ()
    engine.rm(container)
    assert engine.volume_prune().names == ()
    assert engine.volume_prune(all=True).names == ("data",)


def test_build_and_images(engine: Engine, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM busybox\nARG A\nRUN echo $A > /f\nCMD cat /f\n")
    image = engine.build(str(context), tags=["made"], build_args={"A": "b"})
    assert engine.run("made", network="none", auto_remove=True).stdout == b"b\n"
    assert image in [found.id for found in engine.images()]
    assert engine.history("made")[0].created_by.startswith("CMD")
    assert engine.rmi("made")[0].kind == "Untagged"


def test_build_with_what_run_may_have(engine: Engine, tmp_path: Path) -> None:
    before = state_of_this_process()
    context = tmp_path / "context"
    context.mkdir()
    (tmp_path / "key").write_text("secret words")
    (context / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=type=secret,id=s --mount=type=cache,id=c,target=/c "
        "test \"$(cat /run/secrets/s)\" = 'secret words' && grep -q db /etc/hosts && cp /v/key /c/copy\n"
        "RUN --security=insecure true\n"
    )
    engine.build(
        str(context),
        network="none",
        secrets=[f"id=s,src={tmp_path}/key"],
        volumes=[f"{tmp_path}:/v:ro"],
        add_hosts=["db:10.0.0.1"],
        allow=["security.insecure"],
    )
    caches = [entry for entry in engine.builder_usage() if entry.type == "cachemount"]
    assert [entry.description for entry in caches] == ["cache mount 'c'"]
    assert engine.builder_prune(ids=[caches[0].id]).names == (caches[0].id,)
    with pytest.raises(TypeError):
        engine.build(str(context), nonsense=1)  # type: ignore[call-arg]
    assert state_of_this_process() == before
