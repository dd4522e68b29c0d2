"""The pinned namespace under many users at once, and after death at any point."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from minidock.kernel import mount, process
from minidock.kernel.pinned import Pinned
from tests.integration.pinned_layers import inside

pytestmark = pytest.mark.usefixtures("mount_table", "file_backed_mounts")

NAMES = [f"{number:064x}" for number in range(3)]
MANY = 64


@pytest.fixture
def images(tmp_path: Path, make_image: Callable[[Path, bytes], Any]) -> dict[str, Any]:
    return {name: make_image(tmp_path / "images" / name, name.encode()) for name in NAMES}


@pytest.fixture
def pin(tmp_path: Path) -> Iterator[Pinned]:
    pinned = Pinned(str(tmp_path / "layers"))
    yield pinned
    pinned.unpin()
    assert not os.path.exists(pinned.directory)


def attach(pin: Pinned, images: dict[str, Any], name: str) -> None:
    fd = images[name].mount()
    try:
        with pin.lock():
            pin.attach(name, fd)
    finally:
        os.close(fd)


def devices(pin: Pinned, names: list[str]) -> list[int]:
    """The st_dev of a clone of each, whose content is looked at."""
    fds = pin.clones(names)
    try:
        for name, fd in zip(names, fds, strict=True):
            assert Path(f"/proc/self/fd/{fd}/content").read_text() == name
        return [os.fstat(fd).st_dev for fd in fds]
    finally:
        for fd in fds:
            os.close(fd)


def use(pin: Pinned, images: dict[str, Any], names: list[str]) -> list[int]:
    """What an engine does: clone, and where something is missing, attach it and clone then."""
    while True:
        try:
            return devices(pin, names)
        except FileNotFoundError as error:
            attach(pin, images, str(error.filename))


def table(pin: Pinned) -> list[str]:
    """The file systems mounted on the pin's directory or below, or of EROFS."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    found = [(line.split()[4], line.split(" - ")[1].split()[0]) for line in lines]
    return [kind for where, kind in found if where.startswith(pin.directory) or kind == "erofs"]


@pytest.mark.parametrize("threads", [False, True])
def test_many_first_users_share_one_file_system(pin: Pinned, images: dict[str, Any], threads: bool) -> None:
    if threads:
        gate = threading.Barrier(MANY)

        def worker(number: int) -> list[int]:
            gate.wait()
            return use(pin, images, NAMES[number % 2 :])

        with ThreadPoolExecutor(MANY) as pool:
            answers = list(pool.map(worker, range(MANY)))
    else:
        answers = from_processes(lambda number: use(pin, images, NAMES[number % 2 :]))
    assert len(answers) == MANY
    found = dict(zip(NAMES, devices(pin, NAMES), strict=True))
    assert len(set(found.values())) == len(NAMES)
    for number, answer in enumerate(answers):
        assert answer == [found[name] for name in NAMES[number % 2 :]]
    assert table(pin) == ["tmpfs", "nsfs"]


def from_processes(worker: Callable[[int], list[int]]) -> list[list[int]]:
    """What the worker gives in each of MANY processes, which start together."""
    start, go = os.pipe()
    pipes = []
    children = []
    for number in range(MANY):
        reader, writer = os.pipe()

        def child(number: int = number, writer: int = writer) -> None:
            os.close(go)
            os.read(start, 1)
            os.write(writer, " ".join(map(str, worker(number))).encode())

        children.append(process.spawn(child))
        os.close(writer)
        pipes.append(reader)
    os.close(go)
    os.close(start)
    answers = []
    for reader, spawned in zip(pipes, children, strict=True):
        with os.fdopen(reader, "rb") as stream:
            answers.append([int(word) for word in stream.read().split()])
        with spawned:
            assert spawned.wait() == 0
    return answers


@pytest.mark.parametrize("seed", range(40))
def test_killed_at_any_point(pin: Pinned, images: dict[str, Any], seed: int) -> None:
    def child() -> None:
        while True:
            use(pin, images, NAMES[:1])
            use(pin, images, NAMES)
            with pin.lock():
                pin.detach(NAMES[0])
            use(pin, images, NAMES)
            with pin.lock():
                pin.unpin()

    with process.spawn(child) as spawned:
        time.sleep(random.Random(seed).uniform(0.001, 0.03))
        process.pidfd_send_signal(spawned.pidfd, signal.SIGKILL)
        assert spawned.wait() == -signal.SIGKILL
    left = set(pin.names())
    assert set(pin.idle(0)) >= left
    if seed % 2:
        for name in NAMES:
            with pin.lock():
                pin.detach(name)
        assert pin.idle(0) == []
    else:
        for name in left:
            devices(pin, [name])
    use(pin, images, NAMES)
    assert pin.names() == set(NAMES)
    assert table(pin) == ["tmpfs", "nsfs"]
    assert inside(pin) == sorted(["/", *(f"/{name}" for name in NAMES)])


def unfinished_tmpfs(pin: Pinned) -> None:
    os.mkdir(pin.directory)
    mount.mount("layers", pin.directory, "tmpfs", 0)


def unfinished_namespace(pin: Pinned) -> None:
    unfinished_tmpfs(pin)
    mount.mount("", pin.directory, "", mount.MS_PRIVATE)
    Path(pin.directory, "ns").touch()


def two_unfinished(pin: Pinned) -> None:
    unfinished_tmpfs(pin)
    mount.mount("layers", pin.directory, "tmpfs", 0)


def folder_only(pin: Pinned) -> None:
    os.mkdir(f"{pin.directory}/{NAMES[0]}")


def mark_only(pin: Pinned) -> None:
    Path(pin.directory, f"{NAMES[0]}.used").touch()


def folder_and_mark(pin: Pinned) -> None:
    folder_only(pin)
    mark_only(pin)


@pytest.mark.parametrize("tear", [unfinished_tmpfs, unfinished_namespace, two_unfinished])
def test_a_pin_that_was_not_finished(pin: Pinned, images: dict[str, Any], tear: Callable[[Pinned], None]) -> None:
    tear(pin)
    assert pin.names() == set()
    assert pin.idle(0) == []
    use(pin, images, NAMES)
    assert table(pin) == ["tmpfs", "nsfs"]
    pin.unpin()
    assert not os.path.exists(pin.directory)
    tear(pin)


@pytest.mark.parametrize("tear", [folder_only, mark_only, folder_and_mark])
def test_a_mount_that_was_not_finished(pin: Pinned, images: dict[str, Any], tear: Callable[[Pinned], None]) -> None:
    attach(pin, images, NAMES[1])
    tear(pin)
    assert pin.idle(-60) == NAMES[:2]
    with pytest.raises(FileNotFoundError) as caught:
        pin.clones(NAMES[:2])
    assert caught.value.filename == NAMES[0]
    use(pin, images, NAMES)
    assert pin.names() == set(NAMES)
    pin.detach(NAMES[0])
    tear(pin)
    pin.detach(NAMES[0])
    assert pin.idle(0) == NAMES[1:]


def test_a_mount_without_a_mark(pin: Pinned, images: dict[str, Any]) -> None:
    """Nobody knows what it is a mount of: it is made anew, and who uses it keeps it."""
    use(pin, images, NAMES[:1])
    os.unlink(f"{pin.directory}/{NAMES[0]}.used")
    assert pin.names() == set()
    assert pin.idle(0) == NAMES[:1]
    assert len(use(pin, images, NAMES[:1])) == 1
    assert pin.names() == set(NAMES[:1])


def open_descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")}


def test_signals_never_catch_it_inside(pin: Pinned, images: dict[str, Any], tmp_path: Path) -> None:
    use(pin, images, NAMES)
    seen: list[bool] = []

    class StoppedError(Exception):
        pass

    def handler(*_: object) -> None:
        seen.append(tmp_path.exists() and os.path.exists("/proc/self/ns"))
        raise StoppedError

    old = signal.signal(signal.SIGALRM, handler)
    before = os.readlink("/proc/self/ns/mnt"), os.getcwd()
    opened = open_descriptors()
    try:
        for number in range(300):
            fds: list[int] = []
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00001 + number * 0.000001)
                fds = pin.clones(NAMES)
                # In small steps: a signal just before a sleep does not end it.
                for _ in range(500):
                    time.sleep(0.01)
            except StoppedError:
                pass
            assert (os.readlink("/proc/self/ns/mnt"), os.getcwd()) == before
            # An exception out of a handler may come between a call and the name for its result.
            for fd in {*fds, *(open_descriptors() - opened)}:
                os.close(fd)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert len(seen) == 300
    assert all(seen)
