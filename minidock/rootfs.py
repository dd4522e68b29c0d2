"""Root file systems: the only place where the store's blobs and the storage driver's layers meet."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from minidock.errors import ArchiveError, CorruptObjectError, StoreError
from minidock.kernel import mount
from minidock.model.digest import chain_id, hex_of
from minidock.model.oci import LAYER_TAR, Descriptor
from minidock.model.steps import OverlayMount, RootMount
from minidock.store import locks
from minidock.store.files import hint_for
from minidock.store.staging import Staging

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from hashlib import _Hash as Hash

    from minidock.drivers.compression import Plain
    from minidock.drivers.interface import Change, Driver
    from minidock.log import Log
    from minidock.store.blobs import Blobs
    from minidock.store.layout import DataRoot


class Rootfs:
    """Layers, named by diff IDs (lowest first), as root file systems of a data root under one storage driver.

    A writable layer is a directory of the caller's on the data root's file system; whoever removes it does so when
    nothing has it mounted. Methods raise StoreError where the file system or the kernel refuses.
    """

    __slots__ = ("blobs", "driver", "log", "root")

    def __init__(self, root: DataRoot, driver: Driver, blobs: Blobs, log: Log) -> None:
        self.root = root
        self.driver = driver
        self.blobs = blobs
        self.log = log

    def ensure(self, diff_ids: Sequence[str]) -> None:
        """Unpack the layers that are not here yet; of several callers at once, one does the work and the others wait.

        Raises CorruptObjectError when a layer's tar is missing or not what its digest says, ArchiveError.
        """
        for count in range(1, len(diff_ids) + 1):
            chain = diff_ids[:count]
            if not self.driver.has(chain):
                self._unpack(chain)

    def prepare(self, diff_ids: Sequence[str], writable_dir: str) -> None:
        """Put a fresh writable layer above the layers, which are here, into the directory."""
        with _explained("make the writable layer"):
            self.driver.prepare(diff_ids, writable_dir)

    def mounts(self, diff_ids: Sequence[str], writable_dir: str | None, *, durable: bool = False) -> RootMount:
        """What to mount as the root: the layers and the writable one above; read-only without it.

        ``durable`` is as in ``Driver.mounts``.
        """
        with _explained("find the layers"):
            return self.driver.mounts(diff_ids, writable_dir, durable=durable)

    @contextmanager
    def open_root(self, diff_ids: Sequence[str], writable_dir: str | None) -> Iterator[int]:
        """The merged tree as a directory descriptor, through a mount that no process's mount table shows.

        No process may have the writable layer mounted meanwhile.
        """
        with _explained("open the root file system"):
            fd = _open_mount(self.driver.mounts(diff_ids, writable_dir))
        try:
            yield fd
        finally:
            os.close(fd)

    def commit(
        self,
        diff_ids: Sequence[str],
        writable_dir: str,
        staging: Staging,
        *,
        stubs: Collection[str] = (),
        omit: bool = True,
        store: Callable[[str, str], None] | None = None,
    ) -> Descriptor | None:
        """The writable layer as a layer above ``diff_ids``: None when it differs in nothing.

        The tar is stored as a blob, by ``store`` (a file in ``staging`` and its digest) if given, ``Blobs.adopt`` else,
        and the tree becomes the driver's layer; a layer that is here already is not stored again. ``staging`` leans on
        it until the caller has named it in an image. ``stubs`` and ``omit`` are as in ``Driver.pack``. The writable
        layer is used up. Raises ArchiveError for what a layer cannot hold.
        """
        path = f"{staging.path}/layer-{os.urandom(8).hex()}.tar"
        with _explained("store the layer"):
            with open(path, "xb", buffering=0) as out:
                packed = self.driver.pack(diff_ids, writable_dir, out, stubs=stubs, omit=omit)
            if packed.empty:
                os.unlink(path)
                return None
            chain = (*diff_ids, packed.diff_id)
            staging.lean_on({packed.diff_id, chain_id(chain)})
            (store or self.blobs.adopt)(path, packed.diff_id)
            self.driver.adopt(chain, writable_dir)
        return Descriptor(LAYER_TAR, packed.diff_id, packed.size)

    def import_layer(self, tar: BinaryIO, staging: Staging) -> Descriptor:
        """Store a tar stream, plain or compressed with gzip, bzip2 or xz, as a layer's plain tar.

        Raises ArchiveError when it is malformed, truncated or would reach outside of its root.
        """
        from minidock.drivers import compression
        from minidock.drivers.tar_reader import TarReader

        path = f"{staging.path}/import-{os.urandom(8).hex()}.tar"
        with _explained("store the archive"):
            with open(path, "xb") as out:
                tee = _Tee(compression.Plain(tar), out)
                reader = TarReader(tee)
                for _ in reader:
                    continue
            if not reader.ended:
                raise ArchiveError("the tar stream is truncated: it has no end-of-archive mark")
            staging.lean_on([tee.digest])
            self.blobs.adopt(path, tee.digest)
        return Descriptor(LAYER_TAR, tee.digest, tee.size)

    def extract(self, archive: BinaryIO, root_fd: int, directory: str) -> None:
        """Unpack an archive, plain or compressed, into ``directory`` (relative to the root, "" for the root itself) of
        a root file system that ``open_root`` gave: owners, times, links and attributes as the archive has them.

        No path, link or hard link leads outside of the root. Raises ArchiveError.
        """
        from minidock.drivers import compression
        from minidock.drivers.tar_reader import TarReader
        from minidock.drivers.unpack import extract

        with _explained("unpack the archive"):
            extract(TarReader(compression.Plain(archive)), root_fd, directory.strip("/"))

    def changes(self, diff_ids: Sequence[str], writable_dir: str) -> list[Change]:
        """What the writable layer changes, as ``diff`` lists it; it may be in use."""
        with _explained("compare the writable layer"):
            return list(self.driver.changes(diff_ids, writable_dir))

    def settle(self) -> None:
        """Put the unpacked layers on disk. Without it they are correct until the next boot and made again after it."""
        with _explained("write the layers out"):
            self.driver.settle()

    def _unpack(self, chain: Sequence[str]) -> None:
        lock = f"{self.root.run}/unpack-{self.driver.name}-{hex_of(chain_id(chain))}.lock"
        with _explained(f"unpack the layer {chain[-1]}"):
            os.makedirs(self.root.run, 0o700, exist_ok=True)
            with locks.exclusive(lock), Staging(self.root, "unpack") as staging:
                if self.driver.has(chain):
                    return
                self.log.debug(f"unpack layer {chain[-1]}")
                with self.blobs.open(chain[-1]) as file:
                    self.driver.unpack(chain, _Verified(file, chain[-1]), staging.path)


def is_archive(stream: BinaryIO) -> bool:
    """Whether a seekable stream is a tar archive, plain or compressed with gzip, bzip2 or xz; it is rewound."""
    from minidock.drivers.compression import is_archive as probe

    return probe(stream)


class _Verified:
    """A blob that is read to its end; the end is refused when the content is not what the digest says."""

    __slots__ = ("_digest", "_hash", "_stream")

    def __init__(self, stream: BinaryIO, digest: str) -> None:
        self._stream = stream
        self._digest = digest
        self._hash = _sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        if not data and size and f"sha256:{self._hash.hexdigest()}" != self._digest:
            raise CorruptObjectError(f"the layer {self._digest} is damaged: its content has another digest")
        return data


class _Tee:
    """A stream that is written to a file and hashed as it is read."""

    __slots__ = ("_hash", "_out", "_stream", "size")

    def __init__(self, stream: Plain, out: BinaryIO) -> None:
        self._stream = stream
        self._out = out
        self._hash = _sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        self._out.write(data)
        self.size += len(data)
        return data


def _sha256() -> Hash:
    """hashlib's, imported when something is hashed: it loads OpenSSL, which `run` has no use for."""
    import hashlib

    return hashlib.sha256()


def _open_mount(root: RootMount) -> int:
    """A detached mount of a root file system."""
    if isinstance(root, OverlayMount):
        return mount.overlay(root.lowers, upper=root.upper, work=root.work, volatile=root.volatile)
    if root.read_only:
        return mount.overlay([root.path])
    return mount.open_tree(root.path)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Say what was being done when the kernel refused."""
    try:
        yield
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise StoreError(f"cannot {what}: {place}{error.strerror or error}", hint=hint_for(error)) from error
