"""Terminals: pseudo-terminal pairs, window sizes, raw mode (pty(7), ioctl_tty(2), termios(3))."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager

_TIOCSPTLCK = 0x40045431
_TIOCGPTN = 0x80045430
_TIOCGPTPEER = 0x5441


def new_pty(devpts_fd: int | None = None) -> tuple[int, int]:
    """A new pseudo-terminal: (master, slave), both CLOEXEC and nobody's controlling terminal.

    ``devpts_fd`` is a directory on a devpts mount, whose ``ptmx`` is opened; None is the caller's own /dev/ptmx. The
    slave is opened through the master (TIOCGPTPEER, Linux 4.13), never by a path that could have been swapped.
    """
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    if devpts_fd is None:
        master = os.open("/dev/ptmx", flags)
    else:
        master = os.open("ptmx", flags | os.O_NOFOLLOW, dir_fd=devpts_fd)
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, flags)
    except BaseException:
        os.close(master)
        raise
    return master, slave


def pty_number(master: int) -> int:
    """N of a master's /dev/pts/N, in its own devpts."""
    number: int = struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))[0]
    return number


def get_winsize(fd: int) -> tuple[int, int]:
    """(rows, columns) of a terminal. Raises OSError (ENOTTY when it is none)."""
    rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return rows, columns


def set_winsize(fd: int, rows: int, columns: int) -> None:
    """Set a terminal's size; its foreground processes get SIGWINCH when it changed."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def set_controlling(fd: int) -> None:
    """Make a terminal the caller's controlling one; the caller leads a session without one (setsid before)."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Hand every byte of a terminal through unchanged (cfmakeraw(3)) within the ``with``; restored at its end."""
    before = termios.tcgetattr(fd)
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = before
    iflag &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = (cflag & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    cc = list(cc)
    cc[termios.VMIN] = 1
    cc[termios.VTIME] = 0
    termios.tcsetattr(fd, termios.TCSANOW, [iflag, oflag, cflag, lflag, ispeed, ospeed, cc])
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
