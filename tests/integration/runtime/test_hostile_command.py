"""Commands, arguments and environments that images and people bring, however odd."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from minidock.errors import CommandNotExecutableError, CommandNotFoundError, ContainerStartError, UsageError
from minidock.runtime.process_steps import Exec


@pytest.mark.parametrize("where", ["/fifo", "/bin/fifo"])
def test_a_fifo_as_the_command_does_not_hang(sandbox, where: str) -> None:
    (sandbox.upper / "bin").mkdir()
    os.mkfifo(sandbox.upper / where.lstrip("/"), 0o777)
    with pytest.raises(CommandNotExecutableError, match="no regular file: permission denied"):
        sandbox.run(where)


def test_a_fifo_on_the_path_is_passed_over(sandbox) -> None:
    (sandbox.upper / "first").mkdir()
    os.mkfifo(sandbox.upper / "first/true", 0o777)
    assert sandbox.run("true", env=("PATH=/first:/bin",)).status == 0


def test_a_device_as_the_command(sandbox) -> None:
    with pytest.raises(CommandNotExecutableError, match="no regular file: permission denied"):
        sandbox.run("/dev/zero")


@pytest.mark.parametrize("size", [(1, 200_000), (3000, 1000)])
def test_too_many_arguments_are_named(sandbox, size: tuple[int, int]) -> None:
    """One string above 128 KiB, and many that exceed a quarter of the stack together (execve(2))."""
    count, length = size
    with pytest.raises(CommandNotExecutableError, match="exec 'echo': argument list too long") as caught:
        sandbox.run("echo", *["x" * length] * count)
    assert len(str(caught.value)) < 300


def test_too_large_an_environment_is_named(sandbox) -> None:
    with pytest.raises(CommandNotExecutableError, match="argument list too long"):
        sandbox.run("true", env=("PATH=/bin", "X=" + "x" * 200_000))


def test_bytes_that_are_not_utf_8_go_through(sandbox) -> None:
    raw = b"\xff\xfe\xe9"
    text = os.fsdecode(raw)
    assert os.fsencode(sandbox.run("echo", "-n", text).output) == raw
    assert os.fsencode(sandbox.sh('printf %s "$RAW"', env=("PATH=/bin", f"RAW={text}")).output) == raw
    assert os.fsencode(sandbox.sh("pwd", cwd=f"/{text}").output) == b"/" + raw + b"\n"


def test_a_home_that_is_not_utf_8_goes_through(sandbox) -> None:
    (sandbox.upper / "etc").mkdir()
    (sandbox.upper / "etc/passwd").write_bytes(b"odd:x:7:7::/home/\xe9:/bin/sh\n")
    assert os.fsencode(sandbox.sh('printf %s "$HOME"', user="odd").output) == b"/home/\xe9"


def test_empty_arguments_stay_in_their_place(sandbox) -> None:
    outcome = sandbox.run("sh", "-c", 'echo $#; printf "[%s]" "$@"', "sh", "", "a b", "")
    assert outcome.output == "3\n[][a b][]"


def test_an_empty_command(sandbox) -> None:
    with pytest.raises(CommandNotFoundError, match="the command is an empty string"):
        sandbox.run("")
    with pytest.raises(UsageError, match="there is no command to run"):
        sandbox.run()


def test_entries_without_a_name_are_left_out_of_the_environment(sandbox) -> None:
    outcome = sandbox.run("env", env=("PATH=/bin", "", "=x", "A=b=c", "D"))
    assert {"A=b=c", "D="} <= set(outcome.output.splitlines())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"env": ("A=\0",)}, "invalid environment entry 'A=\\x00'"),
        ({"cwd": "/a\0b"}, "invalid working directory '/a\\x00b'"),
    ],
)
def test_null_characters_are_refused_before_anything_happens(sandbox, options, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        sandbox.run("true", **options)
    assert caught.value.message.startswith(text)
    with pytest.raises(UsageError, match="invalid argument"):
        sandbox.run("echo", "\0")


def limits_of(sandbox) -> list[str]:
    lines = sandbox.run("grep", "-E", "Max (core|processes|open)", "/proc/self/limits").output.splitlines()
    return [" ".join(line[26:].split()[:2]) for line in lines]


def test_limits_are_pinned_whatever_the_callers(sandbox) -> None:
    kinds = (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
    before = {kind: resource.getrlimit(kind) for kind in kinds}
    files, processes = (before[kind][1] for kind in kinds)
    many = "unlimited" if processes < 0 else str(processes)
    expected = ["0 0", f"{many} {many}", f"1024 {min(files, 524288) if files >= 0 else 524288}"]
    assert limits_of(sandbox) == expected
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, files))
        resource.setrlimit(resource.RLIMIT_NPROC, (5000, processes))
        assert limits_of(sandbox) == expected
    finally:
        for kind, limits in before.items():
            resource.setrlimit(kind, limits)


def test_a_lower_hard_limit_of_the_caller_stays(sandbox) -> None:
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, 600))
        os._exit(0 if sandbox.sh("ulimit -Sn; ulimit -Hn").output.split() == ["600", "600"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_out_of_memory_score_is_zero(sandbox) -> None:
    before = Path("/proc/self/oom_score_adj").read_text()
    Path("/proc/self/oom_score_adj").write_text("500")
    try:
        assert sandbox.run("cat", "/proc/self/oom_score_adj").output == "0\n"
    finally:
        Path("/proc/self/oom_score_adj").write_text(before)


def test_the_first_process_leads_its_session(sandbox) -> None:
    fields = sandbox.run("cat", "/proc/self/stat").output.rpartition(")")[2].split()
    assert fields[2:5] == ["1", "1", "0"], "process group, session, terminal"


def test_a_users_streams_can_be_opened_again(sandbox) -> None:
    """As nginx's log files do, which are links to /dev/stdout: the pipe belongs to the user."""
    outcome = sandbox.sh("echo out > /dev/stdout; echo err > /dev/stderr; id -u", user="bob")
    assert outcome.output == "out\nerr\n1000\n"


@pytest.mark.parametrize(("user", "expected"), [("bob:wheel", "1000 10 10"), ("7:8", "7 8 8"), ("bob:0", "1000 0 0")])
def test_user_and_group(sandbox, user: str, expected: str) -> None:
    assert sandbox.sh("echo $(id -u) $(id -g) $(id -G)", user=user).output == expected + "\n"


@pytest.mark.parametrize("user", ["1:", ":1", "1:2:3", "-1", "4294967296", "bob:nogroup", "a b"])
def test_users_that_make_no_sense(sandbox, user: str) -> None:
    with pytest.raises(UsageError):
        sandbox.run("true", user=user)


def test_accounts_behind_links_of_the_image(sandbox) -> None:
    etc = sandbox.upper / "etc"
    etc.mkdir()
    (sandbox.upper / "data").mkdir()
    (sandbox.upper / "data/accounts").write_text("carol:x:77:77::/c:/bin/sh\n")
    (etc / "passwd").symlink_to("/data/accounts")
    assert sandbox.sh("id -u; echo $HOME", user="carol").output == "77\n/c\n"
    (etc / "passwd").unlink()
    (etc / "passwd").symlink_to("/nowhere")
    assert sandbox.sh("id -u; echo $HOME", user="5").output == "5\n/\n"


def test_an_oversized_account_file_is_refused(sandbox) -> None:
    (sandbox.upper / "etc").mkdir()
    with open(sandbox.upper / "etc/group", "wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(ContainerStartError, match="/etc/group is larger than"):
        sandbox.run("true", user="bob")


def test_directory_behind_links(sandbox) -> None:
    (sandbox.upper / "real/deep").mkdir(parents=True)
    (sandbox.upper / "link").symlink_to("/real")
    assert sandbox.run("/bin/pwd", "-P", cwd="/link/deep").output == "/real/deep\n"
    (sandbox.upper / "loop").symlink_to("loop")
    with pytest.raises(ContainerStartError, match="cannot enter the working directory '/loop'"):
        sandbox.run("true", cwd="/loop")
    (sandbox.upper / "file").write_text("")
    with pytest.raises(ContainerStartError, match="working directory '/file' is not a directory"):
        sandbox.run("true", cwd="/file")


def test_a_hint_fits_on_a_line(sandbox) -> None:
    def change(spec) -> None:
        spec["linux"]["maskedPaths"] = ["/" + "x" * 300]
        spec["linux"]["readonlyPaths"] = []

    with pytest.raises(ContainerStartError) as caught:
        sandbox.run("true", change=change)
    assert caught.value.message.startswith("cannot start the container: file name too long")
    assert caught.value.hint.startswith("while: mask /xxx")
    assert len(caught.value.hint) < 120


def test_describe_of_the_command() -> None:
    assert Exec(("echo", "a")).describe() == "exec echo a"
