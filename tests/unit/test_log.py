"""Messages on standard error."""

from __future__ import annotations

import os

from minidock.log import Log


def written(**options: bool) -> tuple[Log, int]:
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    return Log(fd=write, **options), read


def test_debug_lines_only_when_asked_for() -> None:
    for verbose, expected in ((False, b""), (True, b"step\n")):
        log, read = written(verbose=verbose)
        log.debug("step")
        os.close(log.fd)
        assert os.read(read, 100) == expected
        os.close(read)


def test_what_is_not_printable_never_reaches_the_terminal() -> None:
    log, read = written()
    log.notice("made /tmp/x\x1b]52;c\x07 and \udcff, ü stays")
    assert os.read(read, 200) == "minidock: made /tmp/x\\x1b]52;c\\x07 and \\udcff, ü stays\n".encode()
    os.close(log.fd)
    os.close(read)


def test_a_closed_descriptor_is_no_failure() -> None:
    log, read = written()
    os.close(read)
    os.close(log.fd)
    log.warning("nobody listens")
