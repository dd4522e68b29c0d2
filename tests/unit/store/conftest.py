from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock.model.container import Record, Settings
from minidock.model.oci import LAYER_TAR, Descriptor, History, ImageConfig
from minidock.store.blobs import Blobs
from minidock.store.images import Image, Images
from minidock.store.layout import DataRoot

KILLABLE = ("rename", "fsync", "fdatasync", "unlink", "symlink", "mkdir", "rmdir", "write", "chmod", "fchmod", "open")


@pytest.fixture
def root(tmp_path: Path) -> DataRoot:
    root = DataRoot(str(tmp_path / "root"), run=str(tmp_path / "run"))
    root.ensure()
    return root


@pytest.fixture
def make_image(root: DataRoot) -> Callable[..., Image]:
    """Commit an image of the given layers' contents."""

    def make(*contents: bytes, names: tuple[str, ...] = (), env: str = "") -> Image:
        config, layers = ImageConfig.new(architecture="amd64"), []
        if env:
            config.config["Env"] = [env]
        for content in contents:
            digest = Blobs(root).put(content)
            config.add_layer(digest, History(created_by=f"RUN {content!r}"))
            layers.append(Descriptor(LAYER_TAR, digest, len(content)))
        return Images(root).commit(config, layers, names=names)

    return make


@pytest.fixture
def make_record() -> Callable[..., Record]:
    def make(name: str, **changes: Any) -> Record:
        values: dict[str, Any] = {
            "id": os.urandom(32).hex(),
            "name": name,
            "created": 1_000,
            "image": "busybox",
            "image_id": "sha256:" + "0" * 64,
            "diff_ids": (),
            "driver": "vfs",
            "args": ("sh",),
            "env": (),
            "workdir": "/",
            "user": "",
            "hostname": "h",
            "labels": (("a", "b"),),
            "mounts": (),
            "anonymous": (),
            "exposed_ports": (),
            "stop_signal": "",
            "settings": Settings(image="busybox", name=name),
        }
        values.update(changes)
        return Record(**values)

    return make


class Killer:
    """Runs a function in a child that is killed at its n-th call of anything that changes the file system."""

    def killed_at(self, step: int, act: Callable[[], object], *, after: bool) -> bool:
        """Whether the child was killed; False when it ended before step ``step``."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self._arm(step, after=after)
                act()
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return True
        assert os.waitstatus_to_exitcode(status) == 0
        return False

    def each_step(self, act: Callable[[], object]) -> Iterator[tuple[int, bool]]:
        """Kill ``act`` before and after each of its steps, one after another; the caller checks what each one left."""
        for after in (False, True):
            step = 1
            while self.killed_at(step, act, after=after):
                yield step, after
                step += 1
            assert step > 3, "nothing was instrumented"

    def _arm(self, step: int, *, after: bool) -> None:
        left = step

        def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal left
                left -= 1
                if left == 0 and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = real(*args, **kwargs)
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return call

        for name in KILLABLE:
            setattr(os, name, wrap(getattr(os, name)))


@pytest.fixture
def killer() -> Killer:
    return Killer()
