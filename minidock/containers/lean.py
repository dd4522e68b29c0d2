"""A detached monitor begins anew as a small process: ``python -I -S`` with the standard library only.

It stays the same process (the container's processes die with it as before) and keeps its descriptors; what it has to
know goes along as arguments. A SIGKILL in between is the death of the monitor like at any other time.
"""

from __future__ import annotations

import os
import sys

# The typing module would double what a small monitor takes of memory.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from minidock.containers.relay import Relay

_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from minidock.containers.lean import main; main(sys.argv[2:])"


def become(*, root: str, run: str, container_id: str, lock: int, relay: Relay) -> None:
    """Execute the small monitor; returns only when that cannot be done, and then nothing has changed."""
    outputs = ",".join(f"{fd}:{stream}" for fd, stream in relay.outputs.items())
    numbers = [lock, relay.pidfd, relay.listener, relay.log.data_fd, relay.log.index_fd, relay.stdin]
    fds = {fd for fd in (*numbers, *relay.outputs) if fd >= 0}
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    words = [root, run, container_id, outputs, str(int(relay.terminal)), *map(str, numbers)]
    if not sys.executable:
        return
    for fd in fds:
        os.set_inheritable(fd, True)
    try:
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", _BOOT, package, *words])
    except OSError:
        for fd in fds:
            os.set_inheritable(fd, False)


def main(words: list[str]) -> None:
    """What the small process runs. ``words`` are those of ``become``."""
    from minidock.containers.control import ContainerControl
    from minidock.containers.logs import LogWriter
    from minidock.containers.relay import Relay

    root, run, container_id, output_text, terminal, *rest = words
    lock, pidfd, listener, data_fd, index_fd, stdin = map(int, rest)
    outputs = {int(fd): int(stream) for fd, _, stream in (pair.partition(":") for pair in output_text.split(","))}
    for fd in {lock, pidfd, listener, data_fd, index_fd, stdin, *outputs} - {-1}:
        os.set_inheritable(fd, False)
    relay = Relay(
        pidfd=pidfd,
        log=LogWriter(data_fd, index_fd),
        outputs=outputs,
        stdin=stdin,
        listener=listener,
        control=ContainerControl(
            root=root,
            run=run,
            container_id=container_id,
            pidfd=pidfd,
            console=next(iter(outputs)) if terminal == "1" else -1,
        ),
        terminal=terminal == "1",
    )
    relay.run()
    from minidock.containers import ending

    ending.end(ending.parts_of(root, run), container_id, relay, lock)
