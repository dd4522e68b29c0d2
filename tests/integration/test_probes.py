"""The golden probes of the default sandbox, from inside a container of the installed command."""

from __future__ import annotations

import errno
import subprocess
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
DEFAULT_CAPABILITIES = "00000000a80425fb"
NAMESPACES = ("20000", "4000000", "8000000", "10000000", "20000000", "40000000", "2000000")


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The static prober."""
    program = tmp_path_factory.mktemp("probe") / "sysprobe"
    subprocess.run(["gcc", "-O1", "-static", "-o", program, HERE / "attack/src/sysprobe.c"], check=True)
    return program


@pytest.fixture
def calls(minidock, probe: Path):
    """Run system calls inside; gives the errno of each by name, 0 for success."""

    def run(*names: str, flags: tuple[str, ...] = ()) -> dict[str, int]:
        mount = f"type=bind,src={probe},dst=/sysprobe,ro"
        arguments = ("run", "--rm", "--network", "none", *flags, "--mount", mount, "busybox", "/sysprobe", *names)
        return {name: int(number) for name, number in (line.split() for line in minidock.out(*arguments).splitlines())}

    return run


def sh(minidock, script: str, *flags: str, network: str = "none") -> str:
    return minidock.out("run", "--rm", "--network", network, *flags, "busybox", "sh", "-c", script)


def status_of(minidock, *flags: str) -> dict[str, str]:
    text = minidock.out("run", "--rm", "--network", "none", *flags, "busybox", "cat", "/proc/1/status")
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def test_status_of_the_first_process(minidock) -> None:
    status = status_of(minidock)
    assert status["CapEff"] == status["CapBnd"] == status["CapPrm"] == DEFAULT_CAPABILITIES
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "2")


def test_refused_calls(calls) -> None:
    names = [*(f"unshare:{flag}" for flag in NAMESPACES), "mount", "umount", "setns", "sethostname", "bpf", "keyctl"]
    names += ["add_key", "io_uring_setup", "userfaultfd", "open_by_handle_at", "swapon", "reboot", "clone_newuser"]
    names += ["personality"]
    assert calls(*names) == dict.fromkeys(names, errno.EPERM)


def test_clone3_is_unknown_so_that_libraries_fall_back(calls) -> None:
    assert calls("clone3") == {"clone3": errno.ENOSYS}


def test_allowed_calls(calls) -> None:
    names = ["chroot", "memfd_create", "openat2", "ptrace", "fork"]
    assert calls(*names) == dict.fromkeys(names, 0)


def test_socket_families_are_compared_in_their_low_32_bits(calls) -> None:
    assert calls("af_alg", "af_alg_high") == {"af_alg": errno.EPERM, "af_alg_high": errno.EPERM}


@pytest.mark.parametrize("path", ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"])
def test_kernel_parameters_are_read_only(minidock, path: str) -> None:
    if not Path(path).exists():
        pytest.skip(f"this kernel has no {path}")
    done = minidock("run", "--rm", "--network", "none", "busybox", "sh", "-c", f"echo x > {path}", status=None)
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr


def test_masked_paths_are_empty(minidock) -> None:
    script = "for p in /proc/kcore /proc/keys /proc/timer_list; do [ ! -e $p ] || wc -c < $p; done; ls /sys/firmware"
    assert set(sh(minidock, script).split()) == {"0"}


def test_devices_may_be_made_but_not_opened(calls) -> None:
    assert calls("mknod_mem", "mknod_disk", "open_mem", "open_disk", "open_null") == {
        "mknod_mem": 0,
        "mknod_disk": 0,
        "open_mem": errno.EPERM,
        "open_disk": errno.EPERM,
        "open_null": 0,
    }


def test_ping_and_low_ports_as_an_ordinary_user(minidock, probe: Path) -> None:
    gateway = "$(ip route | sed -n 's/default via \\([0-9.]*\\) .*/\\1/p')"
    mount = f"type=bind,src={probe},dst=/sysprobe,ro"
    answer = sh(minidock, f"/sysprobe ping:{gateway}", "-u", "1000", "--mount", mount, network="bridge")
    assert answer.startswith("ping:10.")
    assert answer.endswith(" 0")
    listen = "(echo hello | nc -l -p 80 &) ; sleep 0.3; nc 127.0.0.1 80 < /dev/null"
    assert sh(minidock, listen, "-u", "1000") == "hello"


@pytest.mark.parametrize("target", ["/proc/sys", "/proc//sys", "/proc/../proc/sys", "/proc"])
def test_nothing_is_mounted_inside_proc(minidock, tmp_path: Path, target: str) -> None:
    done = minidock("run", "--rm", "-v", f"{tmp_path}:{target}", "busybox", "true", status=125)
    assert "/proc" in done.stderr


def test_without_capabilities(minidock, calls) -> None:
    assert status_of(minidock, "--cap-drop", "ALL")["CapEff"] == "0" * 16
    assert calls("chown", flags=("--cap-drop", "ALL")) == {"chown": errno.EPERM}


def test_added_and_dropped_capabilities(minidock) -> None:
    assert status_of(minidock, "--cap-drop", "ALL", "--cap-add", "chown")["CapEff"] == f"{1:016x}"
    assert int(status_of(minidock, "--cap-add", "CAP_SYS_PTRACE")["CapEff"], 16) >> 19 & 1
    refused = minidock("run", "--rm", "--cap-add", "NONSENSE", "busybox", "true", status=125)
    assert "NONSENSE" in refused.stderr


def test_an_ordinary_user_has_none(minidock) -> None:
    status = status_of(minidock, "-u", "1000")
    assert status["CapEff"] == status["CapPrm"] == "0" * 16
    assert status["CapBnd"] == DEFAULT_CAPABILITIES


def test_no_new_privileges(minidock) -> None:
    status = status_of(minidock, "--security-opt", "no-new-privileges")
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_privileged(minidock) -> None:
    status = status_of(minidock, "--privileged")
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    assert status["CapEff"] == own.split()[1]
    assert status["Seccomp"] == "0"
    assert (
        sh(minidock, "mount -t tmpfs none /mnt 2>/dev/null || mount -t tmpfs none /tmp; echo $?", "--privileged") == "0"
    )


def test_pid_1_survives_term_and_not_kill(minidock) -> None:
    minidock("run", "-d", "--name", "one", "--network", "none", "busybox", "sleep", "1000")
    minidock("kill", "-s", "TERM", "one")
    time.sleep(0.3)
    assert minidock.inspect("one")["State"]["Running"] is True
    minidock("kill", "one")
    assert minidock.out("wait", "one") == "137"
