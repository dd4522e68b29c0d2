"""minidock as a library: every verb from Python, in a program with threads, that is left as it was."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidock import Engine
from minidock.errors import CommandNotFoundError, MinidockError, NoSuchImageError, NoSuchVolumeError


@pytest.fixture
def engine(minidock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("MINIDOCK_CONFIG", "/dev/null")
    return Engine(str(minidock.root))


def own_state() -> dict[str, object]:
    """What the library promises never to change in its caller."""
    kinds = ("mnt", "net", "pid", "uts", "ipc", "cgroup")
    umask = os.umask(0)
    os.umask(umask)
    return {
        "directory": os.getcwd(),
        "umask": umask,
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "namespaces": {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in kinds},
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def test_run_gives_output_and_exit_code(engine: Engine) -> None:
    result = engine.run("busybox", "sh", "-c", "echo out; echo err >&2; exit 5", network="none", auto_remove=True)
    assert (result.exit_code, result.stdout, result.stderr) == (5, b"out\n", b"err\n")


def test_errors_are_typed(engine: Engine) -> None:
    with pytest.raises(NoSuchImageError):
        engine.run("no-such-image")
    with pytest.raises(CommandNotFoundError):
        engine.run("busybox", "no-such-command", network="none", auto_remove=True)
    with pytest.raises(NoSuchVolumeError):
        engine.run("busybox", "true", mounts=["type=volume,src=absent,dst=/d"])
    with pytest.raises(MinidockError):
        engine.inspect("no-such-container")


def test_the_life_of_a_container(engine: Engine) -> None:
    identity = engine.create("busybox", "sleep", "1000", name="one", network="none")
    assert engine.ps() == []
    engine.start(identity)
    assert [container.name for container in engine.ps()] == ["one"]
    assert engine.exec("one", "hostname").stdout.decode().strip() == identity[:12]
    engine.pause("one")
    engine.unpause("one")
    engine.kill("one")
    assert engine.wait("one") == 137
    assert engine.inspect("one")["State"]["Status"] == "exited"
    engine.rm("one")
    assert engine.ps(all=True) == []


def test_build_volumes_info(engine: Engine, context) -> None:
    image = engine.build(str(context("FROM busybox\nRUN echo built > /file\n")), tags=["built"])
    assert engine.run("built", "cat", "/file", network="none", auto_remove=True).stdout == b"built\n"
    assert image in {found.id for found in engine.images()}
    engine.volume_create("data")
    assert [volume.name for volume in engine.volumes()] == ["data"]
    assert engine.info()["Images"] == 2


def test_threads_run_containers_at_once_and_the_program_stays_as_it_was(engine: Engine) -> None:
    before = own_state()
    results: dict[int, bytes] = {}

    def work(number: int) -> None:
        results[number] = engine.run("busybox", "echo", str(number), network="none", auto_remove=True).stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {number: f"{number}\n".encode() for number in range(4)}
    assert own_state() == before
    assert engine.ps(all=True) == []


def test_a_detached_container_outlives_the_call(engine: Engine) -> None:
    result = engine.run("busybox", "sleep", "1000", detach=True, network="none", name="one")
    assert engine.inspect("one")["Id"] == result.id
    pid = engine.inspect("one")["State"]["Pid"]
    assert Path(f"/proc/{pid}").exists()
    engine.rm("one", force=True)
    assert not Path(f"/proc/{pid}").exists()
