"""Rows 4 to 10 of SECURITY.md, section 2: what the image or another container bends while the tree is built."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock.kernel import mount as km
from minidock.kernel import namespaces as ns
from minidock.kernel import process
from minidock.runtime.context import ChildContext
from tests.integration.attack.tools import background, until

RUN = ("run", "--rm", "--network", "none")
ITERATIONS = 10_000
# What the sandbox itself mounts at and below /proc and /sys.
MASKS = {
    *("/proc", "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
    *("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"),
    *("/sys", "/sys/firmware", "/sys/devices/virtual/powercap", "/sys/fs/cgroup"),
}
SEE_MASKS = """
for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts; do [ -e $f ] && { [ -c $f ] || echo open $f; }; done
for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern; do (: >>$f) 2>/dev/null && echo writable $f; done
[ "$(ls /sys/firmware 2>/dev/null)" = "" ] || echo open /sys/firmware
echo looked
"""


def mounts_of(text: str) -> list[str]:
    """The mount points in the text of a mountinfo."""
    return [line.split()[4] for line in text.splitlines() if " - " in line]


def strange(points: list[str]) -> list[str]:
    """Mount points at and below /proc and /sys that the sandbox does not make."""
    found = [point for point in points if point.split("/")[1] in ("proc", "sys") and point not in MASKS]
    allowed = ("/sys/fs/cgroup/", "/sys/devices/system/cpu/cpu")
    return [point for point in found if not point.startswith(allowed)]


# Row 4


@pytest.mark.parametrize(
    "target", ["/proc/sysrq-trigger", "/proc/kcore", "/proc/sys/kernel/core_pattern", "/etc/passwd"]
)
def test_row_04_the_images_null_device_masks_nothing(
    minidock: Any, make_image: Callable[..., None], target: str
) -> None:
    make_image("evil", lambda tree: (tree / "dev/null").symlink_to(target))
    assert minidock.out(*RUN, "evil", "sh", "-c", SEE_MASKS) == "looked"


def test_row_04_nor_does_one_in_a_volume_at_dev(minidock: Any) -> None:
    """Where /dev is a person's mount, /dev/null in it is whatever another container made it."""
    minidock(*RUN, "-v", "dev:/d", "busybox", "ln", "-s", "/proc/sysrq-trigger", "/d/null")
    done = minidock(*RUN, "-v", "dev:/dev", "busybox", "sh", "-c", SEE_MASKS.replace("/dev/null", "/x"))
    assert done.stdout == "looked\n"


@pytest.mark.race
def test_row_04_nor_when_it_is_swapped_at_each_start(
    minidock: Any, build_static: Callable[..., Path], seconds: float
) -> None:
    setup = "mknod /d/null c 1 3; ln -s /proc/sysrq-trigger /d/other; touch /d/console /d/tty"
    minidock(*RUN, "-v", "dev:/d", "busybox", "sh", "-c", setup)
    data = minidock.root / "volumes/dev/_data"
    script = SEE_MASKS.replace("/dev/null", "/x")
    with background(build_static("swapper"), data / "null", data / "other"):
        for _ in until(seconds):
            assert minidock(*RUN, "-v", "dev:/dev", "busybox", "sh", "-c", script).stdout == "looked\n"


# Row 5

CONSOLE = "tty; stat -Lc '%t:%T' /dev/console /proc/self/fd/0 2>&1; readlink /proc/self/fd/0"


def on_a_terminal(minidock: Any, *arguments: str) -> tuple[int, str]:
    """Exit status and output of a command with a pseudo-terminal as its streams."""
    master, slave = os.openpty()
    with subprocess.Popen(
        [minidock.command, *arguments], env=minidock.environment, stdin=slave, stdout=slave, stderr=slave
    ) as running:
        os.close(slave)
        text = b""
        try:
            while chunk := os.read(master, 65536):
                text += chunk
        except OSError:
            pass  # The last user of the other end has gone.
        os.close(master)
    return running.returncode, text.decode(errors="replace").replace("\r", "")


def test_row_05_the_console_is_the_terminal_that_was_opened(minidock: Any) -> None:
    status, text = on_a_terminal(minidock, *RUN, "-t", "busybox", "sh", "-c", CONSOLE)
    assert (status, text.splitlines()) == (0, ["/dev/pts/0", "88:0", "88:0", "/dev/pts/0"])


@pytest.mark.parametrize("target", ["/proc/sysrq-trigger", "/proc/self/attr", "SENTINEL"])
def test_row_05_links_of_the_image_in_dev_lead_nowhere(
    minidock: Any, make_image: Callable[..., None], sentinel: Any, target: str
) -> None:
    def change(tree: Path) -> None:
        for name in ("console", "ptmx", "pts", "shm", "fd", "null"):
            (tree / "dev" / name).symlink_to(target.replace("SENTINEL", str(sentinel.path)))

    make_image("evil", change)
    status, text = on_a_terminal(minidock, *RUN, "-t", "evil", "sh", "-c", CONSOLE)
    assert (status, text.splitlines()) == (0, ["/dev/pts/0", "88:0", "88:0", "/dev/pts/0"])


def test_row_05_a_terminal_of_another_container_is_refused(minidock: Any) -> None:
    """Where /dev/pts is a person's volume, another container may have put anything there as the multiplexer."""
    for make in ("mknod /d/ptmx c 1 5", "echo text >/d/ptmx", "mkfifo /d/ptmx", "ln -s /proc/self/mem /d/ptmx"):
        minidock(*RUN, "-v", "pts:/d", "busybox", "sh", "-c", f"rm -f /d/*; {make}")
        status, text = on_a_terminal(minidock, *RUN, "-t", "-v", "pts:/dev/pts", "busybox", "sh", "-c", CONSOLE)
        assert status == 125, (make, text)


@pytest.mark.race
def test_row_05_the_place_of_terminals_swapped_during_starts(
    minidock: Any, build_static: Callable[..., Path], seconds: float
) -> None:
    minidock(
        *RUN, "-v", "dev:/d", "busybox", "sh", "-c", "mkdir /d/pts; ln -s /proc/self/attr /d/other; touch /d/console"
    )
    data = minidock.root / "volumes/dev/_data"
    script = f"{CONSOLE}; cat /proc/self/mountinfo"
    outcomes = set()
    with background(build_static("swapper"), data / "pts", data / "other"):
        for _ in until(seconds):
            status, text = on_a_terminal(minidock, *RUN, "-t", "-v", "dev:/dev", "busybox", "sh", "-c", script)
            outcomes.add(status)
            assert status in (0, 125), text
            assert strange(mounts_of(text)) == []
    assert 125 in outcomes


# Row 6


@pytest.mark.race
def test_row_06_what_the_engine_writes_to_proc_goes_to_the_containers_own(
    minidock: Any, build_static: Callable[..., Path], seconds: float
) -> None:
    """A target below a shared volume is now a directory, now a link into /proc: nothing is ever mounted there, so that
    host name, score and kernel parameters, which are written after the mounts, are the container's."""
    setup = "mkdir -p /s/d; ln -s /proc/self/attr /s/l; ln -s /proc/sys/kernel /s/k"
    minidock(*RUN, "-v", "shared:/s", "busybox", "sh", "-c", setup)
    data = minidock.root / "volumes/shared/_data"
    script = "hostname; cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ping_group_range /proc/self/mountinfo"
    flags = ("-v", "shared:/s", "-v", "payload:/s/d", "--tmpfs", "/s/d/deep", "-h", "given-name")
    outcomes = set()
    with background(build_static("swapper"), data / "d", data / "l"):
        for number in until(seconds):
            if number % 50 == 25:
                subprocess.run(["mv", "-T", "--exchange", data / "l", data / "k"], capture_output=True)
            done = minidock(*RUN, *flags, "busybox", "sh", "-c", script, status=None)
            outcomes.add(done.returncode)
            if done.returncode:
                assert done.returncode == 125
                continue
            lines = done.stdout.splitlines()
            assert (lines[0], lines[1], lines[2].split()) == ("given-name", "0", ["0", "2147483647"])
            assert strange(mounts_of(done.stdout)) == []
    assert outcomes == {0, 125}


# Row 7


@pytest.mark.parametrize("path", ["/proc", "/proc/self", "//proc//sys", "/x/../proc/kcore"])
def test_row_07_an_image_puts_no_volume_over_proc(minidock: Any, context: Any, path: str) -> None:
    folder = context(f'FROM busybox\nVOLUME ["{path}"]\n')
    if minidock("build", "-t", "evil", folder, status=None).returncode == 0:
        done = minidock("run", "--rm", "--network", "none", "evil", "true", status=125)
        assert "/proc" in done.stderr
    assert minidock.out("ps", "-aq") == ""
    assert minidock.out("volume", "ls", "-q") == ""


@pytest.mark.parametrize("kind", ["-v", "--tmpfs", "--mount"])
def test_row_07_nor_does_a_flag(minidock: Any, kind: str) -> None:
    for path in ("/proc", "/proc//sys", "/proc/./self", "/a/../proc/sys/kernel", "/proc/cpuinfo/../sys"):
        value = {"-v": f"vol:{path}", "--tmpfs": path, "--mount": f"type=tmpfs,dst={path}"}[kind]
        assert "/proc" in minidock(*RUN, kind, value, "busybox", "true", status=125).stderr
    assert minidock.out("volume", "ls", "-q") == ""


@pytest.mark.parametrize("target", ["/proc", "../../proc", "/proc/1/root/proc/sys"])
def test_row_07_nor_a_link_of_the_image(minidock: Any, make_image: Callable[..., None], target: str) -> None:
    make_image("evil", lambda tree: (tree / "link").symlink_to(target), 'VOLUME ["/link"]')
    done = minidock(*RUN, "evil", "true", status=125)
    assert "/proc" in done.stderr or "links" in done.stderr or "link" in done.stderr
    for name in ("/link/sys", "/link/self", "/link/kernel"):
        minidock(*RUN, "--tmpfs", name, "evil", "true", status=125)


# Row 8


@pytest.mark.race
def test_row_08_a_mount_target_swapped_during_starts(
    minidock: Any, build_static: Callable[..., Path], sentinel: Any, seconds: float
) -> None:
    """A directory of a shared volume and a link to the host's take turns at the place where others mount."""
    minidock(*RUN, "-v", "shared:/s", "busybox", "sh", "-c", f"mkdir -p /s/d; ln -s {sentinel.path} /s/l")
    data = minidock.root / "volumes/shared/_data"
    payload = minidock("volume", "create", "payload").stdout.strip()
    (minidock.root / "volumes/payload/_data/payload").write_text("payload")
    flags = ("-v", "shared:/s", "-v", f"{payload}:/s/d/sub")
    places = set()
    with background(build_static("swapper"), data / "d", data / "l"):
        for _ in until(seconds):
            done = minidock(*RUN, *flags, "busybox", "cat", "/proc/self/mountinfo", status=None)
            assert done.returncode in (0, 125), done.stderr
            assert strange(mounts_of(done.stdout)) == []
            places |= {point for point in mounts_of(done.stdout) if point.endswith("/sub")}
    # Both of them lie inside: the link's absolute target is looked for, and made, in the container's own tree.
    assert places <= {"/s/d/sub", "/s/l/sub", f"{sentinel.path}/sub"}
    assert places & {"/s/d/sub", "/s/l/sub"}


def attach_often(root: Path, count: int) -> str:
    """Attach mounts at "d/sub" of a root, where somebody swaps "d": "inside", or "outside" and where, and errors."""
    out, into = os.pipe()

    def child() -> None:
        km.mount("none", "/", "", km.MS_PRIVATE | km.MS_REC)
        context = ChildContext(cgroup=None, stdio=None, trampoline=-1, console=-1, report=-1)  # type: ignore[arg-type]
        context.root = os.open(root, os.O_PATH | os.O_DIRECTORY)
        seen = set()
        for number in range(count):
            tree = km.new_mount("tmpfs")
            try:
                context.attach(tree, f"/d/sub{number % 3}", directory=True)
                place = os.readlink(f"/proc/self/fd/{tree}")
                seen.add("inside" if place.startswith(f"{root}/") else f"outside:{place}")
                km.umount2(f"/proc/self/fd/{tree}", km.MNT_DETACH)
            except OSError as error:
                seen.add(type(error).__name__)
            os.close(tree)
        os.write(into, " ".join(sorted(seen)).encode())

    with process.spawn(child, flags=ns.CLONE_NEWNS) as born:
        os.close(into)
        with open(out) as file:
            answer = file.read()
        born.wait()
    return answer


def test_row_08_ten_thousand_mounts_at_a_place_that_is_swapped(
    build_static: Callable[..., Path], tmp_path: Path, sentinel: Any
) -> None:
    root = tmp_path / "rootfs"
    (root / "d").mkdir(parents=True)
    (root / "l").symlink_to(sentinel.path)
    with background(build_static("swapper"), root / "d", root / "l"):
        answer = attach_often(root, ITERATIONS)
    assert set(answer.split()) - {"FileNotFoundError", "OSError", "NotADirectoryError", "FileExistsError"} == {"inside"}


# Rows 9 and 10

STRICT = ["SENTINEL", "/../../etc", "x"]


@pytest.mark.parametrize("target", [*STRICT, None])
@pytest.mark.parametrize("name", ["proc", "sys"])
def test_row_09_proc_and_sys_are_ordinary_directories(
    minidock: Any, make_image: Callable[..., None], sentinel: Any, name: str, target: str | None
) -> None:
    def change(tree: Path) -> None:
        (tree / name).rmdir()
        (tree / "x").mkdir()
        if target is None:
            (tree / name).write_text("a file")
        else:
            (tree / name).symlink_to(target.replace("SENTINEL", str(sentinel.path)))

    make_image("evil", change)
    assert "ordinary directory" in minidock(*RUN, "evil", "true", status=125).stderr


@pytest.mark.parametrize("target", [*STRICT, "/../../dev", None])
def test_row_10_dev_is_an_ordinary_directory(
    minidock: Any, make_image: Callable[..., None], sentinel: Any, target: str | None
) -> None:
    def change(tree: Path) -> None:
        (tree / "dev").rmdir()
        if target is None:
            (tree / "dev").write_text("a file")
        else:
            (tree / "dev").symlink_to(target.replace("SENTINEL", str(sentinel.path)))

    make_image("evil", change)
    assert "ordinary directory" in minidock(*RUN, "evil", "true", status=125).stderr
    # With a person's mount below it, the link is followed inside the container, and no node of the host is made.
    minidock(*RUN, "-v", "vol:/dev/shm", "evil", "true", status=125)


@pytest.mark.parametrize(
    "target", ["SENTINEL/secret", "SENTINEL/new", "/../../SENTINEL/secret", "/proc/sys/kernel/hostname"]
)
def test_row_10_generated_files_behind_links_of_the_image(
    minidock: Any, make_image: Callable[..., None], sentinel: Any, target: str
) -> None:
    """They are bound over whatever lies there inside; nothing of the host is written, opened or made."""

    def change(tree: Path) -> None:
        for name in ("hosts", "hostname", "resolv.conf"):
            (tree / "etc" / name).symlink_to(target.replace("SENTINEL", str(sentinel.path)))

    make_image("evil", change)
    done = minidock("run", "--rm", "evil", "cat", "/etc/hosts", "/etc/resolv.conf", status=None)
    assert sentinel.secret not in done.stdout
    assert done.returncode in (0, 125)
    if done.returncode:
        assert "link" in done.stderr or "/proc" in done.stderr


def test_row_10_a_whole_etc_that_is_a_link_to_the_hosts(
    minidock: Any, make_image: Callable[..., None], sentinel: Any
) -> None:
    def change(tree: Path) -> None:
        (tree / "etc").rename(tree / "usr-etc")
        (tree / "etc").symlink_to(sentinel.path)

    make_image("evil", change)
    done = minidock("run", "--rm", "evil", "ls", "/etc/", status=None)
    assert done.returncode in (0, 125)
    assert "secret" not in done.stdout
