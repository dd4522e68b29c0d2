"""SSH agents for build steps: a socket of the step's own, from which every connection is passed on to an agent.

The host's own socket is never shown to a step: the one inside has the mode and owner that the step asks for, whoever
the agent's owner is. Everything here runs as children of the steps' keeper, the init of a pid namespace, and dies with
it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence

from minidock.errors import ContainerStartError, HostError
from minidock.kernel import process as kp

_CHUNK = 65536
_BACKLOG = 16


class Agents:
    """The agents of one keeper, whose private ``directory`` holds the sockets."""

    __slots__ = ("_directory", "_forwards", "_loaded")

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._forwards: list[tuple[kp.Child, str]] = []
        self._loaded: dict[tuple[str, ...], str] = {}

    def forward(self, paths: Sequence[str], *, mode: int, uid: int, gid: int) -> str:
        """The path of a new socket that leads to an agent: the one whose socket ``paths`` is, or one with the private
        keys of ``paths``. Raises HostError, ContainerStartError."""
        upstream = paths[0] if len(paths) == 1 and _is_socket(paths[0]) else self._load(tuple(paths))
        path = f"{self._directory}/forward-{len(self._forwards)}"
        listener = socket.socket(socket.AF_UNIX)
        try:
            with self._short(path) as short:
                listener.bind(short)
            os.chown(path, uid, gid)
            os.chmod(path, mode)
            listener.listen(_BACKLOG)

            def serve() -> None:
                with self._short(upstream) as short:
                    _serve(listener, lambda: _connect(short))

            self._forwards.append((kp.spawn(serve), path))
        except OSError as error:
            raise ContainerStartError(f"cannot forward the SSH agent: {error.strerror}") from None
        finally:
            listener.close()
        return path

    def stop(self) -> None:
        """End what forwards; the agents stay for the next step."""
        forwards, self._forwards = self._forwards, []
        for child, path in forwards:
            with contextlib.suppress(ProcessLookupError):
                kp.pidfd_send_signal(child.pidfd, signal.SIGKILL)
            child.wait()
            child.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _load(self, keys: tuple[str, ...]) -> str:
        """The socket of an agent that holds the keys; it is started for the first step."""
        if keys not in self._loaded:
            name = f"agent-{len(self._loaded)}"
            # Named relative to its folder: a socket's path is at most 107 bytes long (unix(7)).
            try:
                agent = subprocess.Popen(
                    ["ssh-agent", "-D", "-a", name],
                    cwd=self._directory,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                )
                assert agent.stdout is not None
                with agent.stdout:
                    # It names its socket once that is there.
                    started = agent.stdout.readline()
                added = subprocess.run(
                    ["ssh-add", "-q", "--", *map(os.path.abspath, keys)],
                    cwd=self._directory,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    check=False,
                    env={**os.environ, "SSH_AUTH_SOCK": name, "SSH_ASKPASS_REQUIRE": "never"},
                )
            except FileNotFoundError as error:
                raise HostError(
                    f"cannot use the private key {keys[0]!r}: the host has no {error.filename}",
                    hint="install OpenSSH's client, or give the socket of an agent that runs",
                ) from None
            if not started or added.returncode:
                words = added.stderr.decode("utf-8", "replace").strip().splitlines() or ["the agent did not start"]
                raise ContainerStartError(f"cannot use the private key {keys[0]!r}: {words[0]}")
            self._loaded[keys] = f"{self._directory}/{name}"
        return self._loaded[keys]

    @contextlib.contextmanager
    def _short(self, path: str) -> Iterator[str]:
        """Another name of a path, short enough for a socket's address."""
        folder = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
        finally:
            os.close(folder)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _connect(path: str) -> socket.socket:
    upstream = socket.socket(socket.AF_UNIX)
    try:
        upstream.connect(path)
    except BaseException:
        upstream.close()
        raise
    return upstream


def _serve(listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
    """Pass on every connection for ever. Messages of the protocol are small: who does not read is waited for."""
    peers: dict[int, tuple[socket.socket, socket.socket]] = {}
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                client, _ = listener.accept()
                try:
                    upstream = connect()
                except OSError:
                    client.close()
                    continue
                peers[client.fileno()] = client, upstream
                peers[upstream.fileno()] = upstream, client
                poll.register(client, select.POLLIN)
                poll.register(upstream, select.POLLIN)
            elif fd in peers and not _pass_on(*peers[fd]):
                for end in peers[fd]:
                    poll.unregister(end)
                    peers.pop(end.fileno())
                    end.close()


def _pass_on(source: socket.socket, target: socket.socket) -> bool:
    """Copy what is there; False at the end of either side."""
    try:
        data = source.recv(_CHUNK)
        target.sendall(data)
    except OSError:
        return False
    return bool(data)
