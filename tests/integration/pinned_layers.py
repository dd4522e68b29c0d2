"""What the tests of shared layers look at: the pin of a data root, and whether all is as it has to be around it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from minidock.drivers import index_file
from minidock.kernel import namespaces, process
from minidock.kernel.pinned import Pinned
from minidock.store.layout import DataRoot

QUIET = ("run", "--rm", "--network", "none")


def run_of(minidock: Any) -> Path:
    return Path(DataRoot(str(minidock.root)).run)


def pin_of(minidock: Any) -> Pinned:
    return Pinned(f"{run_of(minidock)}/layers")


def blob_of(minidock: Any, image: str) -> Path:
    """The topmost layer's tarball."""
    layers = json.loads(minidock.out("image", "inspect", image))[0]["RootFS"]["Layers"]
    return Path(minidock.root, "images/blobs/sha256", layers[-1].removeprefix("sha256:"))


def indexes_of(minidock: Any) -> list[Path]:
    return sorted((minidock.root / "layers/tarball").iterdir())


def forget(minidock: Any, *, indexes: bool = True) -> None:
    """As a reboot leaves it; with ``indexes`` as a store that was never used."""
    pin = pin_of(minidock)
    os.makedirs(os.path.dirname(pin.directory), exist_ok=True)
    with pin.lock():
        pin.unpin()
    if indexes:
        for index in indexes_of(minidock):
            index.unlink()


def mounts_of(minidock: Any) -> list[str]:
    """The lines of the host's mount table that have to do with the data root or with what it keeps of this boot."""
    places = str(run_of(minidock)), str(minidock.root)
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return [line for line in lines if any(place in line.encode().decode("unicode_escape") for place in places)]


def inside(pin: Pinned) -> list[str]:
    """Where the pinned namespace has its mounts, each as often as it is mounted there."""
    answers: list[str] = []
    reader, writer = os.pipe()
    again, go = os.pipe()

    def child() -> None:
        os.close(go)
        namespaces.setns(os.open(f"{pin.directory}/ns", os.O_RDONLY), namespaces.CLONE_NEWNS)
        os.write(writer, b"in")
        os.read(again, 1)

    with process.spawn(child) as spawned:
        os.close(writer)
        os.read(reader, 2)
        lines = Path(f"/proc/{spawned.pid}/mountinfo").read_text().splitlines()
        answers = sorted(line.split()[4] for line in lines)
        os.close(go)
        assert spawned.wait() == 0
    os.close(reader)
    os.close(again)
    return answers


def check(minidock: Any) -> None:
    """The right tree, two lines in the mount table, one mount for each index, nothing half-made."""
    assert minidock.out(*QUIET, "busybox", "sh", "-c", "cat /etc/passwd | head -1; ls /bin | wc -l").startswith("root:")
    check_pin(minidock)
    assert pin_of(minidock).names() == {path.stem for path in indexes_of(minidock)}


def check_pin(minidock: Any) -> None:
    """After a container has run: two lines in the mount table, and in the pin layers that have an index, each once;
    nothing half-made."""
    assert len(mounts_of(minidock)) == 2
    pin = pin_of(minidock)
    names = pin.names()
    assert names
    assert names <= {path.stem for path in indexes_of(minidock)}
    assert inside(pin) == sorted(["/", *(f"/{name}" for name in names)])
    assert os.listdir(minidock.root / "tmp") == []


def check_whole(minidock: Any, *, locks: bool) -> None:
    """What was left by a process that is dead now, and that no command has looked at yet: of what has its name, every
    blob is its digest's, every index is whole and every mark is of a mount; with ``locks``, nobody holds one."""
    for blob in (minidock.root / "images/blobs/sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    for index in indexes_of(minidock):
        index_file.peek(str(index))
    assert len(mounts_of(minidock)) <= 2
    pin = pin_of(minidock)
    for name in pin.names():
        for fd in pin.clones([name]):
            assert os.listdir(f"/proc/self/fd/{fd}"), "an EROFS mount with a layer in it"
            os.close(fd)
    for lock in {*run_of(minidock).rglob("*.lock"), *(minidock.root / "locks").iterdir()} if locks else ():
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
