"""The flags that make the sandbox wider or narrower, seen from inside a container and in its record."""

from __future__ import annotations

import json
import os
import re
import resource
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from minidock.kernel import lsm
from minidock.runtime.seccomp_default import ALWAYS, BY_MACHINE
from tests.integration.test_explain import normal

LIMIT_FILE = "/proc/self/limits"
DENY_MKDIR = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [
        {"names": ["mkdir", "mkdirat", "no_such_call", "nor_this"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
        {"names": ["chdir"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_CHROOT"]}},
    ],
}


@pytest.fixture
def profile(tmp_path: Path):
    """Write a profile; gives its path."""

    def write(value: Any) -> Path:
        path = tmp_path / "profile.json"
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
        return path

    return write


def sh(minidock, script: str, *flags: str | Path, network: str = "none", status: int | None = 0) -> str:
    done = minidock("run", "--rm", "--network", network, *flags, "busybox", "sh", "-c", script, status=status)
    return done.stdout.rstrip("\n") + done.stderr.rstrip("\n")


def refused(minidock, *flags: str | Path, verb: str = "run") -> str:
    """What a container with these flags is refused with: one sentence, perhaps a hint, status 125, nothing left."""
    done = minidock(verb, "--network", "none", *flags, "busybox", "true", status=125)
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 2, done.stderr
    assert done.stdout == ""
    assert minidock.out("ps", "-aq") == "" or verb == "run"
    return str(lines[0])


def limits(text: str) -> dict[str, tuple[str, str]]:
    """/proc/PID/limits as name to soft and hard limit."""
    return {line[:26].strip(): (line[26:47].strip(), line[47:68].strip()) for line in text.splitlines()[1:]}


class TestSeccomp:
    def test_a_profile_decides(self, minidock, profile) -> None:
        path = profile(DENY_MKDIR)
        script = "mkdir /x; grep Seccomp: /proc/self/status; cd /tmp && pwd"
        output = sh(minidock, script, "--security-opt", f"seccomp={path}")
        assert "mkdir: can't create directory '/x': No space left on device" in output
        assert "Seccomp:\t2" in output
        assert "/tmp" in output
        output = sh(minidock, "cd /tmp", "--security-opt", f"seccomp={path}", "--cap-drop", "SYS_CHROOT", status=None)
        assert "Operation not permitted" in output

    def test_the_container_keeps_it(self, minidock, profile) -> None:
        path = profile(DENY_MKDIR)
        run = ("busybox", "sh", "-c", "mkdir /x; sleep 100")
        minidock("create", "--name", "one", "--network", "none", "--security-opt", f"seccomp={path}", *run)
        kept = minidock.root / "containers" / minidock.inspect("one")["Id"] / "seccomp.json"
        assert kept.read_bytes() == path.read_bytes()
        assert stat.S_IMODE(kept.stat().st_mode) & 0o022 == 0
        path.unlink()
        for _ in range(2):
            minidock("start", "one")
            executed = minidock("exec", "one", "mkdir", "/y", status=1)
            assert "No space left on device" in executed.stderr
            minidock("stop", "-t", "0", "one")
        assert minidock("logs", "one").stderr.count("No space left on device") == 2

    def test_a_relative_path_and_the_older_form(self, minidock, profile) -> None:
        path = profile(DENY_MKDIR)
        for option in (f"seccomp={path.name}", f"seccomp:{path}"):
            arguments = ("run", "--rm", "--network", "none", "--security-opt", option, "busybox", "mkdir", "/x")
            assert "No space left" in minidock(*arguments, cwd=path.parent, status=1).stderr

    def test_inspect_tells_its_text(self, minidock, profile) -> None:
        path = profile(json.dumps(DENY_MKDIR, indent=4).encode())
        options = ("--security-opt", f"seccomp={path}", "--security-opt", "no-new-privileges")
        minidock("create", "--name", "one", *options, "busybox", "true")
        (first, second) = minidock.inspect("one")["HostConfig"]["SecurityOpt"]
        assert second == "no-new-privileges"
        assert json.loads(first.removeprefix("seccomp=")) == DENY_MKDIR
        assert " " not in first

    def test_unknown_names_are_told_with_debug(self, minidock, profile) -> None:
        option = ("--security-opt", f"seccomp={profile(DENY_MKDIR)}")
        done = minidock("--debug", "run", "--rm", "--network", "none", *option, "busybox", "true")
        (line,) = [line for line in done.stderr.splitlines() if "system calls" in line]
        assert line.endswith("no system calls of this machine: no_such_call nor_this")
        assert minidock("run", "--rm", "--network", "none", *option, "busybox", "true").stderr == ""

    def test_unconfined(self, minidock) -> None:
        assert "Seccomp:\t0" in sh(minidock, "grep Seccomp: /proc/self/status", "--security-opt", "seccomp=unconfined")

    def test_privileged_with_a_profile_has_it(self, minidock, profile) -> None:
        flags = ("--privileged", "--security-opt", f"seccomp={profile(DENY_MKDIR)}")
        assert "No space left on device" in sh(minidock, "mkdir /x", *flags, status=None)

    @pytest.mark.parametrize("further", [(), ("--security-opt", "no-new-privileges"), ("-u", "1000")])
    def test_one_that_is_older_than_the_calls_of_a_new_libc(self, minidock, profile, further: tuple[str, ...]) -> None:
        """What is left of the start under the filter are calls that every profile has: any other would be killed."""
        newer = {"close_range", "faccessat2", "openat2", "pidfd_open", "pidfd_send_signal", "clone3", "fchmodat2"}
        names = [name for name in f"{ALWAYS} {' '.join(BY_MACHINE.values())}".split() if name not in newer]
        allowed = {"names": [*names, "clone"], "action": "SCMP_ACT_ALLOW"}
        path = profile({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [allowed]})
        flags = ("--network", "none", "--security-opt", f"seccomp={path}", *further)
        assert minidock.out("run", "--rm", *flags, "busybox", "echo", "hi") == "hi"
        minidock("run", "-d", "--name", "one", *flags, "busybox", "sleep", "1000")
        assert minidock.out("exec", "one", "echo", "hi") == "hi"

    def test_the_copy_is_nothing_strange_to_a_check(self, minidock, profile) -> None:
        minidock("create", "--name", "one", "--security-opt", f"seccomp={profile(DENY_MKDIR)}", "busybox", "true")
        minidock("system", "check")
        minidock("rm", "one")
        assert os.listdir(minidock.root / "containers") == ["by-name"]

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "is empty or larger"),
            (b'{"defaultAction": }', "it is not JSON: expecting value in line 1, column 19"),
            (b"[]", "the profile is not a JSON object"),
            (b'{"defaultAction": "SCMP_ACT_MAYBE"}', "unknown action 'SCMP_ACT_MAYBE'"),
            (b'{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]}', "unknown architecture 'z80'"),
        ],
    )
    @pytest.mark.parametrize("verb", ["run", "create"])
    def test_what_is_no_profile(self, minidock, profile, content: bytes, words: str, verb: str) -> None:
        path = profile(content)
        said = refused(minidock, "--security-opt", f"seccomp={path}", verb=verb)
        assert str(path) in said
        assert words in said
        assert minidock.out("ps", "-aq") == ""

    def test_a_profile_that_is_not_there(self, minidock, tmp_path: Path) -> None:
        said = refused(minidock, "--security-opt", f"seccomp={tmp_path}/absent.json", verb="create")
        assert said.endswith(f"cannot read the seccomp profile '{tmp_path}/absent.json': no such file or directory")

    def test_podman_s_profile_runs_a_container(self, minidock) -> None:
        path = Path("/usr/share/containers/seccomp.json")
        if not path.exists():
            pytest.skip("podman's profile is not installed here")
        script = "mkdir /x && echo made; unshare -m true; mount -t tmpfs none /tmp"
        output = sh(minidock, script, "--security-opt", f"seccomp={path}", status=None)
        assert output.startswith("made")
        assert output.count("Operation not permitted") + output.count("permission denied") == 2


class TestSecurityOptions:
    def test_system_paths(self, minidock) -> None:
        script = (
            "(echo x >/proc/sys/kernel/domainname) 2>/dev/null && cat /proc/sys/kernel/domainname; "
            "grep -c ' /proc/' /proc/self/mounts"
        )
        masked = sh(minidock, script, status=None)
        bare = sh(minidock, script, "--security-opt", "systempaths=unconfined", status=None)
        assert int(masked) >= 5
        assert bare.split() == ["x", "0"]
        assert Path("/proc/sys/kernel/domainname").read_text() != "x\n"

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("no-new-privileges", "1"),
            ("no-new-privileges:true", "1"),
            ("no-new-privileges=true", "1"),
            ("no-new-privileges=false", "0"),
        ],
    )
    def test_no_new_privileges(self, minidock, option: str, value: str) -> None:
        script = "grep NoNewPrivs /proc/self/status"
        assert sh(minidock, script, "--security-opt", option) == f"NoNewPrivs:\t{value}"

    @pytest.mark.parametrize(
        "option",
        [
            *("nonsense", "no-new-privileges=maybe", "systempaths=confined", "seccomp=", "label=colour:red", ""),
            "apparmor=",
        ],
    )
    def test_what_is_not_known(self, minidock, option: str) -> None:
        said = refused(minidock, "--security-opt", option)
        assert said.endswith(f"unsupported value {option!r} for --security-opt")

    def test_modules_that_the_host_has_not(self, minidock) -> None:
        assert (
            sh(minidock, "echo hi", "--security-opt", "apparmor=unconfined", "--security-opt", "label=disable") == "hi"
        )
        if not lsm.has_apparmor():
            said = refused(minidock, "--security-opt", "apparmor=docker-default")
            assert said.endswith("cannot use --security-opt apparmor=docker-default: this host has no AppArmor")
        if not lsm.has_selinux():
            said = refused(minidock, "--security-opt", "label=type:container_t")
            assert said.endswith("cannot use --security-opt label=type:container_t: this host has no SELinux")

    def test_an_apparmor_profile_that_is_not_loaded(self, minidock) -> None:
        if not lsm.has_apparmor():
            pytest.skip("this kernel has no AppArmor at work")
        assert "loaded" in refused(minidock, "--security-opt", "apparmor=minidock-no-such-profile")


class TestUlimits:
    def test_inside_and_of_further_commands(self, minidock) -> None:
        flags = ("--ulimit", "nofile=100:200", "--ulimit", "core=4096", "--ulimit", "nproc=50", "--ulimit", "cpu=-1")
        minidock("run", "-d", "--name", "one", "--network", "none", *flags, "busybox", "sleep", "1000")
        for text in (
            minidock.out("exec", "one", "cat", LIMIT_FILE),
            minidock.out("exec", "one", "cat", "/proc/1/limits"),
        ):
            found = limits(text)
            assert found["Max open files"] == ("100", "200")
            assert found["Max core file size"] == ("4096", "4096")
            assert found["Max processes"] == ("50", "50")
            assert found["Max cpu time"] == ("unlimited", "unlimited")
        assert minidock.inspect("one")["HostConfig"]["Ulimits"][3] == {"Name": "cpu", "Hard": -1, "Soft": -1}

    @pytest.mark.parametrize(
        ("name", "row", "value"),
        [
            ("as", "Max address space", "1073741824"),
            ("core", "Max core file size", "0"),
            ("cpu", "Max cpu time", "1000"),
            ("data", "Max data size", "1073741824"),
            ("fsize", "Max file size", "1048576"),
            ("locks", "Max file locks", "10"),
            ("memlock", "Max locked memory", "65536"),
            ("msgqueue", "Max msgqueue size", "1000"),
            ("nice", "Max nice priority", "0"),
            ("nofile", "Max open files", "64"),
            ("nproc", "Max processes", "100"),
            ("rss", "Max resident set", "1048576"),
            ("rtprio", "Max realtime priority", "0"),
            ("rttime", "Max realtime timeout", "1000"),
            ("sigpending", "Max pending signals", "50"),
            ("stack", "Max stack size", "1048576"),
        ],
    )
    def test_every_name(self, minidock, name: str, row: str, value: str) -> None:
        output = minidock.out(
            "run", "--rm", "--network", "none", "--ulimit", f"{name}={value}", "busybox", "cat", LIMIT_FILE
        )
        assert limits(output)[row] == (value, value)

    def test_more_than_the_engine_has(self, minidock) -> None:
        """Raised with CAP_SYS_RESOURCE, else refused in a sentence that names it: never less than was asked for."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        held = re.search(r"CapEff:\s*(\w+)", Path("/proc/self/status").read_text())
        assert held
        capable = int(held[1], 16) >> 24 & 1
        flags = ("--ulimit", f"nofile={hard + 1}")
        if capable:
            assert sh(minidock, "ulimit -n", *flags) == str(hard + 1)
        else:
            said = refused(minidock, "--rm", *flags)
            assert f"cannot set ulimit nofile to {hard + 1}: the engine's own hard limit is {hard}" in said
            assert "CAP_SYS_RESOURCE" in said

    @pytest.mark.parametrize("value", ["unlimited", str(2**40)])
    def test_more_descriptors_than_the_kernel_has(self, minidock, value: str) -> None:
        assert "fs.nr_open is" in refused(minidock, "--rm", "--ulimit", f"nofile={value}")

    @pytest.mark.parametrize("text", ["", "nofile", "files=1", "nofile=20:10", "nofile=x", "nofile=1:2:3", "NOFILE=1"])
    def test_what_is_no_limit(self, minidock, text: str) -> None:
        assert f"invalid ulimit {text!r}" in refused(minidock, "--ulimit", text)

    def test_a_build(self, minidock, context) -> None:
        folder = context("FROM busybox\nRUN ulimit -n > /limit; ulimit -Hn >> /limit\n")
        minidock.build(folder, "-t", "one", "--ulimit", "nofile=100:200")
        assert minidock.out("run", "--rm", "--network", "none", "one", "cat", "/limit").split() == ["100", "200"]
        assert "CACHED" in minidock.build(folder, "--ulimit", "nofile=100:200")
        minidock.build(folder, "-t", "two", "--ulimit", "nofile=101:200")
        assert minidock.out("run", "--rm", "--network", "none", "two", "cat", "/limit").split() == ["101", "200"]
        done = minidock("build", "--ulimit", "nofile=20:10", folder, status=125)
        assert "invalid ulimit 'nofile=20:10'" in done.stderr


class TestSysctls:
    def test_inside_and_not_outside(self, minidock) -> None:
        names = ("kernel/shm_rmid_forced", "net/ipv4/ip_forward", "fs/mqueue/msg_max", "kernel/msgmax")
        before = [Path("/proc/sys", name).read_text() for name in names]
        flags = (
            *("--sysctl", "kernel.shm_rmid_forced=1", "--sysctl", "net.ipv4.ip_forward=1"),
            *("--sysctl", "fs.mqueue.msg_max=7", "--sysctl", "kernel/msgmax=4096", "--sysctl", "kernel.sem=1 2 3 4"),
        )
        script = (
            "cd /proc/sys; cat kernel/shm_rmid_forced net/ipv4/ip_forward fs/mqueue/msg_max kernel/msgmax kernel/sem"
        )
        assert sh(minidock, script, *flags).split() == ["1", "1", "7", "4096", "1", "2", "3", "4"]
        assert [Path("/proc/sys", name).read_text() for name in names] == before

    def test_of_a_link_whose_name_has_a_dot(self, minidock) -> None:
        flags = ("--sysctl", "net/ipv4/conf/lo.x/forwarding=1")
        assert "no kernel parameter of that name" in refused(minidock, "--rm", *flags)
        flags = ("--sysctl", "net/ipv4/conf/lo/forwarding=1")
        assert sh(minidock, "cat /proc/sys/net/ipv4/conf/lo/forwarding", *flags) == "1"

    def test_a_default_may_be_changed(self, minidock) -> None:
        script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range"
        flags = ("--sysctl", "net.ipv4.ip_unprivileged_port_start=1024")
        assert sh(minidock, script, *flags).split() == ["1024", "0", "2147483647"]

    def test_one_value_is_never_two(self, minidock) -> None:
        """CVE-2022-0811: a value with a further parameter in it is the kernel's to refuse."""
        pattern = Path("/proc/sys/kernel/core_pattern").read_text()
        sh(minidock, "true", "--sysctl", "kernel.shm_rmid_forced=1 kernel.core_pattern=x", status=None)
        for value in ("1+kernel.core_pattern=|/bin/true", "x"):
            said = refused(minidock, "--rm", "--sysctl", f"kernel.shm_rmid_forced={value}")
            assert said.endswith(f"cannot set sysctl kernel.shm_rmid_forced to {value!r}: invalid argument")
        assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("kernel.core_pattern=|/x", "sysctl kernel.core_pattern is not allowed"),
            ("kernel.hostname=x", "sysctl kernel.hostname is not allowed"),
            ("vm.swappiness=1", "sysctl vm.swappiness is not allowed"),
            ("net/../kernel/core_pattern=x", "invalid sysctl 'net/../kernel/core_pattern=x'"),
            ("net.core.somaxconn", "invalid sysctl 'net.core.somaxconn'"),
            ("", "invalid sysctl ''"),
            ("net.absent.parameter=1", "the container has no kernel parameter of that name"),
        ],
    )
    def test_what_is_not_the_containers_own(self, minidock, text: str, words: str) -> None:
        assert words in refused(minidock, "--rm", "--sysctl", text)

    def test_the_hosts_network(self, minidock) -> None:
        before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
        arguments = ("run", "--rm", "--network", "host", "--sysctl", "net.ipv4.ip_forward=0", "busybox", "true")
        done = minidock(*arguments, status=125)
        assert "is not allowed with --network host" in done.stderr
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before

    def test_inspect(self, minidock) -> None:
        minidock("create", "--name", "one", "--sysctl", "kernel.sem=1 2=3", "busybox", "true")
        assert minidock.inspect("one")["HostConfig"]["Sysctls"] == {"kernel.sem": "1 2=3"}


class Device(NamedTuple):
    """A device that a default container may not open, and that anybody may whom the cgroup lets."""

    path: str
    major: int
    minor: int


@pytest.fixture(scope="module")
def device() -> Device:
    for path in ("/dev/fuse", "/dev/net/tun", "/dev/loop-control"):
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
        except OSError:
            continue
        number = os.stat(path).st_rdev
        return Device(path, os.major(number), os.minor(number))
    pytest.skip("this host has no device that root can open without side effects")


TRY = "(: <{0}) 2>/dev/null && echo reads; (: >{0}) 2>/dev/null && echo writes; true"


class TestDevices:
    def test_a_device_can_be_opened(self, minidock, device) -> None:
        made = f"mknod /x c {device.major} {device.minor}; : </x"
        assert "Operation not permitted" in sh(minidock, made, status=None)
        output = sh(minidock, f": <{device.path} && stat -c '%a %t:%T %u:%g' {device.path}", "--device", device.path)
        host = os.stat(device.path)
        mode = stat.S_IMODE(host.st_mode)
        assert output == f"{mode:o} {device.major:x}:{device.minor:x} {host.st_uid}:{host.st_gid}"

    @pytest.mark.parametrize("access", ["r", "w", "rw", "rwm", "m"])
    def test_the_letters_of_access_hold(self, minidock, device, access: str) -> None:
        expected = [word for word in ("reads", "writes") if word[0] in access]
        other = ("--device", f"{device.path}:/dev/other:{access}")
        assert sh(minidock, TRY.format("/dev/other"), *other).split() == expected
        assert sh(minidock, TRY.format(device.path), "--device", f"{device.path}:{access}").split() == expected

    def test_a_directory(self, minidock, device, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        os.mknod(tmp_path / "sub/one", stat.S_IFCHR | 0o640, os.makedev(device.major, device.minor))
        os.mknod(tmp_path / "full", stat.S_IFCHR | 0o600, os.makedev(1, 7))
        (tmp_path / "file").write_text("")
        script = "cd /dev/dir; find . ! -type d | sort; : <sub/one && stat -c %a sub/one"
        assert sh(minidock, script, "--device", f"{tmp_path}:/dev/dir").split() == ["./full", "./sub/one", "640"]

    def test_one_in_the_place_of_a_default(self, minidock) -> None:
        output = sh(minidock, "stat -c %t:%T /dev/full", "--device", "/dev/zero:/dev/full")
        assert output == "1:5"

    def test_rules(self, minidock, device) -> None:
        script = f"mknod /x c {device.major} {device.minor}; {TRY.format('/x')}"
        assert sh(minidock, script) == ""
        for rule, words in (
            (f"c {device.major}:{device.minor} r", ["reads"]),
            (f"c {device.major}:* rwm", ["reads", "writes"]),
            (f"c *:{device.minor} w", ["writes"]),
            ("a *:* rw", ["reads", "writes"]),
            ("b *:* rwm", []),
        ):
            assert sh(minidock, script, "--device-cgroup-rule", rule).split() == words

    def test_rules_are_not_widened_by_an_exec(self, minidock, device) -> None:
        minidock(
            "run", "-d", "--name", "one", "--network", "none", "--device", f"{device.path}:r", "busybox", "sleep", "99"
        )
        assert minidock.out("exec", "one", "sh", "-c", TRY.format(device.path)).split() == ["reads"]

    def test_with_a_dev_of_ones_own(self, minidock, device, tmp_path: Path) -> None:
        """A directory at /dev is not filled; what the flag allows is allowed there."""
        for name, number in (("null", (1, 3)), ("mine", (device.major, device.minor))):
            os.mknod(tmp_path / name, stat.S_IFCHR | 0o666, os.makedev(*number))
        script = TRY.format("/dev/mine")
        assert sh(minidock, script, "-v", f"{tmp_path}:/dev") == ""
        assert sh(minidock, script, "-v", f"{tmp_path}:/dev", "--device", f"{device.path}:r") == "reads"
        assert os.path.basename(device.path) not in os.listdir(tmp_path)

    def test_each_start(self, minidock, device) -> None:
        run = ("busybox", "sh", "-c", f": <{device.path} && echo opened")
        minidock("create", "--name", "one", "--network", "none", "--device", device.path, *run)
        for _ in range(2):
            assert minidock.out("start", "-a", "one") == "opened"
        host = minidock.inspect("one")["HostConfig"]
        assert host["Devices"] == [
            {"PathOnHost": device.path, "PathInContainer": device.path, "CgroupPermissions": "rwm"}
        ]

    def test_privileged_and_a_name_of_its_own(self, minidock, device) -> None:
        flags = ("--privileged", "--device", f"{device.path}:/dev/other")
        assert sh(minidock, f"stat -c %t:%T /dev/other {device.path}", *flags).split() == (
            [f"{device.major:x}:{device.minor:x}"] * 2
        )

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("sda", "invalid device 'sda'"),
            ("/dev/null:/dev/x:rr", "'rr' is no access"),
            ("/dev/null:/etc/null", "/etc/null is not below /dev"),
            ("/dev/null:/dev/../etc/x", "/etc/x is not below /dev"),
            ("/dev/null:/dev/ptmx", "a container has a /dev/ptmx of its own"),
            ("/dev/absent", "cannot use device /dev/absent: no such file or directory"),
            ("/etc/passwd:/dev/x", "cannot use device /etc/passwd: it is not a device"),
            ("/etc:/dev/x", "there is no device in the directory"),
            ("vendor.com/gpu=all", "CDI devices are not there yet"),
        ],
    )
    @pytest.mark.parametrize("verb", ["run", "create"])
    def test_what_is_no_device(self, minidock, text: str, words: str, verb: str) -> None:
        assert words in refused(minidock, "--device", text, verb=verb)
        assert minidock.out("ps", "-aq") == ""

    @pytest.mark.parametrize("text", ["", "c 1:3", "d 1:3 r", "c 1:3 x", "c 4096:1 r"])
    def test_what_is_no_rule(self, minidock, text: str) -> None:
        assert f"invalid device cgroup rule {text!r}" in refused(minidock, "--device-cgroup-rule", text)

    def test_a_device_that_goes_before_the_start(self, minidock, tmp_path: Path) -> None:
        node = tmp_path / "node"
        os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        minidock("create", "--name", "one", "--network", "none", "--device", f"{node}:/dev/x", "busybox", "true")
        node.unlink()
        done = minidock("start", "one", status=None)
        assert done.returncode != 0
        assert f"cannot use device {node}: no such file or directory" in done.stderr


class TestGroups:
    def test_names_and_numbers(self, minidock, context) -> None:
        folder = context("FROM busybox\nRUN echo 'wheelers:x:77:' >> /etc/group\n")
        minidock.build(folder, "-t", "grouped")
        flags = ("--group-add", "wheelers", "--group-add", "4711", "--group-add", "0")
        assert minidock.out("run", "--rm", "--network", "none", *flags, "grouped", "id", "-G").split() == [
            *("0", "10", "77", "4711")
        ]
        user = ("-u", "1000:5")
        assert minidock.out("run", "--rm", "--network", "none", *user, *flags, "grouped", "id", "-G").split() == [
            *("5", "0", "77", "4711")
        ]
        minidock("run", "-d", "--name", "one", "--network", "none", *flags, "grouped", "sleep", "1000")
        assert minidock.out("exec", "one", "id", "-G").split() == ["0", "10", "77", "4711"]
        assert minidock.out("exec", "-u", "1000", "one", "id", "-G").split() == ["0", "77", "4711"]
        assert minidock.inspect("one")["HostConfig"]["GroupAdd"] == ["wheelers", "4711", "0"]

    def test_a_group_of_the_hosts_is_none_of_the_images(self, minidock) -> None:
        said = refused(minidock, "--rm", "--group-add", "shadow")
        assert said.endswith("unable to find group shadow: no matching entries in group file")

    @pytest.mark.parametrize("text", ["", "a b", "a:b", "-1", "2147483648"])
    def test_what_is_no_group(self, minidock, text: str) -> None:
        assert refused(minidock, f"--group-add={text}").endswith(f"invalid group {text!r}")


def test_explain_equals_debug_with_every_flag(minidock, profile) -> None:
    minidock("run", "--rm", "busybox", "true")
    layers = {path.name for path in (minidock.root / "layers/overlay2").iterdir()}
    path = profile({"defaultAction": "SCMP_ACT_ALLOW"})
    flags = [
        *("--security-opt", f"seccomp={path}", "--security-opt", "no-new-privileges", "--ulimit", "nofile=10:20"),
        *("--ulimit", "cpu=-1", "--sysctl", "kernel.sem=1 2 3 4", "--device", "/dev/null:/dev/hole:r", "--group-add"),
        *("7", "--device-cgroup-rule", "c 10:* r", "--security-opt", "systempaths=unconfined", "busybox", "true"),
    ]
    explained = minidock("explain", "run", "--rm", *flags).stdout.splitlines()
    debug = minidock("--debug", "run", "--rm", *flags).stderr.splitlines()
    said = [normal(line.split("  ")[-1].strip(), layers) for line in explained]
    assert said == [normal(line, layers) for line in debug]
    text = "\n".join(said)
    for words in ("ulimit nofile=10:20 cpu=unlimited:unlimited", "kernel.sem=1-2-3-4", "/dev/hole", "groups 7"):
        assert words in text
    assert "c-1:3-r" in text
    assert "c-10:*-r" in text


def test_explain_refuses_what_run_refuses(minidock, tmp_path: Path) -> None:
    for flags, words in (
        (("--ulimit", "files=1"), "invalid ulimit"),
        (("--sysctl", "vm.swappiness=1"), "not allowed"),
        (("--device", "/dev/absent"), "cannot use device"),
        (("--device-cgroup-rule", "x"), "invalid device cgroup rule"),
        (("--group-add", "a b"), "invalid group"),
        (("--security-opt", f"seccomp={tmp_path}/absent"), "cannot read the seccomp profile"),
    ):
        assert words in minidock("explain", "run", *flags, "busybox", "true", status=125).stderr


def test_a_record_of_an_older_version_starts(minidock) -> None:
    """One that knows nothing of these flags."""
    minidock("create", "--name", "one", "--network", "none", "busybox", "echo", "hi")
    path = minidock.root / "containers" / minidock.inspect("one")["Id"] / "container.json"
    record = json.loads(path.read_text())
    for name in ("ulimits", "sysctls", "devices", "device_cgroup_rules", "group_add"):
        del record["settings"][name]
    path.write_text(json.dumps(record))
    assert minidock.out("start", "-a", "one") == "hi"


def test_nothing_of_this_is_loaded_by_a_plain_run(minidock) -> None:
    """What a start pays for: none of the modules of these flags."""
    program = "import sys; from minidock.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-v", "-c", program, "run", "--rm", "--network", "none", "busybox", "true"],
        env=minidock.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(re.findall(r"^import 'minidock\.([\w.]+)'", done.stderr, re.MULTILINE))
    assert {"containers.create", "runtime.plan", "model.spec"} <= loaded
    models = {f"model.{name}" for name in ("security", "ulimits", "sysctls", "devices")}
    rest = {"containers.walls", "containers.devices", "runtime.limit_steps", "runtime.seccomp_profile", "kernel.lsm"}
    assert not (models | rest) & loaded
