"""Real monitors over a launch that makes a bare process instead of a container."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from minidock.containers import attach, create, launching, lifecycle, logs, status
from minidock.containers.claim import Claim
from minidock.containers.parts import Parts
from minidock.errors import MinidockError
from minidock.kernel import namespaces, process, tty
from minidock.log import Log
from minidock.model.container import Record, Settings, State
from minidock.model.oci import ImageConfig
from minidock.store.containers import ContainerStore
from minidock.store.layout import DataRoot
from minidock.volumes.volumes import Volumes

IMAGE_ID = "sha256:" + "0" * 64


class PlainRootfs:
    """A root file system without layers: ``tree`` is what the image holds."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree

    def ensure(self, diff_ids: object) -> None:
        pass

    def prepare(self, diff_ids: object, writable: str) -> None:
        del diff_ids
        os.mkdir(f"{writable}/upper")
        os.mkdir(f"{writable}/work")

    @contextmanager
    def open_root(self, diff_ids: object, writable: object) -> Iterator[int]:
        del diff_ids, writable
        fd = os.open(self.tree, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield fd
        finally:
            os.close(fd)


def launch(request: launching.Request) -> launching.Launched:
    """The record's command as the first process of a pid namespace, on the host's files."""
    terminal = request.record.settings.tty
    master, slave = tty.new_pty() if terminal else (-1, -1)

    def child() -> int:
        os.setsid()
        if terminal:
            tty.set_controlling(slave)
        for number, fd in enumerate((request.stdin, request.stdout, request.stderr)):
            os.dup2(slave if terminal else fd, number)
        process.reset_signals()
        os.execvp(request.record.args[0], request.record.args)

    if terminal:
        tty.set_winsize(master, *request.winsize)
    born = process.spawn(child, flags=namespaces.CLONE_NEWPID)
    if slave >= 0:
        os.close(slave)
    pid = process.host_pid(born.pidfd)
    return launching.Launched(pid, born.pidfd, process.start_time(pid), master)


class Box:
    """A data root, and short forms of the verbs."""

    def __init__(self, folder: Path) -> None:
        self.root = DataRoot(str(folder / "root"), run=str(folder / "run"))
        self.root.ensure()
        self.tree = folder / "tree"
        self.tree.mkdir()
        self.messages = os.open(folder / "messages", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        rootfs: Any = PlainRootfs(self.tree)
        self.parts = Parts(self.root, ContainerStore(self.root), Volumes(self.root), rootfs, Log(fd=self.messages))

    def create(
        self,
        *command: str,
        config: dict[str, Any] | None = None,
        claim: Claim | None = None,
        **settings: Any,
    ) -> Record:
        image = ImageConfig.new(architecture="amd64")
        image.config.update(config or {})
        return create.create(
            Settings("img", command=command, **settings),
            image_id=IMAGE_ID,
            config=image,
            driver="fake",
            parts=self.parts,
            claim=claim,
        )

    def start(self, record: Record, *, launch: Callable[..., Any] = launch) -> None:
        running = lifecycle.start(self.parts, record.id, launch=launch)
        assert running is not None
        running.close()

    def run(self, *command: str, stdin: bytes | None = None, **settings: Any) -> tuple[attach.Outcome, bytes, bytes]:
        """Create, start attached, and stay until the end: the outcome and both outputs."""
        record = self.create(*command, interactive=stdin is not None, **settings)
        running = lifecycle.start(self.parts, record.id, attached=True, launch=launch)
        assert running is not None
        files = [os.memfd_create(name) for name in ("in", "out", "err")]
        os.write(files[0], stdin or b"")
        os.lseek(files[0], 0, os.SEEK_SET)
        session = attach.Session(
            running.connection,
            stdin=files[0] if stdin is not None else -1,
            stdout=files[1],
            stderr=files[2],
            terminal=False,
            proxy=False,
        )
        outcome = session.run()
        lifecycle.finish(running)
        out, err = (Path(f"/proc/self/fd/{fd}").read_bytes() for fd in files[1:])
        for fd in files:
            os.close(fd)
        return outcome, out, err

    def state(self, record: Record) -> State:
        return status.check(self.parts, record.id)[1]

    def output(self, record: Record, stream: int = 1) -> bytes:
        directory = self.root.container_dir(record.id)
        return b"".join(data for number, _, data in logs.read(directory) if number == stream)

    def wait_for_output(self, record: Record, text: bytes) -> None:
        until(lambda: text in self.output(record))

    def said(self) -> str:
        return os.pread(self.messages, 65536, 0).decode()

    def folder(self, record: Record) -> Path:
        return Path(self.root.container_dir(record.id))

    def close(self) -> None:
        for container_id in self.parts.containers.ids():
            with suppress(MinidockError):
                lifecycle.remove(self.parts, container_id, force=True, volumes=True)
        os.close(self.messages)


def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.close()


@pytest.fixture
def fake_launch() -> Callable[[launching.Request], launching.Launched]:
    return launch


@pytest.fixture
def wait_until() -> Callable[..., None]:
    return until
