"""Namespaces, births and terminals on the real kernel."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock.kernel import files, mount, namespaces, process, resolve, trampoline, tty

pytestmark = pytest.mark.usefixtures("mount_table")
Run = Callable[..., Any]
KINDS = {
    "mnt": namespaces.CLONE_NEWNS,
    "pid": namespaces.CLONE_NEWPID,
    "uts": namespaces.CLONE_NEWUTS,
    "ipc": namespaces.CLONE_NEWIPC,
    "net": namespaces.CLONE_NEWNET,
    "cgroup": namespaces.CLONE_NEWCGROUP,
}
ALL = KINDS["mnt"] | KINDS["pid"] | KINDS["uts"] | KINDS["ipc"] | KINDS["net"] | KINDS["cgroup"]


def ids(pid: int | str) -> dict[str, str]:
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in KINDS}


def test_one_clone_makes_all_namespaces() -> None:
    with process.spawn(signal.pause, flags=ALL) as child:
        theirs, ours = ids(process.host_pid(child.pidfd)), ids("self")
        assert {kind for kind in KINDS if theirs[kind] != ours[kind]} == set(KINDS)
        process.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL


def test_child_is_init_and_its_host_pid_is_known() -> None:
    with process.spawn(lambda: 0 if os.getpid() == 1 and os.getppid() == 0 else 9, flags=ALL) as child:
        assert process.host_pid(child.pidfd) == child.pid
        assert child.wait() == 0


def test_nested_pid_namespaces_die_together() -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)

    def container() -> None:
        os.setuid(1000)
        os.write(writer, b"x")
        signal.pause()

    def monitor() -> None:
        inner = process.spawn(container, flags=namespaces.CLONE_NEWPID)
        # The host's /proc is still mounted here: it knows the host's numbers.
        assert process.host_pid(inner.pidfd) > inner.pid
        os.write(writer, b"m")
        signal.pause()

    with process.spawn(monitor, flags=namespaces.CLONE_NEWPID) as spawned:
        os.close(writer)
        started = b""
        while len(started) < 2:
            started += os.read(reader, 2)
        process.pidfd_send_signal(spawned.pidfd, signal.SIGKILL)
        assert spawned.wait() == -signal.SIGKILL
    assert sorted(started) == sorted(b"mx")
    assert os.read(reader, 1) == b"", "the container outlived its monitor"
    os.close(reader)


def test_unshare_and_join_by_pidfd(in_namespaces: Run) -> None:
    def sleeper() -> None:
        namespaces.unshare(namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWNET)
        os.write(writer, b"x")
        signal.pause()

    reader, writer = os.pipe2(os.O_CLOEXEC)
    with process.spawn(sleeper) as target:
        assert os.read(reader, 1) == b"x"

        def inside() -> list[str]:
            pidfd = namespaces.pidfd_open(target.pid)
            namespaces.setns(pidfd, namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWNET)
            return [os.readlink(f"/proc/self/ns/{kind}") for kind in ("uts", "net", "ipc")]

        theirs = ids(target.pid)
        assert theirs["uts"] != ids("self")["uts"]
        assert in_namespaces(inside) == [theirs["uts"], theirs["net"], ids("self")["ipc"]]
        process.pidfd_send_signal(target.pidfd, signal.SIGKILL)
        target.wait()
    os.close(reader)
    os.close(writer)


def test_join_by_a_namespaces_file(in_namespaces: Run) -> None:
    with process.spawn(signal.pause, flags=namespaces.CLONE_NEWUTS) as target:

        def inside() -> str:
            fd = os.open(f"/proc/{target.pid}/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
            namespaces.setns(fd, 0)
            return os.readlink("/proc/self/ns/uts")

        assert in_namespaces(inside) == os.readlink(f"/proc/{target.pid}/ns/uts")
        process.pidfd_send_signal(target.pidfd, signal.SIGKILL)
        target.wait()


def test_pidfd_of_nobody() -> None:
    with process.spawn(lambda: 0) as child:
        child.wait()
        with pytest.raises(ProcessLookupError, match=f"pid {child.pid}"):
            namespaces.pidfd_open(child.pid)


def test_pty_of_a_devpts_of_its_own(tmp_path: Path, in_namespaces: Run) -> None:
    def inside() -> list[object]:
        options = [("newinstance", None), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")]
        devpts = mount.new_mount("devpts", options)
        mount.move_mount(devpts, str(tmp_path))
        directory = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
        master, slave = tty.new_pty(directory)
        number = tty.pty_number(master)
        status, node = os.fstat(slave), os.stat(tmp_path / str(number))
        os.write(slave, b"x")
        return [number, (status.st_dev, status.st_ino) == (node.st_dev, node.st_ino), os.read(master, 10).decode()]

    assert in_namespaces(inside) == [0, True, "x"]


def test_trampoline_after_pivot_into_a_root_without_a_loader(tmp_path: Path) -> None:
    fd = trampoline.open_trampoline()
    reader, writer = os.pipe2(os.O_CLOEXEC)

    def child() -> None:
        os.chroot(tmp_path)
        os.chdir("/")
        trampoline.exec_trampoline(fd, "/bin/program", ["program"], {}, error_fd=writer)

    with process.spawn(child, flags=ALL) as spawned:
        os.close(fd)
        os.close(writer)
        failure = process.read_failure(reader)
        os.close(reader)
        assert spawned.wait() == 127
    assert failure is not None
    assert isinstance(failure.error(), FileNotFoundError)


def test_interpreter_cannot_be_reached_through_proc_exe() -> None:
    fd = trampoline.open_trampoline()

    def child() -> None:
        process.close_from(3, keep=[fd])
        trampoline.exec_trampoline(fd, "/bin/sleep", ["sleep", "100"], {}, error_fd=os.open("/dev/null", os.O_WRONLY))

    with process.spawn(child) as spawned:
        while os.readlink(f"/proc/{spawned.pid}/exe") not in ("/usr/bin/sleep", "/bin/sleep"):
            assert process.wait_pidfd(spawned.pidfd, block=False) is None
        process.pidfd_send_signal(spawned.pidfd, signal.SIGKILL)
        spawned.wait()
    with pytest.raises(PermissionError):
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_TRUNC))
    os.close(fd)


def test_whiteout_and_trusted_attributes(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    files.whiteout(directory, "gone")
    assert files.is_whiteout((tmp_path / "gone").lstat())
    with pytest.raises(FileExistsError):
        files.whiteout(directory, "gone")
    files.set_xattr(directory, "trusted.overlay.opaque", b"y")
    assert files.list_xattrs(directory)["trusted.overlay.opaque"] == b"y"
    (tmp_path / "link").symlink_to("nowhere")
    link = os.open(tmp_path / "link", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    files.set_xattr(link, "trusted.test", b"on the link")
    assert files.list_xattrs(link) == {"trusted.test": b"on the link"}
    assert files.list_xattrs(str(tmp_path / "link")) == {"trusted.test": b"on the link"}
    os.close(link)
    os.close(directory)


def test_mkdirs_owner_of_what_is_made_only(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    root = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.close(resolve.mkdirs_in_root(root, "old/new/deep", mode=0o750, uid=1234, gid=5678))
    os.close(root)
    owners = {p.name: (p.stat().st_uid, p.stat().st_gid) for p in tmp_path.rglob("*")}
    assert owners == {"old": (0, 0), "new": (1234, 5678), "deep": (1234, 5678)}


@pytest.mark.parametrize("openat2", [True, False], ids=["openat2", "walk"])
def test_exchange_race_never_leads_out(tmp_path: Path, openat2: bool) -> None:
    """A process swaps a directory with a link to the host's while paths through it are resolved and made."""
    top = tmp_path / "root"
    outside = tmp_path / "outside"
    (top / "d").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (top / "l").symlink_to(outside)
    (top / "d" / "secret").write_text("inside")
    root = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def swap() -> None:
        while True:
            files.renameat2(root, "d", root, "l", files.RENAME_EXCHANGE)

    seen = set()
    with process.spawn(swap) as swapper:
        for number in range(400):
            try:
                path = "d/secret" if number % 2 else "d/../d/secret"
                fd = resolve.open_in_root(root, path, os.O_RDONLY, openat2=openat2)
                seen.add(os.read(fd, 100))
                os.close(fd)
                os.close(resolve.mkdirs_in_root(root, f"l/made-{number % 7}", openat2=openat2))
            except (FileNotFoundError, NotADirectoryError):
                continue
        process.pidfd_send_signal(swapper.pidfd, signal.SIGKILL)
        swapper.wait()
    os.close(root)
    # The link's absolute target is looked for inside the root, where there is nothing to read.
    assert seen <= {b"inside"}
    assert os.listdir(outside) == ["secret"]


def children_of_this_process() -> set[str]:
    """The numbers of all children, those not reaped yet too."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


def test_a_threaded_parent_gets_children_of_its_own_in_all_namespaces() -> None:
    before = children_of_this_process()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with process.spawn(lambda: 7 if os.getpid() == 1 else 9, flags=ALL) as child:
            assert process.host_pid(child.pidfd) == child.pid
            assert child.wait() == 7
        with pytest.raises(OSError, match="Invalid argument"):
            process.spawn(lambda: 0, flags=0x200 | namespaces.CLONE_NEWNS)
        assert children_of_this_process() - before == set()
    finally:
        stop.set()
        thread.join()
