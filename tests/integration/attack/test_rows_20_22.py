"""Rows 20 to 22 of SECURITY.md, section 2: account files that are traps, users that are none, joining processes."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock.model.users import MAX_FILE
from tests.integration.attack.tools import install, until

RUN = ("run", "--rm", "--network", "none")


# Row 20

BIG = 2 << 30
MEMORY = 512 << 20


def fifo(path: Path) -> None:
    os.mkfifo(path)


def fifo_link(path: Path) -> None:
    os.mkfifo(path.parent / "pipe")
    path.symlink_to("pipe")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(BIG)


def many_lines(path: Path) -> None:
    path.write_text("x:x:5:" + ",".join(f"member{number}" for number in range(MAX_FILE // 16)) + "\n")


ACCOUNT_TRAPS: dict[str, Callable[[Path], object]] = {
    "fifo": fifo,
    "link-to-fifo": fifo_link,
    "huge": huge,
    "many": many_lines,
    "directory": lambda path: path.mkdir(),
    "loop": lambda path: path.symlink_to(path.name),
    "zero": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "kernel-log": lambda path: path.symlink_to("/proc/kmsg"),
    "memory": lambda path: path.symlink_to("/proc/self/mem"),
    "standard-input": lambda path: path.symlink_to("/proc/self/fd/0"),
    "host": lambda path: path.symlink_to("/../../../../etc/shadow"),
}


def timed(minidock: Any, *arguments: Any, most: float = 20) -> subprocess.CompletedProcess[bytes]:
    """A call of the command; it must not take long, and no process of it gets much memory.

    A limit, not a measurement: a process's ru_maxrss begins with that of its parent, these tests.
    """
    before = time.monotonic()
    with minidock.popen(*arguments) as process:
        resource.prlimit(process.pid, resource.RLIMIT_DATA, (MEMORY, MEMORY))
        out, err = process.stdout.read(), process.stderr.read()
        process.wait()
    assert time.monotonic() - before < most
    assert b"Traceback" not in err
    assert b"emory" not in err
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@pytest.mark.parametrize(
    ("kind", "file"),
    [*((kind, "passwd") for kind in ACCOUNT_TRAPS), ("fifo", "group"), ("huge", "group"), ("many", "group")],
)
def test_row_20_account_files_that_are_traps(
    minidock: Any, make_image: Callable[..., None], sentinel: Any, kind: str, file: str
) -> None:
    """In the image of a run and of a build's USER, WORKDIR and COPY --chown: an answer at once, or a refusal."""

    def change(tree: Path) -> None:
        (tree / "etc" / file).unlink()
        ACCOUNT_TRAPS[kind](tree / "etc" / file)

    make_image("evil", change)
    # What lies in /proc says that it is empty, and is taken at its word: only numbers are accounts then.
    expected = 0 if kind in ("many", "host", "kernel-log", "memory") else 125
    done = timed(minidock, *RUN, "-u", "1000:5", "evil", "id", "-u")
    assert done.returncode == expected, done.stderr
    done = timed(minidock, *RUN, "-u", "bob:wheel", "evil", "id", "-u")
    assert done.returncode == 125
    folder = sentinel.path.parent / "context"
    folder.mkdir()
    (folder / "file").touch()
    for lines in ("USER bob:wheel\nWORKDIR /x\nRUN id", "COPY --chown=bob:wheel file /x"):
        (folder / "Dockerfile").write_text(f"FROM evil\n{lines}\n")
        assert timed(minidock, "build", folder).returncode == 1


def test_row_20_account_files_of_a_running_container(minidock: Any) -> None:
    """The container makes the trap itself, for who joins it."""
    obey = "while :; do [ -e /v/next ] && sh /v/next && rm /v/next; usleep 10000; done"
    minidock("run", "-d", "--name", "it", "--network", "none", "-v", "vol:/v", "busybox", "sh", "-c", obey)
    order = minidock.root / "volumes/vol/_data/next"
    refused, empty = {"root": 125, "1000": 125}, {"root": 125, "1000": 0}
    for make, expected in (
        ("mkfifo /etc/passwd", refused),
        ("mkfifo /tmp/pipe; ln -s /tmp/pipe /etc/passwd", refused),
        ("truncate -s 2G /etc/passwd", refused),
        ("mkdir /etc/passwd", refused),
        ("ln -s /dev/zero /etc/passwd", refused),
        ("ln -s /proc/kmsg /etc/passwd", empty),
        ("ln -s /proc/1/mem /etc/passwd", empty),
    ):
        order.with_name("new").write_text(f"rm -rf /etc/passwd; {make}")
        order.with_name("new").rename(order)
        while order.exists():
            time.sleep(0.01)
        for user, status in expected.items():
            assert timed(minidock, "exec", "-u", user, "it", "id").returncode == status


def test_row_20_the_kernels_log_is_not_read(minidock: Any, make_image: Callable[..., None]) -> None:
    """/proc/kmsg hands each message to one reader only: as an account file it must not be emptied."""

    def change(tree: Path) -> None:
        for name in ("passwd", "group"):
            (tree / "etc" / name).unlink()
            (tree / "etc" / name).symlink_to("/proc/kmsg")

    make_image("evil", change)
    Path("/dev/kmsg").write_text("a line for those who read the log\n")
    before = unread_kernel_messages()
    minidock(*RUN, "-u", "1000", "evil", "true")
    minidock(*RUN, "-u", "bob:wheel", "evil", "true", status=125)
    # Old messages make room for new ones meanwhile.
    assert unread_kernel_messages() > before // 2 > 0


def unread_kernel_messages() -> int:
    """Bytes of the kernel's log that nobody has read (syslog(2), SYSLOG_ACTION_SIZE_UNREAD)."""
    return ctypes.CDLL(None).klogctl(9, None, 0)


def test_row_20_numbers_are_never_names(minidock: Any, make_image: Callable[..., None]) -> None:
    text = "1000:x:0:0::/:/bin/sh\n4294967296:x:0:0::/:/bin/sh\nbob:x:4294967295:0::/:/bin/sh\nmax:x:2147483648:0::/:\n"
    make_image("evil", lambda tree: (tree / "etc/passwd").write_text(text))
    assert minidock.out(*RUN, "-u", "1000", "evil", "id", "-u") == "1000"
    for user in ("4294967296", "bob", "max"):
        minidock(*RUN, "-u", user, "evil", "id", "-u", status=125)


# Row 21

BAD_USERS = (
    *("1:", ":1", "1:2:3", "-1", "4294967296", "2147483648", "1:-1", "1:4294967295", "+1", " 1", "1 ", "0x0", "1e3"),
    *("\uff11", "root\n", "root:x:0", ":", "::", "1.0", "0b1", "99999999999999999999999999999999999999999999"),
)


def test_row_21_users_are_read_strictly(minidock: Any) -> None:
    minidock("run", "-d", "--name", "it", "--network", "none", "busybox", "sleep", "1000")
    for user in BAD_USERS:
        for command in ((*RUN, f"--user={user}", "busybox"), ("exec", f"--user={user}", "it")):
            done = minidock(*command, "id", "-u", status=125)
            assert done.stdout == ""


def test_row_21_nor_in_a_dockerfile(minidock: Any, context: Any) -> None:
    for user in ("1:", ":1", "1:2:3", "-1", "4294967296", "1:2147483648", "+1", "0x0", "\uff11", "1:\uff11"):
        for lines in (f"USER {user}\nRUN id -u", f"COPY --chown={user} file /x"):
            folder = context(f"FROM busybox\n{lines}\n", {"file": ""})
            assert minidock("build", "--no-cache", folder, status=None).returncode == 1, lines


# Row 22


@pytest.mark.race
def test_row_22_a_joining_process_cannot_be_reached(
    minidock: Any, make_image: Callable[..., None], build_static: Callable[..., Path], seconds: float
) -> None:
    """The container traces, reads and floods all that joins it. Before the command's own exec nothing opens; afterwards
    it is like one of its own, and holds nothing of the host's."""
    probe = build_static("nsprobe")
    make_image("evil", lambda tree: install(tree, probe))
    minidock("run", "-d", "--name", "it", "--network", "none", "evil", "/nsprobe", str(seconds))
    flags = ((), ("-u", "1000"), ("--privileged",), ("-w", "/no/such"))
    for number in until(seconds - 1):
        done = minidock("exec", *flags[number % 4], "it", "true", status=None, timeout=20)
        assert done.returncode in (0, 125)
        assert len(done.stderr) < 1000
    minidock("wait", "it")
    lines = [line.split(maxsplit=2) for line in minidock.out("logs", "it").splitlines()]
    assert any(line[0] == "rounds" for line in lines)
    reached = [line for line in lines if line[0] in ("traced", "mem")]
    assert reached, "the probe was too slow to see any process"
    # Neither the engine's program nor the trampoline, whose only descriptor is the pipe on which it reports a failure.
    # One that ended before its name was asked for has none.
    named = [line for line in reached if len(line) == 3]
    assert named, "the probe was too slow to name any process"
    assert [line for line in named if not line[2].startswith("/bin/")] == []
    assert [line for line in lines if line[0] in ("link", "report")] == []
