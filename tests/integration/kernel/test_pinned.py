"""Mounts in a pinned namespace: what is there, what the host sees of it, and from where it can be used."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from minidock.kernel import mount, namespaces, overlay, process
from minidock.kernel.pinned import Pinned

pytestmark = pytest.mark.usefixtures("mount_table", "file_backed_mounts")

NAME = "0" * 64
OTHER = "f" * 64


def name_of(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture
def pin(tmp_path: Path) -> Iterator[Pinned]:
    pinned = Pinned(str(tmp_path / "layers"))
    yield pinned
    pinned.unpin()
    assert not os.path.exists(pinned.directory)


@pytest.fixture
def attach(pin: Pinned, tmp_path: Path, make_image: Callable[[Path, bytes], Any]) -> Callable[[str], int]:
    """``attach(name)``: pin a new image whose one file says the name; its st_dev."""

    def run(name: str) -> int:
        image = make_image(tmp_path / "images" / name, name.encode())
        with closing(image.mount()) as fd, pin.lock():
            pin.attach(name, fd)
            return os.fstat(fd).st_dev

    return run


@contextmanager
def closing(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def clones(pinned: Pinned, *names: str) -> Iterator[list[Path]]:
    """The clones' roots."""
    fds = pinned.clones(names)
    try:
        assert not any(os.get_inheritable(fd) for fd in fds)
        yield [Path(f"/proc/self/fd/{fd}") for fd in fds]
    finally:
        for fd in fds:
            os.close(fd)


def check(pinned: Pinned, *names: str) -> None:
    """That the names are there and hold what ``attach`` gave them."""
    with clones(pinned, *names) as roots:
        assert [(root / "content").read_text() for root in roots] == list(names)


def table() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_what_is_attached_can_be_cloned(pin: Pinned, attach: Callable[[str], int]) -> None:
    devices = {name: attach(name) for name in (NAME, OTHER)}
    check(pin, OTHER, NAME, OTHER)
    with clones(pin, OTHER, NAME) as roots:
        assert [root.stat().st_dev for root in roots] == [devices[OTHER], devices[NAME]]
        with pytest.raises(OSError, match="Read-only"):
            (roots[0] / "new").touch()
    assert pin.names() == {NAME, OTHER}


def test_the_host_sees_the_pin_and_nothing_else(pin: Pinned, attach: Callable[[str], int]) -> None:
    before = table()
    attach(NAME)
    attach(OTHER)
    new = [line.split() for line in table() if line not in before]
    assert [(fields[4], fields[fields.index("-") + 1]) for fields in new] == [
        (pin.directory, "tmpfs"),
        (f"{pin.directory}/ns", "nsfs"),
    ]
    assert stat.S_IMODE(os.stat(pin.directory).st_mode) == 0o700
    assert os.listdir(f"{pin.directory}/{NAME}") == []


def test_the_namespace_holds_nothing_of_the_host(pin: Pinned, attach: Callable[[str], int]) -> None:
    attach(NAME)
    reader, writer = os.pipe()

    def child() -> None:
        with closing(os.open(f"{pin.directory}/ns", os.O_RDONLY)) as fd:
            namespaces.setns(fd, namespaces.CLONE_NEWNS)
        os.write(writer, b"in")
        process.pidfd_send_signal(os.pidfd_open(os.getpid()), 19)

    with process.spawn(child) as spawned:
        try:
            os.read(reader, 2)
            found = Path(f"/proc/{spawned.pid}/mountinfo").read_text().splitlines()
        finally:
            process.pidfd_send_signal(spawned.pidfd, 9)
            spawned.wait()
            os.close(reader)
            os.close(writer)
    assert {(line.split()[4], line.split(" - ")[1].split()[0]) for line in found} == {
        ("/", "tmpfs"),
        (f"/{NAME}", "erofs"),
    }
    assert all(not line.split(" - ")[0].split()[6:] for line in found), "nothing spreads from or to it"


def test_clones_are_layers_of_an_overlay(pin: Pinned, attach: Callable[[str], int], tmp_path: Path) -> None:
    attach(NAME)
    attach(OTHER)
    (tmp_path / "upper").mkdir()
    (tmp_path / "work").mkdir()
    lowers = pin.clones([OTHER, NAME])
    try:
        merged = overlay.overlay(lowers, upper=str(tmp_path / "upper"), work=str(tmp_path / "work"))
    finally:
        for fd in lowers:
            os.close(fd)
    with closing(merged):
        root = Path(f"/proc/self/fd/{merged}")
        assert (root / "content").read_text() == OTHER
        (root / "content").write_text("changed")
    assert (tmp_path / "upper/content").read_text() == "changed"
    check(pin, OTHER)


def test_a_name_that_is_there_stays(pin: Pinned, attach: Callable[[str], int]) -> None:
    first = attach(NAME)
    assert attach(NAME) != first
    with clones(pin, NAME, NAME) as roots:
        assert [root.stat().st_dev for root in roots] == [first, first]


@pytest.mark.parametrize("threads", [False, True])
def test_a_missing_one_is_named_and_nothing_stays_open(
    pin: Pinned, attach: Callable[[str], int], threads: bool
) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        pin.clones([NAME, OTHER])
    assert caught.value.filename == NAME
    attach(NAME)
    os.mkdir(f"{pin.directory}/{name_of(7)}")
    before = open_descriptors()
    with running_thread() if threads else closing(os.dup(0)):
        for missing in (OTHER, name_of(7)):
            with pytest.raises(FileNotFoundError) as caught:
                pin.clones([NAME, NAME, missing, name_of(8)])
            assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, missing)
    assert open_descriptors() == before


@pytest.mark.parametrize("name", ["", "ns", "../x", "A" * 64, "0" * 63, "0" * 65, "0" * 63 + "\n", f"sha256:{NAME}"])
def test_other_names_are_refused(pin: Pinned, name: str) -> None:
    for call in (lambda: pin.clones([name]), lambda: pin.attach(name, 0), lambda: pin.detach(name)):
        with pytest.raises(ValueError, match="64 hexadecimal digits"):
            call()
    assert not os.path.exists(pin.directory)


def test_what_is_not_pinned_is_empty(pin: Pinned) -> None:
    assert pin.names() == set()
    assert pin.clones([]) == []
    assert pin.idle(0) == []
    pin.detach(NAME)
    pin.unpin()
    os.mkdir(pin.directory)
    Path(pin.directory, f"{NAME}.used").touch()
    Path(pin.directory, "ns").touch()
    assert pin.names() == set()
    assert pin.idle(0) == []
    with pytest.raises(FileNotFoundError):
        pin.clones([NAME])
    for name in (f"{NAME}.used", "ns"):
        os.unlink(f"{pin.directory}/{name}")


@pytest.fixture
def tars(tmp_path: Path) -> Iterator[str]:
    """A file system for tarballs, which can be unmounted as soon as no mount holds one open."""
    path = tmp_path / "tars"
    path.mkdir()
    mount.mount("tars", str(path), "tmpfs", 0)
    yield str(path)
    if os.path.ismount(path):
        mount.umount2(str(path), mount.MNT_DETACH)


@pytest.mark.parametrize("way", ["detach", "unpin"])
def test_users_keep_what_is_unmounted_and_then_it_is_free(
    pin: Pinned, tmp_path: Path, tars: str, make_image: Callable[[Path, bytes], Any], way: str
) -> None:
    image = make_image(tmp_path, NAME.encode())
    shutil.copy(image.tar, f"{tars}/tar")
    with closing(image._replace(tar=f"{tars}/tar").mount()) as fd, pin.lock():
        pin.attach(NAME, fd)
    with pytest.raises(OSError, match="busy"):
        mount.umount2(tars)
    with clones(pin, NAME) as (root,):
        for _ in range(2):
            pin.detach(NAME) if way == "detach" else pin.unpin()
        assert pin.names() == set()
        with pytest.raises(FileNotFoundError):
            pin.clones([NAME])
        assert (root / "content").read_text() == NAME
        with pytest.raises(OSError, match="busy"):
            mount.umount2(tars)
    mount.umount2(tars)


def test_last_use(pin: Pinned, attach: Callable[[str], int]) -> None:
    names = [name_of(number) for number in range(3)]
    for name in names:
        attach(name)
    assert pin.idle(60) == []
    for name in names[:2]:
        os.utime(f"{pin.directory}/{name}.used", (0, time.time() - 100), follow_symlinks=False)
    assert pin.idle(60) == names[:2]
    assert pin.idle(200) == []
    check(pin, names[0])
    assert pin.idle(60) == [names[1]]
    attach(names[1])
    assert pin.idle(60) == []


@contextmanager
def running_thread() -> Iterator[None]:
    """A second thread in this process: its root and current directory are both threads' own."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("threads", [False, True])
def test_more_than_one_message_carries(pin: Pinned, attach: Callable[[str], int], threads: bool) -> None:
    names = [name_of(number) for number in range(260)]
    with running_thread() if threads else closing(os.dup(0)):
        for name in names:
            attach(name)
        check(pin, *names)
        assert pin.names() == set(names)


@pytest.mark.parametrize("threads", [False, True])
def test_the_caller_stays_where_it_was(
    pin: Pinned, attach: Callable[[str], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: bool
) -> None:
    monkeypatch.chdir(tmp_path)

    def where() -> tuple[object, ...]:
        status = os.stat("/")
        return os.readlink("/proc/self/ns/mnt"), os.getcwd(), status.st_dev, status.st_ino, os.umask(os.umask(0))

    before = where(), open_descriptors()
    with running_thread() if threads else closing(os.dup(0)):
        attach(NAME)
        check(pin, NAME)
        with pytest.raises(FileNotFoundError):
            pin.clones([OTHER])
    assert (where(), open_descriptors()) == before


def test_a_current_directory_that_was_removed(
    pin: Pinned, attach: Callable[[str], int], in_namespaces: Callable[..., Any], tmp_path: Path
) -> None:
    attach(NAME)

    def inside() -> bool:
        (tmp_path / "gone").mkdir()
        os.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        own = Pinned(str(tmp_path / "own"))
        with closing(attach_here(own, tmp_path)):
            check(own, NAME)
        return os.stat(".").st_nlink == 0

    assert in_namespaces(inside)


def attach_here(pinned: Pinned, folder: Path) -> int:
    """Pin the image in the folder's ``images`` as NAME; a descriptor of its mount."""
    from minidock.kernel import erofs

    fd = erofs.mount(str(folder / "images" / NAME / "index"), str(folder / "images" / NAME / "tar"))
    with pinned.lock():
        pinned.attach(NAME, fd)
    return fd


def test_a_copy_of_the_namespace_has_nothing_of_it_and_can_have_its_own(
    pin: Pinned, attach: Callable[[str], int], in_namespaces: Callable[..., Any], tmp_path: Path
) -> None:
    device = attach(NAME)

    def inside() -> list[int]:
        assert not [line for line in table() if " erofs " in line or " nsfs " in line]
        assert pin.names() == set()
        with pytest.raises(FileNotFoundError):
            pin.clones([NAME])
        with closing(attach_here(pin, tmp_path)) as fd:
            check(pin, NAME)
            return [len([line for line in table() if pin.directory in line]), os.fstat(fd).st_dev]

    lines, inner = in_namespaces(inside)
    assert lines == 2
    assert inner != device
    check(pin, NAME)
    assert pin.names() == {NAME}


@pytest.mark.parametrize("propagation", [mount.MS_SHARED, mount.MS_PRIVATE, mount.MS_SLAVE])
def test_where_mounts_spread(
    in_namespaces: Callable[..., Any],
    tmp_path: Path,
    make_image: Callable[[Path, bytes], Any],
    propagation: int,
) -> None:
    make_image(tmp_path / "images" / NAME, NAME.encode())

    def inside() -> list[object]:
        mount.mount("", "/", "", mount.MS_REC | mount.MS_SHARED)
        mount.mount("", "/", "", mount.MS_REC | propagation)
        (tmp_path / "run").mkdir()
        mount.mount("run", str(tmp_path / "run"), "tmpfs", 0)
        pinned = Pinned(str(tmp_path / "run/layers"))
        with closing(attach_here(pinned, tmp_path)):
            check(pinned, NAME)
            there = [line.split(" - ")[1].split()[0] for line in table() if pinned.directory in line]
            private = ["shared:" not in line and "master:" not in line for line in table() if pinned.directory in line]
        pinned.unpin()
        return [there, private, [line for line in table() if pinned.directory in line], os.listdir(tmp_path / "run")]

    assert in_namespaces(inside) == [["tmpfs", "nsfs"], [True, True], [], ["layers.lock"]]


@pytest.mark.parametrize("threads", [False, True])
def test_in_a_chroot(
    in_namespaces: Callable[..., Any],
    tmp_path: Path,
    make_image: Callable[[Path, bytes], Any],
    threads: bool,
) -> None:
    # Its root is no mount point, as that of many a chroot.
    make_image(tmp_path / "root/images" / NAME, NAME.encode())
    for name in ("proc", "run", "work"):
        (tmp_path / "root" / name).mkdir()

    def inside() -> list[object]:
        mount.mount("proc", str(tmp_path / "root/proc"), "proc", 0)
        os.chroot(tmp_path / "root")
        os.chdir("/work")
        status = os.stat("/")
        pinned = Pinned("/run/layers")
        with running_thread() if threads else closing(os.dup(0)), closing(attach_here(pinned, Path("/"))):
            check(pinned, NAME)
            lines = [line.split()[4] for line in table()]
        return [lines, os.getcwd(), os.path.samestat(os.stat("/"), status)]

    assert in_namespaces(inside) == [["/proc", "/run/layers", "/run/layers/ns"], "/work", True]


def test_from_a_namespace_with_a_high_number(
    in_namespaces: Callable[..., Any], tmp_path: Path, make_image: Callable[[Path, bytes], Any]
) -> None:
    # From Linux 6.18 on each processor numbers namespaces by itself, and one with a lower number cannot be bound.
    make_image(tmp_path / "images" / NAME, NAME.encode())
    processors = os.sched_getaffinity(0)

    def inside() -> bool:
        for first in processors:
            for second in processors:
                os.sched_setaffinity(0, {first})
                namespaces.unshare(namespaces.CLONE_NEWNS)
                os.sched_setaffinity(0, {second})
                pinned = Pinned(str(tmp_path / f"layers-{first}-{second}"))
                with closing(attach_here(pinned, tmp_path)):
                    check(pinned, NAME)
                pinned.unpin()
                assert os.sched_getaffinity(0) == {second}
        return True

    assert in_namespaces(inside)


def test_the_lock_is_held_alone(pin: Pinned) -> None:
    order: list[str] = []

    def second() -> None:
        with pin.lock():
            order.append("second")

    thread = threading.Thread(target=second)
    with pin.lock():
        thread.start()
        time.sleep(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert os.path.exists(f"{pin.directory}.lock")
