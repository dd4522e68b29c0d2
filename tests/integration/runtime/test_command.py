"""The command itself: exit statuses, look-up, user, directory, environment, descriptors, signals."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from minidock.errors import CommandNotExecutableError, CommandNotFoundError, ContainerStartError, UsageError


def test_exit_status_is_the_programs_own(sandbox) -> None:
    assert sandbox.sh("exit 0").status == 0
    assert sandbox.sh("exit 77").status == 77


def test_death_by_signal_is_128_plus_n(sandbox) -> None:
    """PID 1 cannot kill itself, but the limit on processor time can."""
    assert sandbox.sh("ulimit -t 1; while :; do :; done").status == 128 + signal.SIGKILL


def test_missing_command(sandbox) -> None:
    with pytest.raises(CommandNotFoundError, match=r"exec 'nothing': executable file not found in \$PATH"):
        sandbox.run("nothing")
    with pytest.raises(CommandNotFoundError, match="exec '/no/thing': no such file or directory"):
        sandbox.run("/no/thing")


def test_command_that_is_not_executable(sandbox) -> None:
    (sandbox.upper / "plain").write_text("#!/bin/sh\n")
    with pytest.raises(CommandNotExecutableError, match="permission denied"):
        sandbox.run("/plain")
    with pytest.raises(CommandNotExecutableError, match="is a directory"):
        sandbox.run("/etc")


def script(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o755)


def test_missing_interpreter_is_named(sandbox) -> None:
    script(sandbox.upper / "s", b"#!/usr/bin/python9 -u\n")
    with pytest.raises(CommandNotFoundError, match="its interpreter '/usr/bin/python9' does not exist in the image"):
        sandbox.run("/s")


def test_carriage_return_is_named(sandbox) -> None:
    script(sandbox.upper / "s", b"#!/bin/sh\r\necho x\r\n")
    with pytest.raises(CommandNotFoundError, match="carriage return"):
        sandbox.run("/s")


def test_missing_loader_is_named(sandbox) -> None:
    script(sandbox.upper / "dynamic", Path("/bin/true").read_bytes())
    with pytest.raises(CommandNotFoundError, match=r"its loader '/lib.*ld-linux.*' does not exist in the image"):
        sandbox.run("/dynamic")


def test_foreign_machine_is_named(sandbox) -> None:
    elf = bytearray(Path("/bin/true").read_bytes()[:4096])
    elf[18:20] = (243).to_bytes(2, "little")
    script(sandbox.upper / "riscv", bytes(elf))
    with pytest.raises(CommandNotExecutableError, match="built for RISC-V"):
        sandbox.run("/riscv")


def test_text_without_shebang_is_an_exec_format_error(sandbox) -> None:
    script(sandbox.upper / "text", b"echo hello\n")
    with pytest.raises(CommandNotExecutableError, match="exec format error"):
        sandbox.run("/text")


def test_only_the_three_descriptors(sandbox) -> None:
    extra = [os.open("/etc/hostname", os.O_RDONLY) for _ in range(20)]
    for fd in extra:
        os.set_inheritable(fd, True)
    try:
        assert sandbox.sh("for i in 3 4 5 6 7 8 9 11 12 13 14 15; do readlink /proc/$$/fd/$i; done").output == ""
    finally:
        for fd in extra:
            os.close(fd)


def test_user_by_name_has_its_groups_and_home(sandbox) -> None:
    assert sandbox.sh("id -u; id -g; id -G; echo $HOME", user="bob").output.split() == [
        "1000",
        "1000",
        "1000",
        "10",
        "/home/bob",
    ]


def test_numeric_user_needs_no_entry(sandbox) -> None:
    assert sandbox.sh("id -u; id -g; echo $HOME", user="4242").output.split() == ["4242", "0", "/"]


def test_unknown_user_is_an_error_before_the_start(sandbox) -> None:
    with pytest.raises(UsageError, match="unable to find user nobody: no matching entries in passwd file"):
        sandbox.run("true", user="nobody")


def test_passwd_that_is_a_fifo_does_not_hang(sandbox) -> None:
    (sandbox.upper / "etc").mkdir()
    os.mkfifo(sandbox.upper / "etc/passwd")
    with pytest.raises(ContainerStartError, match="/etc/passwd is not a regular file"):
        sandbox.run("true", user="bob")


def test_directory_is_made_inside(sandbox) -> None:
    assert sandbox.sh("pwd", cwd="/new/deep").output == "/new/deep\n"
    assert (sandbox.upper / "new/deep").is_dir()


def test_directory_behind_an_absolute_link_stays_inside(sandbox, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (sandbox.upper / "w").symlink_to(outside)
    with pytest.raises(ContainerStartError):
        sandbox.run("true", cwd="/w/x")
    assert not outside.exists()


@pytest.mark.parametrize("cwd", ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/1/fd/5"])
def test_directory_through_a_descriptor_is_refused(sandbox, cwd: str) -> None:
    with pytest.raises(ContainerStartError):
        sandbox.run("true", cwd=cwd)


def test_environment(sandbox) -> None:
    lines = sandbox.run("env", env=("A=1", "PATH=/bin", "A=2")).output.splitlines()
    assert "A=1" not in lines
    assert {"A=2", "HOME=/root", "PATH=/bin"} <= set(lines)


def test_signals_have_their_default_action(sandbox) -> None:
    text = sandbox.run("cat", "/proc/self/status").output
    status = dict(line.split(":", 1) for line in text.splitlines())
    assert int(status["SigIgn"], 16) == 0
    assert int(status["SigBlk"], 16) == 0


def test_umask_and_limits(sandbox) -> None:
    assert sandbox.sh("umask; ulimit -c").output.split() == ["0022", "0"]
