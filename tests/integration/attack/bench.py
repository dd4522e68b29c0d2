"""What takes archives apart by the engine's own functions, beside a directory that they must not reach."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

from minidock.drivers import layer_tree, trees, unpack
from minidock.drivers.compression import Plain
from minidock.drivers.tar_reader import TarReader
from minidock.drivers.tarballs import seal
from tests.integration.attack import forger


class Bench:
    """A directory ``layer`` to unpack to, with ``below`` as the layers beneath and a ``victim`` beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layer, self.below, self.victim = (folder / name for name in ("layer", "below", "victim"))
        for path in (self.below, self.victim):
            path.mkdir()
        (self.victim / "treasure").write_text("treasure")

    @property
    def outside(self) -> bytes:
        return os.fsencode(self.victim)

    def tree(self, *parts: bytes) -> str:
        """Unpack a layer and write its marks, as the driver does: the names in the layer."""
        subprocess.run(["rm", "-rf", self.layer], check=True)
        self.layer.mkdir()
        archive = b"".join(parts) + forger.END
        with trees.opened(str(self.layer)) as fd, trees.opened(str(self.below)) as below:
            unpack.write_marks(unpack.unpack_layer(TarReader(Plain(io.BytesIO(archive))), fd, lambda: below), fd)
        return " ".join(sorted(os.listdir(self.layer)))

    def index(self, *parts: bytes) -> str:
        """Make the index of a layer, which reads it again strictly: the names in its root."""
        archive = b"".join(parts) + forger.END
        with trees.opened(str(self.below)) as below:
            scanned = layer_tree.scan(TarReader(Plain(io.BytesIO(archive))), lambda: below)
            seal(scanned, diff_id=f"sha256:{'0' * 64}", tar_size=len(archive))
        return " ".join(sorted(os.fsdecode(name) for name in scanned.root.children or ()))

    def added(self, where: str, *parts: bytes) -> str:
        """Unpack an archive into a directory of the tree that is there, as ADD does."""
        with trees.opened(str(self.layer)) as fd:
            unpack.extract(TarReader(Plain(io.BytesIO(b"".join(parts) + forger.END))), fd, where)
        return "added"


def entries(archive: bytes, end: bytes = forger.END) -> str:
    """How many entries the reader finds."""
    return str(sum(1 for _ in TarReader(Plain(io.BytesIO(archive + end)))))
