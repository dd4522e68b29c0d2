"""SIGKILL at any instant: what was acknowledged stays, and the next command finds nothing half-made."""

from __future__ import annotations

import io
import os
import signal
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from minidock.log import Log
from minidock.rootfs import Rootfs
from minidock.store.layout import DataRoot
from minidock.store.staging import Staging, sweep

T0 = 1_500_000_000
_EVENTS = ("open", "os.", "shutil.")


def _archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("a", "b", "d/c"):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = 4, T0
            tar.addfile(member, io.BytesIO(b"data"))
    return out.getvalue()


def _root(folder: Path) -> DataRoot:
    root = DataRoot(str(folder / "root"), run=str(folder / "run"))
    root.ensure()
    return root


def _work(rootfs: Rootfs) -> tuple[str, ...]:
    """An import, its unpacking, and a layer above it; the same each time."""
    with Staging(rootfs.root, "import") as staging:
        base = rootfs.import_layer(io.BytesIO(_archive()), staging).digest
        rootfs.ensure((base,))
    with Staging(rootfs.root, "step") as staging:
        writable = f"{staging.path}/writable"
        os.mkdir(writable)
        rootfs.prepare((base,), writable)
        with rootfs.open_root((base,), writable) as fd:
            os.unlink("a", dir_fd=fd)
            os.close(os.open("new", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd))
            for path in ("new", "."):
                os.utime(path, (T0, T0), dir_fd=fd)
        layer = rootfs.commit((base,), writable, staging)
        assert layer is not None
    return base, layer.digest


def _killed_after(events: int, rootfs: Rootfs) -> bool:
    """Do the work in a child that kills itself after so many calls to the system; False when it got to the end."""
    child = os.fork()
    if child == 0:
        left = events

        def hook(event: str, _: object) -> None:
            nonlocal left
            if event.startswith(_EVENTS) and event != "os.kill":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            _work(rootfs)
        except BaseException:
            os._exit(9)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in {0, -signal.SIGKILL}
    return status != 0


@pytest.mark.parametrize("name", ["overlay2", "overlay2-tarball", "vfs"])
def test_killed_at_many_points_the_work_is_done_again(
    tmp_path: Path, name: str, open_storage: Callable[..., Rootfs]
) -> None:
    (tmp_path / "reference").mkdir()
    expected = _work(open_storage(_root(tmp_path / "reference"), name, Log(fd=-1)))
    points = 0
    for events in range(0, 4000, 4):
        folder = tmp_path / str(events)
        folder.mkdir()
        rootfs = open_storage(_root(folder), name, Log(fd=-1))
        killed = _killed_after(events, rootfs)
        sweep(rootfs.root)
        assert os.listdir(rootfs.root.tmp) == []
        for count in (1, 2):
            if rootfs.driver.has(expected[:count]):
                rootfs.ensure(expected[:count])
                with rootfs.open_root(expected[:count], None) as fd:
                    present = ["b", "d/c", "a" if count == 1 else "new"]
                    assert [os.stat(path, dir_fd=fd).st_size for path in present] == [4, 4, 4 if count == 1 else 0]
        assert _work(rootfs) == expected
        if not killed:
            break
        points += 1
    assert points > 20
