"""Layers mounted from their tarballs, as many use them at once, are killed, and begin anew."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minidock.kernel.pinned import Pinned
from minidock.store.layout import DataRoot

QUIET = ("run", "--rm", "--network", "none")


@pytest.fixture
def layers() -> str:
    return "tarball"


def pin_of(minidock) -> Pinned:
    return Pinned(f"{DataRoot(str(minidock.root)).run}/layers")


def forget(minidock, *, indexes: bool = True) -> None:
    """As a reboot leaves it; with ``indexes`` as a store that was never used."""
    pin = pin_of(minidock)
    os.makedirs(os.path.dirname(pin.directory), exist_ok=True)
    with pin.lock():
        pin.unpin()
    if indexes:
        for index in (minidock.root / "layers/tarball").iterdir():
            index.unlink()


def mounts_of(minidock) -> list[str]:
    run = DataRoot(str(minidock.root)).run
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return [line for line in lines if run in line.split()[4].encode().decode("unicode_escape")]


def check(minidock) -> None:
    """The right tree, two lines in the mount table, one mount for each index, nothing half-made."""
    assert minidock.out(*QUIET, "busybox", "sh", "-c", "cat /etc/passwd | head -1; ls /bin | wc -l").startswith("root:")
    assert len(mounts_of(minidock)) == 2
    indexes = {path.stem for path in (minidock.root / "layers/tarball").iterdir()}
    assert pin_of(minidock).names() == indexes
    assert os.listdir(minidock.root / "tmp") == []


def test_many_first_users_at_once_share_one_mount(minidock) -> None:
    """Each container tells the device of a file beneath its overlay: bind-mounted twice, one file has one inode."""
    forget(minidock)
    with ThreadPoolExecutor(64) as pool:
        ended = list(pool.map(lambda _: minidock(*QUIET, "busybox", "cat", "/etc/group"), range(64)))
    assert {done.stdout for done in ended} == {ended[0].stdout}
    assert ended[0].stdout
    check(minidock)


def test_killed_at_any_instant_of_the_first_use(minidock) -> None:
    rnd = random.Random(4)
    expected = minidock.out(*QUIET, "busybox", "sh", "-c", "ls -l /bin | md5sum")
    for number in range(30):
        forget(minidock, indexes=number % 2 == 0)
        process = minidock.popen(*QUIET, "busybox", "true", start_new_session=True)
        time.sleep(rnd.uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert minidock.out(*QUIET, "busybox", "sh", "-c", "ls -l /bin | md5sum") == expected
        assert len(mounts_of(minidock)) == 2
    deadline = time.monotonic() + 10
    while minidock.out("ps", "-aq") and time.monotonic() < deadline:
        time.sleep(0.05)
    check(minidock)


def test_a_layer_that_is_removed_stays_with_its_users(minidock, context) -> None:
    minidock.build(context("FROM busybox\nRUN echo here > /file\n"), "-t", "app")
    minidock("run", "-d", "--name", "one", "--network", "none", "app", "sh", "-c", "while :; do sleep 0.05; done")
    assert "cannot be forced" in minidock("rmi", "-f", minidock.inspect("one")["Image"], status=1).stderr
    names = pin_of(minidock).names()
    pin = pin_of(minidock)
    with pin.lock():
        for name in names:
            pin.detach(name)
    assert pin.names() == set()
    assert minidock.out("exec", "one", "cat", "/file") == "here"
    # The next one mounts the layers again, beside what the first still has.
    assert minidock.out(*QUIET, "app", "cat", "/file") == "here"
    minidock("rm", "-f", "one")
    minidock("rmi", "app")
    assert len(pin.names()) == 1
    check(minidock)


def test_after_a_reboot_the_layers_are_mounted_again(minidock) -> None:
    minidock(
        "create", "--name", "kept", "--keep", "--network", "none", "busybox", "sh", "-c", "cat /etc/group; echo $$ > /f"
    )
    forget(minidock, indexes=False)
    assert "root" in minidock.out("start", "-a", "kept")
    forget(minidock)
    assert "root" in minidock.out("start", "-a", "kept")
    minidock("rm", "kept")
    check(minidock)


@pytest.mark.parametrize("count", [128, 400])
def test_many_layers(minidock, context: Callable[..., Path], count: int) -> None:
    lines = [f"COPY f{number} /many/" for number in range(count)]
    files = {f"f{number}": str(number) for number in range(count)}
    minidock.build(context("\n".join(["FROM busybox", *lines, ""]), files), "-t", "many")
    assert minidock.out(*QUIET, "many", "sh", "-c", "cat /many/* | wc -c; ls /many | wc -l; cat /many/f7") == (
        f"{sum(len(text) for text in files.values())}\n{count}\n7"
    )
    assert len(mounts_of(minidock)) == 2
    minidock("rmi", "many")
    check(minidock)


def test_no_layer_is_unpacked(minidock, context) -> None:
    minidock.build(
        context("FROM busybox\nRUN mkdir /d && echo x > /d/x\nCOPY f /f\nRUN rm /f\n", {"f": "y"}), "-t", "app"
    )
    assert minidock.out(*QUIET, "app", "sh", "-c", "cat /d/x; test ! -e /f") == "x"
    assert [path.name for path in (minidock.root / "layers/overlay2").iterdir()] == ["empty"]
    blobs = subprocess.run(["du", "-s", minidock.root / "images"], check=True, capture_output=True, text=True)
    layers = subprocess.run(["du", "-s", minidock.root / "layers"], check=True, capture_output=True, text=True)
    assert int(layers.stdout.split()[0]) < int(blobs.stdout.split()[0]) / 10
