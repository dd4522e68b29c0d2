"""What a monitor does to its container when a client asks. Heavier imports wait until then."""

from __future__ import annotations

import errno
import os

_KILL = 9


class ContainerControl:
    """``root`` and ``run`` name the data root; ``console`` is the terminal's master or -1.

    Only the monitor writes its container's state while it lives, so pausing goes through it.
    """

    __slots__ = ("console", "container_id", "pidfd", "root", "run")

    def __init__(self, *, root: str, run: str, container_id: str, pidfd: int, console: int) -> None:
        self.root = root
        self.run = run
        self.container_id = container_id
        self.pidfd = pidfd
        self.console = console

    def signal(self, number: int) -> None:
        """Signal the container's first process; a paused one that is to die is let go on, to die."""
        from minidock.kernel import process

        process.pidfd_send_signal(self.pidfd, number)
        if number == _KILL:
            self._thaw()

    def pause(self) -> None:
        """Freeze; where that cannot be recorded (a full disk) the container is let go on."""
        from minidock.containers import leftovers
        from minidock.model.container import PAUSED

        leftovers.cgroup_of(self.container_id).freeze()
        try:
            self._write_status(PAUSED)
        except OSError:
            self._thaw()
            raise

    def unpause(self) -> None:
        from minidock.model.container import RUNNING

        self._thaw()
        self._write_status(RUNNING)

    def resize(self, rows: int, columns: int) -> None:
        from minidock.kernel import tty

        tty.set_winsize(self.console, rows, columns)

    def _thaw(self) -> None:
        from minidock.containers import leftovers

        cgroup = leftovers.cgroup_of(self.container_id)
        if cgroup.frozen:
            cgroup.thaw()

    def _write_status(self, status: str) -> None:
        """Raises OSError, whatever is wrong with the record: the monitor has to go on."""
        from minidock.errors import MinidockError
        from minidock.store.containers import ContainerStore
        from minidock.store.layout import DataRoot

        store = ContainerStore(DataRoot(self.root, run=self.run))
        try:
            store.write_state(self.container_id, store.state(self.container_id)._replace(status=status), sync=False)
        except MinidockError as error:
            raise OSError(errno.EIO, error.message) from error


def set_oom_score(value: int) -> None:
    """Say how willingly the kernel kills the calling process when memory is short (proc(5)); best effort."""
    try:
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(fd, str(value).encode())
    except OSError:
        return
    finally:
        os.close(fd)
