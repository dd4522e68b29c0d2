"""Layers mounted from their tarballs, as many use them at once, are killed, and begin anew."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minidock.kernel import mount
from minidock.store.layout import DataRoot
from tests.integration.pinned_layers import QUIET, blob_of, check, forget, mounts_of, pin_of


@pytest.fixture
def layers() -> str:
    return "tarball"


def resident(path: Path) -> int:
    """How many pages of a file lie in the page cache (mincore(2)); looking changes nothing."""
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as mapped:
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        vector = (ctypes.c_ubyte * (len(mapped) // mmap.PAGESIZE))()
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(mapped)), vector) == 0
    return sum(page & 1 for page in vector)


def test_many_first_users_at_once_share_one_mount(minidock, context) -> None:
    """64 containers begin at once on a store whose layers have neither indexes nor mounts. That the mount is one shows
    the page cache: what one container has read, and no other, every one finds there."""
    content = os.urandom(64 * mmap.PAGESIZE)
    minidock.build(context("FROM busybox\nCOPY data /data\n", {"data": content}), "-t", "app")
    forget(minidock)
    names = [f"user{number}" for number in range(64)]

    def start(name: str) -> None:
        minidock("run", "-d", "--name", name, "--network", "none", "app", "sleep", "1000")

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(start, names))
    states = json.loads(minidock.out("inspect", *names))
    files = [Path(f"/proc/{state['State']['Pid']}/root/data") for state in states]
    assert [resident(file) for file in files] == [0] * 64
    assert files[0].read_bytes() == content
    assert [resident(file) for file in files] == [64] * 64
    minidock("rm", "-f", *names)
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


def test_a_removal_among_first_users(minidock, tmp_path: Path) -> None:
    """Each of them has the whole layer or no image; and what the last one leaves can be removed."""
    archive = archive_of(minidock, tmp_path)
    with archive.open("ab") as file:
        file.write(bytes(1024))
    sums = minidock("run", "--rm", "--network", "none", "busybox", "md5sum", "/bin/busybox").stdout
    for pause in (0, 0.02, 0.05, 0.1):
        minidock("import", archive, "app")
        forget(minidock)
        with ThreadPoolExecutor(11) as pool:
            starts = [pool.submit(minidock, *QUIET, "app", "md5sum", "/bin/busybox", status=None) for _ in range(10)]
            time.sleep(pause)
            removal = pool.submit(minidock, "rmi", "-f", "app")
        assert removal.result().stdout.startswith("Untagged: app")
        for done in (start.result() for start in starts):
            if done.returncode:
                assert (done.returncode, done.stdout) == (125, "")
                assert "no such image: app" in done.stderr
            else:
                assert done.stdout == sums
        assert minidock.out("ps", "-aq") == ""
    # An image that was running when its name was taken is there without one.
    minidock("import", archive, "app")
    minidock("rmi", "-f", *{*minidock.out("images", "-aq").split()} - {minidock.out("images", "-q", "busybox")})
    check(minidock)
    assert pin_of(minidock).names() == {blob_of(minidock, "busybox").name}


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


def archive_of(minidock, tmp_path: Path) -> Path:
    path = tmp_path / "busybox.tar"
    shutil.copyfile(blob_of(minidock, "busybox"), path)
    return path


def test_a_tarball_that_was_replaced_is_mounted_anew(minidock, tmp_path: Path) -> None:
    """The same layer, stored again after its first file was damaged: what runs is the new file."""
    archive = archive_of(minidock, tmp_path)
    sums = minidock.out(*QUIET, "busybox", "md5sum", "/bin/busybox")
    blob = blob_of(minidock, "busybox")
    blob.chmod(0o600)
    os.truncate(blob, 20480)
    minidock("import", archive, "again")
    assert minidock.out(*QUIET, "again", "md5sum", "/bin/busybox") == sums
    assert minidock("image", "verify").returncode == 0


def test_what_a_killed_import_left_does_not_keep_the_disk(minidock, tmp_path: Path) -> None:
    """The layer's mount is of a file that never became a blob: it goes when it is stored again, or soon after."""
    archive = archive_of(minidock, tmp_path)
    with archive.open("ab") as file:
        file.write(bytes(1024))
    command = (
        "import os, signal; from minidock.store import blobs\n"
        "blobs.Blobs.adopt = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"from minidock import Engine; Engine({str(minidock.root)!r}, may_fork=True).import_image({str(archive)!r})"
    )
    for remedy in ("import", "rest"):
        done = subprocess.run([sys.executable, "-c", command], env=minidock.environment, check=False)
        assert done.returncode == -signal.SIGKILL
        (lost,) = pin_of(minidock).names() - {blob_of(minidock, "busybox").name}
        if remedy == "import":
            minidock("import", archive, "new")
            minidock(*QUIET, "new", "true")
            status = (minidock.root / "images/blobs/sha256" / lost).stat()
            assert pin_of(minidock).note(lost).endswith(f":{status.st_ino}:{status.st_size}")
            minidock("rmi", "new")
        else:
            minidock("info")
            forget_one(minidock, "busybox")
            minidock(*QUIET, "busybox", "true")
            assert pin_of(minidock).names() == {blob_of(minidock, "busybox").name}


def forget_one(minidock, image: str) -> None:
    """Unmount a layer, and let the next use see that it is time to look at the others."""
    pin = pin_of(minidock)
    with pin.lock():
        pin.detach(blob_of(minidock, image).name)
    stamp = Path(DataRoot(str(minidock.root)).run, "layers.rested")
    if stamp.exists():
        os.utime(stamp, (0, 0))


def test_a_start_never_unmounts_what_it_is_about_to_use(minidock, context) -> None:
    minidock.build(context("FROM busybox\nRUN echo here > /file\n"), "-t", "app")
    pin = pin_of(minidock)
    old = time.time() - 7200
    for name in pin.names():
        os.utime(f"{pin.directory}/{name}.used", (old, old), follow_symlinks=False)
    forget_one(minidock, "busybox")
    assert minidock.out(*QUIET, "app", "cat", "/file") == "here"


def test_what_lies_in_the_place_of_an_index_does_not_stop_a_run(minidock) -> None:
    for make in (os.mkdir, os.mkfifo, lambda path: os.symlink("/etc/passwd", path)):
        forget(minidock)
        make(str(minidock.root / "layers/tarball" / f"{blob_of(minidock, 'busybox').name}.idx"))
        assert minidock.out(*QUIET, "busybox", "echo", "ok", timeout=20) == "ok"
    check(minidock)


def test_the_probe_is_of_one_file_system(minidock, tmp_path: Path) -> None:
    """A file system that cannot hold indexes is mounted on the data root: layers are unpacked there."""
    archive = archive_of(minidock, tmp_path)
    minidock.environment["MINIDOCK_CONFIG"] = "/dev/null"
    mount.mount("tmpfs", str(minidock.root), "tmpfs", 0)
    try:
        minidock("import", archive, "busybox")
        assert minidock.out(*QUIET, "busybox", "echo", "ok") == "ok"
        assert "unpacked trees" in minidock.out("info")
    finally:
        mount.umount2(str(minidock.root), mount.MNT_DETACH)


def test_a_program_with_threads_is_never_forked_for_layers(minidock, tmp_path: Path) -> None:
    """The caller ignores SIGCHLD and has another thread: neither a signal nor a lost child may be seen."""
    archive = archive_of(minidock, tmp_path)
    program = f"""
import os, signal, threading, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
here = os.getcwd(), os.readlink("/proc/self/root"), os.readlink("/proc/self/ns/mnt")
forks = []
os.register_at_fork(before=lambda: forks.append(1))
from minidock import Engine
engine = Engine({str(minidock.root)!r})
engine.import_image({str(archive)!r}, name="new")
engine.create("new", "true", network="none")
assert (os.getcwd(), os.readlink("/proc/self/root"), os.readlink("/proc/self/ns/mnt")) == here
assert not forks
print("as before")
"""
    forget(minidock)
    command = ["strace", "-qq", "-f", "-e", "trace=fork,vfork,clone,clone3", "-o", tmp_path / "calls"]
    tracer = command if shutil.which("strace") else []
    done = subprocess.run(
        [*tracer, sys.executable, "-c", program],
        env=minidock.environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "as before\n"
    if tracer:
        calls = (tmp_path / "calls").read_text().splitlines()
        assert all("CLONE_THREAD" in call for call in calls if "clone" in call or "fork" in call)
