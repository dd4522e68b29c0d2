"""Programs that end with their caller."""

from __future__ import annotations

import os

import pytest

from minidock.kernel.programs import NOT_FOUND, NOT_STARTED, start_program

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="a pid namespace needs root")
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "WORD": "word"}


def test_it_gets_what_is_given_and_no_more() -> None:
    script = "read x; echo $WORD $PWD $$ $(umask) $(ls /proc/self/fd | wc -l) >&2; exit 7"
    leaked = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        with start_program(["sh", "-c", script], environment=ENVIRONMENT, directory="/usr", apart=True) as program:
            out, err = program.read(limit=1000)
            assert (out, program.wait()) == (b"", 7)
    finally:
        os.close(leaked)
    assert err.split() == [b"word", b"/usr", b"1", b"0022", b"4"]


def test_streams_together_and_bounded() -> None:
    with start_program(["sh", "-c", "echo a; echo b >&2"], environment=ENVIRONMENT, directory="/", apart=False) as both:
        with open(both.output, "rb", closefd=False) as stream:
            assert stream.read() == b"a\nb\n"
        assert both.errors == -1
    script = "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2"
    with start_program(["sh", "-c", script], environment=ENVIRONMENT, directory="/", apart=True) as much:
        assert [len(data) for data in much.read(limit=1000)] == [1000, 1000]
        assert much.wait() == 0


@pytest.mark.parametrize(("name", "status"), [("no-such-program", NOT_FOUND), ("/etc/passwd", NOT_STARTED)])
def test_what_cannot_be_started(name: str, status: int) -> None:
    with start_program([name], environment=ENVIRONMENT, directory="/", apart=False) as program:
        assert program.wait() == status


def test_the_end_takes_all_along() -> None:
    command = ["sh", "-c", "sleep 54321 & echo; sleep 54321"]
    with start_program(command, environment=ENVIRONMENT, directory="/", apart=False) as program:
        assert os.read(program.output, 1) == b"\n"
        pid = program.pid
    assert not os.path.exists(f"/proc/{pid}")
