"""Rows 58 to 65, 69 and 71 of SECURITY.md, section 2: the kernel's doors from inside a default container, the engine's
sockets, what is printed on a terminal, and volumes.

The golden probes are in tests/integration/test_probes.py; here the same doors are tried by the ways of known escapes,
with the host's parameters compared before and after.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.attack.tools import reachable

RUN = ("run", "--rm", "--network", "none")
DOCUMENT = Path(__file__).resolve().parents[3] / "docs/security.md"


def sh(minidock: Any, script: str, *flags: str | Path, image: str = "busybox", status: int | None = 0) -> str:
    done = minidock(*RUN, *flags, image, "sh", "-c", script, status=status)
    return str((done.stdout + done.stderr).rstrip("\n"))


@pytest.fixture
def calls(minidock: Any, build_static: Callable[..., Path]) -> Callable[..., dict[str, int]]:
    """The errno of system calls made inside, by what was asked; see src/sysprobe.c."""
    program = build_static("sysprobe")

    def run(*asked: str, flags: tuple[str, ...] = ()) -> dict[str, int]:
        mount = f"type=bind,src={program},dst=/sysprobe,ro"
        out = minidock.out(*RUN, *flags, "--mount", mount, "busybox", "/sysprobe", *asked)
        return {name: int(number) for name, number in (line.rsplit(" ", 1) for line in out.splitlines())}

    return run


PARAMETERS = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/poweroff_cmd",
    "/proc/sys/vm/panic_on_oom",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sysrq-trigger",
    "/proc/irq/0/smp_affinity",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
    "/sys/class/net/lo/ifalias",
    "/sys/fs/cgroup/cgroup.procs",
)


def test_row_58_the_hosts_parameters_are_out_of_reach(minidock: Any) -> None:
    attempts = "; ".join(f"[ ! -e {path} ] || (echo '|/x' > {path}) 2>&1" for path in PARAMETERS)
    remounts = "; ".join(
        f"mount -o remount,{how} {where} 2>&1 && echo MOUNTED"
        for where in ("/proc/sys", "/proc/sysrq-trigger", "/proc", "/sys", "/sys/fs/cgroup")
        for how in ("rw", "bind,rw")
    )
    others = (
        "mount -t proc proc /mnt 2>&1 && echo MOUNTED; mount -t sysfs sysfs /mnt 2>&1 && echo MOUNTED;"
        "umount /proc/sys 2>&1 && echo MOUNTED; umount -l /proc/kcore 2>&1 && echo MOUNTED;"
        "mount --move /proc/sys /mnt 2>&1 && echo MOUNTED"
    )
    said = sh(minidock, f"mkdir -p /mnt; {attempts}; {remounts}; {others}; true")
    assert "MOUNTED" not in said
    lines = said.splitlines()
    assert len(lines) >= 20
    refusals = re.compile("Read-only file system|ermission denied|not permitted|nvalid argument|nonexistent|can't find")
    assert [line for line in lines if not refusals.search(line)] == []


def test_row_59_release_agent(minidock: Any) -> None:
    """CVE-2022-0492: a cgroup mount of one's own, whose release agent the kernel runs as the host's root."""
    script = (
        "unshare -Urm true; unshare -r true; unshare -m true; unshare -i true; mkdir -p /mnt;"
        "for c in memory rdma devices pids; do mount -t cgroup -o $c cgroup /mnt && echo MOUNTED; done;"
        "mount -t cgroup2 none /mnt && echo MOUNTED; find / -xdev -name release_agent 2>/dev/null;"
        "for f in /sys/fs/cgroup/release_agent /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/notify_on_release; do"
        " [ ! -e $f ] || echo /x > $f; done; true"
    )
    said = sh(minidock, script)
    assert "MOUNTED" not in said
    assert said.count("peration not permitted") + said.count("ermission denied") >= 8
    assert "release_agent" not in said or "Read-only" in said or "nonexistent" in said


def test_row_60_the_cgroup_cannot_be_left(minidock: Any) -> None:
    script = (
        "cat /proc/self/cgroup; cd /sys/fs/cgroup;"
        "for d in . .. ../.. * */..; do echo $$ > $d/cgroup.procs; mkdir $d/evil; echo max > $d/pids.max; done 2>&1"
    )
    said = sh(minidock, script, status=None)
    groups = [line.split(":", 2)[2] for line in said.splitlines() if re.match(r"\d+:[^:]*:/", line)]
    assert set(groups) == {"/"}, "it sees itself at the root of its cgroups"
    assert "Read-only file system" in said
    # Other groups come and go meanwhile.
    found = subprocess.run(["find", "/sys/fs/cgroup", "-name", "evil"], stdout=subprocess.PIPE, text=True)
    assert found.stdout == ""
    for parent in ("../..", "/../../x", "a/../../b"):
        assert minidock("run", "--rm", "--cgroup-parent", parent, "busybox", "true", status=125).stderr


SYSCTLS = (
    "kernel.shm_rmid_forced=1+kernel.core_pattern=|/evil",
    "kernel.core_pattern=|/evil",
    "kernel/core_pattern=|/evil",
    "net/../kernel/core_pattern=|/evil",
    "net.../kernel.core_pattern=|/evil",
    "net.ipv4/../../kernel/core_pattern=|/evil",
    "fs.mqueue/../../kernel/core_pattern=|/evil",
    "kernel.modprobe=/evil",
    "vm.overcommit_memory=1",
    "/proc/sys/kernel/core_pattern=|/evil",
    "=x",
    "kernel.shm_rmid_forced",
)


def test_row_61_sysctls_are_one_value_of_an_allowed_name(minidock: Any) -> None:
    allowed = ("--sysctl", "kernel.shm_rmid_forced=1", "busybox", "cat", "/proc/sys/kernel/shm_rmid_forced")
    assert minidock.out(*RUN, *allowed) == "1"
    for setting in SYSCTLS:
        done = minidock(*RUN, "--sysctl", setting, "busybox", "true", status=None)
        assert done.returncode != 0, setting
        assert "sysctl" in done.stderr.lower() or "shm_rmid_forced" in done.stderr
    assert minidock.out("ps", "-aq") == ""


def test_row_61_a_line_break_begins_no_second_setting(minidock: Any) -> None:
    """The kernel may take the first number of such a value; the host's parameters are compared in any case."""
    setting = "kernel.shm_rmid_forced=1\nkernel.core_pattern=|/evil"
    show = "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/kernel/core_pattern"
    done = minidock(*RUN, "--sysctl", setting, "busybox", "sh", "-c", show, status=None)
    assert "evil" not in done.stdout
    assert done.returncode == 125 or done.stdout.startswith("1\n")


CLONE_NEWUSER = 0x10000000
# By name: the number on x86_64 (x32 has the same but for its bit), the number on i386, and arguments.
CALLS = {
    "unshare": (272, 310, f"{CLONE_NEWUSER}"),
    "clone": (56, 120, f"{CLONE_NEWUSER | 17}:0:0:0:0"),
    "mount": (165, 21, "@none:@/tmp:@tmpfs:0:0"),
    "umount2": (166, 52, "@/proc:2"),
    "fsopen": (430, 430, "@tmpfs:0"),
    "fsmount": (432, 432, "-1:0:0"),
    "open_tree": (428, 428, "-1:@/:1"),
    "move_mount": (429, 429, "-1:@:-1:@:0"),
    "mount_setattr": (442, 442, "-1:@/:0:@:32"),
    "pivot_root": (155, 217, "@/tmp:@/tmp"),
    "setns": (308, 346, "-1:0"),
    "keyctl": (250, 288, "0:-3:0:0:0"),
    "add_key": (248, 286, "@user:@x:@y:1:-3"),
    "request_key": (249, 287, "@user:@x:0:-3"),
    "io_uring_setup": (425, 425, "1:@"),
    "io_uring_enter": (426, 426, "-1:0:0:0:0:0"),
    "io_uring_register": (427, 427, "-1:0:0:0"),
    "bpf": (321, 357, "0:@:64"),
    "userfaultfd": (323, 374, "0"),
    "open_by_handle_at": (304, 342, "-1:@:0"),
    "perf_event_open": (298, 336, "@:0:-1:-1:0"),
    "kexec_load": (246, 283, "0:0:0:0"),
    "init_module": (175, 128, "@:0:@"),
    "finit_module": (313, 350, "-1:@:0"),
    "delete_module": (176, 129, "@x:0"),
    "swapon": (167, 87, "@/tmp:0"),
    "acct": (163, 51, "@/tmp/x"),
    "syslog": (103, 103, "3:@:10"),
    "settimeofday": (164, 79, "@:0"),
    "quotactl": (179, 131, "0:@:0:@"),
    "iopl": (172, 110, "3"),
    "ioperm": (173, 101, "0:1:1"),
}
# x32 has numbers of its own for calls whose arguments hold pointers in memory.
X32_OWN = {"kexec_load": 528}


@pytest.mark.parametrize("abi", ["x86_64", "i386", "x32"])
def test_rows_62_and_63_refused_on_every_abi(calls: Callable[..., dict[str, int]], abi: str) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("the other ABIs are x86_64's")
    asked = {}
    for name, (number, number_32, arguments) in CALLS.items():
        chosen = {"x86_64": number, "i386": number_32, "x32": X32_OWN.get(name, number)}[abi]
        asked[f"{abi}:{chosen}:{arguments}"] = name
    found = calls(*asked)
    answers = {asked[key]: errno.errorcode.get(value, str(value)) for key, value in found.items()}
    refusals = {"EPERM", "ENOSYS"}
    assert {name: answer for name, answer in answers.items() if answer not in refusals} == {}
    assert len(answers) == len(CALLS)


@pytest.mark.parametrize("abi", ["x86_64", "i386", "x32"])
def test_row_62_clone3_is_unknown_on_every_abi(calls: Callable[..., dict[str, int]], abi: str) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("the other ABIs are x86_64's")
    asked = f"{abi}:435:@:88"
    assert calls(asked) == {asked: errno.ENOSYS}


def test_row_64_families_that_are_not_for_containers(calls: Callable[..., dict[str, int]]) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("the other ABIs are x86_64's")
    alg, vsock = 38, 40
    asked = []
    for family in (alg, vsock):
        for value in (family, family | 1 << 32, family | 5 << 40, family - (1 << 32)):
            asked.append(f"x86_64:41:{value:#x}:5:0" if value >= 0 else f"x86_64:41:{value}:5:0")
        asked += [f"x32:41:{family}:5:0", f"i386:359:{family}:5:0", f"x86_64:53:{family}:5:0:@"]
    asked = [call for call in asked if ":53:" not in call]
    assert calls(*asked) == dict.fromkeys(asked, errno.EPERM)
    ordinary = ("x86_64:41:2:1:0", "i386:359:2:1:0")
    assert calls(*ordinary) == dict.fromkeys(ordinary, 0)


def test_row_64_what_32_bit_programs_can_still_reach_is_documented() -> None:
    """socketcall's family lies behind a pointer that no filter follows."""
    assert DOCUMENT.exists(), "docs/security.md says what the sandbox does not promise"
    assert "socketcall" in DOCUMENT.read_text()


def test_row_65_the_engine_has_no_abstract_sockets(minidock: Any) -> None:
    """CVE-2020-15257: with the host's network, abstract sockets of the engine would be open to the container."""

    def abstract() -> set[str]:
        lines = Path("/proc/net/unix").read_text().splitlines()[1:]
        return {fields[7] for fields in map(str.split, lines) if len(fields) > 7 and fields[7].startswith("@")}

    before = abstract()
    minidock("run", "-d", "-i", "--name", "it", "--network", "host", "busybox", "sleep", "1000")
    minidock("exec", "it", "true")
    assert abstract() <= before
    pid = minidock.inspect("it")["State"]["Pid"]
    inner = minidock.out("exec", "it", "cat", "/proc/net/unix")
    paths = [line.split()[7] for line in inner.splitlines()[1:] if len(line.split()) > 7 and "minidock" in line]
    own = [path for path in paths if path.startswith("/") and Path(path).exists()]
    run = Path("/run/minidock")
    sockets = [path for path in run.rglob("*") if path.is_socket()] + [
        path for path in minidock.root.rglob("*") if path.is_socket()
    ]
    assert sockets, own
    for path in sockets:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or not reachable(path), path
        assert minidock("exec", "it", "ls", path, status=None).returncode != 0
    assert pid > 0


EVIL = "\x1b[2J\x1b]52;c;eA==\x07\x9b31m\u202egnp\r\x08"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def test_row_69_nothing_drives_the_terminal(minidock: Any, context: Callable[..., Path], tmp_path: Path) -> None:
    """Names, labels, commands, messages and errors with escape sequences: escaped wherever a person reads them."""
    text, escaped = EVIL.replace("\r", ""), "".join(f"\\u{ord(char):04x}" for char in EVIL)
    lines = ["FROM busybox", f'LABEL "evil{text}"="x{text}"', f'ENV E="{text}"', f"RUN : {text}", f'CMD ["{escaped}"]']
    folder = context("\n".join(lines))
    said = [minidock("build", "-t", "evil", folder, status=None)]
    minidock.build(context(f"FROM busybox\nRUN : {text}\nENV E=x{text}\n"), "-t", "evil")
    tar = tmp_path / f"evil{text}.tar"
    tar.write_bytes(bytes(512))
    minidock("create", "--name", "it", "--label", f"l{text}=v{text}", "-e", f"E={text}", "evil", "echo", text)
    minidock("run", "-d", "--name", "up", "--network", "none", "evil", "sh", "-c", f": {text}; sleep 1000")
    minidock("volume", "create", "--label", f"l{text}=v{text}", "data")
    (minidock.root / "images" / f"blobs/sha256/{EVIL}").write_bytes(b"")
    for command in (
        ("images",),
        ("images", "--no-trunc"),
        ("history", "evil"),
        ("history", "--no-trunc", "evil"),
        ("ps", "-a", "--no-trunc"),
        ("ps", "-a", "--format", "{{.Command}} {{.Labels}}"),
        ("inspect", "it"),
        ("inspect", "evil"),
        ("volume", "inspect", "data"),
        ("volume", "ls"),
        ("system", "check"),
        ("info",),
        ("explain", "run", "evil", text),
        ("--debug", "run", "--rm", "--network", "none", "evil", "true", text),
        ("import", tar),
        ("import", "-m", text, tar, "bad"),
        ("run", "--rm", "--network", "none", "busybox", f"/no{text}"),
        ("run", "--rm", "-v", f"{text}:/x", "busybox", "true"),
        ("run", "--rm", "--mount", f"type=bind,src=/no{text},dst=/x", "busybox", "true"),
        ("run", "--rm", f"no-such-image{text}", "true"),
        ("run", f"--no-such{text}", "busybox"),
        ("run", "--rm", "-u", text, "busybox", "true"),
        ("run", "--rm", "--name", text, "busybox", "true"),
        ("exec", f"nobody{text}", "true"),
        ("exec", "up", f"/no{text}"),
        ("rm", text),
        ("rmi", text),
        ("tag", "busybox", text),
        ("volume", "rm", text),
        ("build", "-f", text, folder),
        ("build", tmp_path / text),
        ("build", context(f"FROM no{text}\n")),
        ("build", context(f"FROM busybox\nNO{text} x\n")),
        ("build", context(f"FROM busybox\nCOPY no{text} /\n")),
        ("build", context(f"# syntax={text}\n# check={text}\nFROM busybox AS {text}\n")),
        ("build", context("FROM busybox\nCOPY . /\n", {f"f{text}": "x"})),
        (text,),
        ("help", text),
    ):
        said.append(minidock(*command, status=None))
    (minidock.root / "images" / f"blobs/sha256/{EVIL}").unlink()
    for done in said:
        found = CONTROL.search(done.stdout) or CONTROL.search(done.stderr)
        assert found is None, (done.args[1:], found)


def test_row_69_logs_are_what_was_written(minidock: Any) -> None:
    """And only they are not escaped."""
    minidock("run", "--name", "it", "--network", "none", "busybox", "printf", "\\033[31m")
    assert minidock("logs", "it").stdout == "\x1b[31m"


def test_row_71_a_volume_that_holds_something_is_never_written_over(
    minidock: Any, context: Callable[..., Path], sentinel: Any
) -> None:
    dockerfile = (
        "FROM busybox\nRUN mkdir -p /d/sub && echo image > /d/file && echo image > /d/sub/file && chmod 777 /d"
        f" && chown 5:5 /d && ln -s {sentinel.path} /l && ln -s ../.. /d/up\n"
    )
    minidock.build(context(dockerfile), "-t", "filled")
    data = minidock.root / "volumes/data/_data"
    minidock("volume", "create", "data")
    (data / "file").write_text("mine\n")
    before = data.stat()
    sh(minidock, "true", "-v", "data:/d", image="filled")
    assert [path.name for path in data.iterdir()] == ["file"]
    assert (data / "file").read_text() == "mine\n"
    assert (data.stat().st_mode, data.stat().st_uid) == (before.st_mode, before.st_uid)
    # A link in the volume counts, too, and leads nowhere.
    (data / "file").unlink()
    (data / "sub").symlink_to(sentinel.path)
    (data / "dangling").symlink_to(sentinel.path / "planted")
    sh(minidock, "true", "-v", "data:/d", image="filled")
    assert sorted(path.name for path in data.iterdir()) == ["dangling", "sub"]
    # Over a link of the image: inside the image, where it leads to nothing.
    assert "dangling symbolic link" in sh(minidock, "echo x > /l/planted", "-v", "fresh:/l", image="filled", status=125)
    assert list((minidock.root / "volumes/fresh/_data").iterdir()) == []
    sh(minidock, "true", "-v", "empty:/d", image="filled")
    assert (minidock.root / "volumes/empty/_data/sub/file").read_text() == "image\n"
