"""The last exec: its bytes, its seals, its answers."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from minidock.kernel import process, trampoline
from minidock.kernel.process import Failure

HERE = Path(__file__).parent
TOOLS = {"x86_64": "x86_64-linux-gnu-", "aarch64": "aarch64-linux-gnu-"}


def assemble(machine: str, directory: Path) -> bytes:
    """The program's bytes from its source; skips where there is no assembler for the machine."""
    prefix = "" if machine == os.uname().machine else TOOLS[machine]
    for tool in ("as", "objcopy"):
        if shutil.which(prefix + tool) is None:
            pytest.skip(f"no {prefix}{tool} (binutils) on this machine")
    source = HERE / f"trampoline_{machine}.S"
    subprocess.run([f"{prefix}as", "-o", directory / "t.o", source], check=True)
    subprocess.run([f"{prefix}objcopy", "-O", "binary", "-j", ".text", directory / "t.o", directory / "t"], check=True)
    return (directory / "t").read_bytes()


@pytest.mark.parametrize("machine", sorted(trampoline.ELF))
def test_bytes_are_those_of_the_source(machine: str, tmp_path: Path) -> None:
    assert trampoline.ELF[machine] == assemble(machine, tmp_path)


@pytest.mark.parametrize("machine", sorted(trampoline.ELF))
def test_program_is_small(machine: str) -> None:
    assert len(trampoline.ELF[machine]) < 1024


def test_memfd_is_sealed_and_cloexec() -> None:
    fd = trampoline.open_trampoline()
    try:
        assert not os.get_inheritable(fd)
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 4096)
        # Another descriptor of the same file, as a container would get by /proc/PID/exe. Only who may read everything
        # gets one.
        with contextlib.suppress(PermissionError):
            other = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
            with pytest.raises(PermissionError):
                os.write(other, b"x")
            os.close(other)
    finally:
        os.close(fd)


def test_it_can_be_executed_and_not_read() -> None:
    """So that the kernel makes the process that executes it non-dumpable."""
    fd = trampoline.open_trampoline()
    assert os.fstat(fd).st_mode & 0o777 == 0o111
    os.close(fd)


def run(path: str, argv: Sequence[str], env: dict[str, str] | None = None) -> tuple[Failure | None, int, bytes]:
    """(failure, exit code, standard output) of a program started through the trampoline."""
    fd = trampoline.open_trampoline()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    out_reader, out_writer = os.pipe2(os.O_CLOEXEC)

    def child() -> None:
        os.dup2(out_writer, 1)
        # What the test's own caller left open.
        process.close_from(3, keep=[fd, writer])
        process.reset_signals()
        trampoline.exec_trampoline(fd, path, argv, env or {}, error_fd=writer)

    with process.spawn(child) as spawned, os.fdopen(out_reader, "rb") as output:
        for number in (fd, writer, out_writer):
            os.close(number)
        failure = process.read_failure(reader)
        os.close(reader)
        data = output.read()
        return failure, spawned.wait(), data


def test_program_gets_its_arguments_and_environment_and_nothing_else() -> None:
    script = 'echo "$0|$1|$A|$(ls /proc/self/fd | wc -l)"; exit 42'
    failure, code, out = run("/bin/sh", ["sh", "-c", script, "zero", "one"], {"A": "b c", "PATH": "/usr/bin:/bin"})
    assert failure is None
    assert code == 42
    # 0, 1, 2 and the one by which ls reads the directory.
    assert out == b"zero|one|b c|4\n"


def test_environment_is_exactly_the_given_one() -> None:
    failure, code, out = run("/usr/bin/env", ["env"], {"ONE": "1", "TWO": "=2"})
    assert (failure, code, sorted(out.split())) == (None, 0, [b"ONE=1", b"TWO==2"])


def test_script_keeps_its_name(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('#!/bin/sh\necho "$0" "$@"\n')
    script.chmod(0o755)
    failure, code, out = run(str(script), ["ignored", "arg"])
    assert (failure, code, out) == (None, 0, f"{script} arg\n".encode())


def test_refusals(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("no program")
    nonsense = tmp_path / "nonsense"
    nonsense.write_bytes(b"\x00\x01\x02")
    nonsense.chmod(0o755)
    interpreter = tmp_path / "interpreter"
    interpreter.write_text("#!/nonexistent/sh\n")
    interpreter.chmod(0o755)
    expected = {
        "/nonexistent": (errno.ENOENT, 127),
        str(interpreter): (errno.ENOENT, 127),
        str(plain): (errno.EACCES, 126),
        str(tmp_path): (errno.EACCES, 126),
        str(nonsense): (errno.ENOEXEC, 126),
        f"{plain}/x": (errno.ENOTDIR, 126),
    }
    for path, (code, status) in expected.items():
        assert run(path, ["x"]) == (Failure(code, "exec", "", os.strerror(code)), status, b""), path


def test_script_that_names_proc_self_exe_ends_with_126(tmp_path: Path) -> None:
    script = tmp_path / "evil"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    assert run(str(script), ["evil"]) == (None, 126, b"")


@pytest.mark.parametrize("argv", [["x", "/bin/true", "true"], [""], ["\x01x", "/bin/true"], ["\x01", "/bin/true", "t"]])
def test_started_without_mark_or_pipe_it_refuses(argv: list[str]) -> None:
    fd = trampoline.open_trampoline()

    def child() -> None:
        copy = os.dup2(fd, 9, inheritable=False)
        process.close_from(3, keep=[copy])
        # Python's own check of an empty argv[0] is not what is tested here.
        os.execve(copy, argv if argv[0] else ["-"], {})

    with process.spawn(child) as spawned:
        os.close(fd)
        assert spawned.wait() == 126


@pytest.mark.parametrize("layout", ["error pipe is 3", "trampoline is 3"])
def test_descriptor_3_may_be_taken(layout: str) -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    fd = trampoline.open_trampoline()

    def child() -> None:
        # The numbers are the kernel's choice: any fixed one may be what the test's caller left open.
        high_fd, high_writer = (fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 50) for number in (fd, writer))
        process.close_from(3, keep=[high_fd, high_writer])
        moved = high_writer if layout == "error pipe is 3" else high_fd
        os.dup2(moved, 3, inheritable=False)
        os.close(moved)
        high_fd, high_writer = (3 if number == moved else number for number in (high_fd, high_writer))
        trampoline.exec_trampoline(high_fd, "/nonexistent", ["x"], {}, error_fd=high_writer)

    with process.spawn(child) as spawned:
        os.close(fd)
        os.close(writer)
        failure = process.read_failure(reader)
        os.close(reader)
        assert spawned.wait() == 127
    assert failure is not None
    assert failure.errno == errno.ENOENT


def test_aarch64_program_answers_under_emulation(tmp_path: Path) -> None:
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("no qemu-aarch64 (qemu-user-static) on this machine")
    program = tmp_path / "trampoline"
    program.write_bytes(trampoline.ELF["aarch64"])
    program.chmod(0o755)
    reader, writer = os.pipe2(os.O_CLOEXEC)

    def child() -> None:
        os.dup2(writer, 3, inheritable=True)
        os.execv(emulator, [emulator, "-0", trampoline.MARK, str(program), "/nonexistent", "x"])

    with process.spawn(child) as spawned:
        os.close(writer)
        assert process.read_failure(reader) == Failure(errno.ENOENT, "exec", "", os.strerror(errno.ENOENT))
        os.close(reader)
        assert spawned.wait() == 127
    unmarked = subprocess.run([emulator, program, "/bin/true", "true"])
    assert unmarked.returncode == 126
