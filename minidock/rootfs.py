"""Root file systems: the only place where the store's blobs and the storage driver's layers meet."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

from minidock.errors import ArchiveError, CorruptObjectError, StoreError
from minidock.kernel import mount
from minidock.kernel.lowers import close_lowers, open_lowers
from minidock.kernel.overlay import overlay
from minidock.model.digest import chain_id, hex_of
from minidock.model.oci import LAYER_TAR, Descriptor
from minidock.model.steps import OverlayMount, RootMount
from minidock.store import locks
from minidock.store.files import hint_for
from minidock.store.staging import Staging

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from hashlib import _Hash as Hash

    from minidock.drivers.compose import Composer
    from minidock.drivers.compression import Plain
    from minidock.drivers.interface import Change, Driver
    from minidock.drivers.packed import Packed
    from minidock.drivers.tar_format import Reader
    from minidock.drivers.verify import Flaw
    from minidock.log import Log
    from minidock.model.dating import Dating
    from minidock.store.blobs import Blobs
    from minidock.store.layout import DataRoot


# A layer's mount is let go when nobody used it for an hour; whether there are such is looked at every ten minutes.
_UNUSED = 3600
_REST_EVERY = 600


class Composed:
    """A layer on the way: entries go to ``composer``, in the order of a layer's tar; ``layer`` is what came of it, None
    when there were none."""

    __slots__ = ("composer", "layer")

    def __init__(self, composer: Composer) -> None:
        self.composer = composer
        self.layer: Descriptor | None = None


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
        """Have the layers ready to be mounted: index or unpack those that are not here yet; of several callers at once,
        one does the work and the others wait.

        Raises CorruptObjectError when a layer's tar is missing or not what its digest says, ArchiveError.
        """
        with _explained("find the layers"):
            missing = self.driver.missing(diff_ids)
        for count in missing:
            self._make(diff_ids[:count])
        with _explained("mount the layers"):
            if self.driver.share(diff_ids):
                self._let_rest(diff_ids)

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
        dating: Dating | None = None,
        store: Callable[[str, str], None] | None = None,
    ) -> Descriptor | None:
        """The writable layer as a layer above ``diff_ids``: None when it differs in nothing.

        The tar is stored as a blob, by ``store`` (a file in ``staging`` and its digest) if given, ``Blobs.adopt`` else,
        and becomes the driver's layer; a layer that is here already is not stored again. ``staging`` leans on it until
        the caller has named it in an image. ``stubs``, ``omit`` and ``dating`` are as in ``Driver.pack``. The writable
        layer is used up. Raises ArchiveError for what a layer cannot hold.
        """
        path = f"{staging.path}/layer-{os.urandom(8).hex()}.tar"
        with _explained("store the layer"):
            with open(path, "xb", buffering=0) as out:
                packed = self.driver.pack(diff_ids, writable_dir, out, stubs=stubs, omit=omit, dating=dating)
            if packed.empty:
                os.unlink(path)
                return None
            chain = self._lean(diff_ids, packed, staging)
            self.driver.adopt(chain, writable_dir, packed, tar=self._lies(packed.diff_id, path, packed.size))
            (store or self.blobs.adopt)(path, packed.diff_id)
        return Descriptor(LAYER_TAR, packed.diff_id, packed.size)

    @contextmanager
    def compose(
        self,
        diff_ids: Sequence[str],
        staging: Staging,
        *,
        store: Callable[[str, str], None] | None = None,
        on_written: Callable[[int], None] | None = None,
    ) -> Iterator[Composed | None]:
        """Write a layer above ``diff_ids``, which are here, entry by entry and without a writable layer; None where the
        driver cannot do that. When the context ends without an exception, ``Composed.layer`` is what ``commit`` gives.
        ``on_written`` is told the bytes so far.
        """
        path = f"{staging.path}/layer-{os.urandom(8).hex()}.tar"
        with open(path, "xb", buffering=0) as out, self.driver.compose(diff_ids, out) as composer:
            if composer is None:
                os.unlink(path)
                yield None
                return
            composed = Composed(composer)
            if on_written is not None:
                composer.watch(on_written)
            try:
                yield composed
                packed = composer.finish()
            except BaseException as error:
                os.unlink(path)
                if isinstance(error, OSError) and error.filename is None:
                    # What has no name is the layer that was being written.
                    with _explained("store the layer"):
                        raise
                raise
        if packed.empty:
            os.unlink(path)
            return
        with _explained("store the layer"):
            chain = self._lean(diff_ids, packed, staging)
            if packed.sealed is not None:
                self.driver.publish(chain, packed.sealed, tar=self._lies(packed.diff_id, path, packed.size))
                (store or self.blobs.adopt)(path, packed.diff_id)
            else:
                # It has to be unpacked, and that is done from the blob.
                self.blobs.adopt(path, packed.diff_id)
        composed.layer = Descriptor(LAYER_TAR, packed.diff_id, packed.size)

    def _lies(self, diff_id: str, path: str, size: int) -> str:
        """Where to mount a tar from: the blob where it is there already, since the new file will go then."""
        return self.blobs.path(diff_id) if self.blobs.is_there(diff_id, size) else path

    def _lean(self, diff_ids: Sequence[str], packed: Packed, staging: Staging) -> tuple[str, ...]:
        chain = (*diff_ids, packed.diff_id)
        staging.lean_on({packed.diff_id, chain_id(chain)})
        if packed.problem:
            self.log.debug(f"unpack layer {packed.diff_id}: no index can hold it: {packed.problem}")
        return chain

    def import_layer(self, tar: Reader, staging: Staging, *, diff_id: str = "") -> Descriptor:
        """Store a tar stream, plain or compressed with gzip, bzip2, xz or zstandard, as a layer's plain tar.

        Raises ArchiveError when it is malformed, truncated or would reach outside of its root, CorruptObjectError when
        it is not ``diff_id``, if that is given.
        """
        from minidock.drivers import compression
        from minidock.drivers.tar_reader import TarReader

        path = f"{staging.path}/import-{os.urandom(8).hex()}.tar"
        with _explained("store the archive"), self.driver.indexer() as indexer:
            with open(path, "xb") as out:
                tee = _Tee(compression.Plain(tar), out)
                reader = TarReader(tee)
                for entry in reader:
                    if indexer is not None:
                        indexer.add(entry, reader.offset)
            if not reader.ended:
                raise ArchiveError("the tar stream is truncated: it has no end-of-archive mark")
            if diff_id and tee.digest != diff_id:
                raise CorruptObjectError(f"a layer unpacks to {tee.digest}, and the configuration says {diff_id}")
            staging.lean_on([tee.digest])
            index = None if indexer is None else indexer.finish(diff_id=tee.digest, tar_size=tee.size)
            if index is not None:
                self.driver.publish([tee.digest], index, tar=self._lies(tee.digest, path, tee.size))
            self.blobs.adopt(path, tee.digest)
        return Descriptor(LAYER_TAR, tee.digest, tee.size)

    def extract(
        self, archive: Reader, root_fd: int, directory: str, *, whole: bool = False, mtime: int | None = None
    ) -> None:
        """Unpack an archive, plain or compressed, into ``directory`` (relative to the root, "" for the root itself) of
        a root file system that ``open_root`` gave: owners, times, links and attributes as the archive has them.

        Directories that the archive lacks get ``mtime``, or the time at which they are made. ``whole`` is for a tree of
        its own: they are as old as time, and the end mark must be there. No path, link or hard link leads outside of
        the root. Raises ArchiveError.
        """
        from minidock.drivers import compression
        from minidock.drivers.tar_reader import TarReader
        from minidock.drivers.unpack import extract

        with _explained("unpack the archive"):
            reader = TarReader(compression.Plain(archive))
            extract(reader, root_fd, directory.strip("/"), mtime=0 if whole else mtime)
            if whole and not reader.ended:
                raise ArchiveError("the tar stream is truncated: it has no end-of-archive mark")

    def changes(self, diff_ids: Sequence[str], writable_dir: str) -> list[Change]:
        """What the writable layer changes, as ``diff`` lists it; it may be in use."""
        with _explained("compare the writable layer"):
            return list(self.driver.changes(diff_ids, writable_dir))

    def verify(self, diff_ids: Sequence[str]) -> list[Flaw]:
        """What is wrong with what the driver has of the topmost layer, whose tarball is here and whole.

        Raises ArchiveError when that is no layer.
        """
        with _explained(f"check the layer {diff_ids[-1]}"), self.blobs.open(diff_ids[-1]) as file:
            return self.driver.verify(diff_ids, file)

    def discard(self, flaw: Flaw) -> None:
        """Remove what ``verify`` found; it is made again when it is next needed."""
        with _explained("remove what is damaged of a layer"):
            self.driver.discard(flaw)

    def settle(self) -> None:
        """Put the unpacked layers on disk. Without it they are correct until the next boot and made again after it."""
        with _explained("write the layers out"):
            self.driver.settle()

    def _make(self, chain: Sequence[str]) -> None:
        lock = f"{self.root.run}/unpack-{self.driver.name}-{hex_of(chain_id(chain))}.lock"
        with _explained(f"unpack the layer {chain[-1]}"):
            os.makedirs(self.root.run, 0o700, exist_ok=True)
            with locks.exclusive(lock), Staging(self.root, "unpack") as staging:
                if not self.driver.has(chain) and not self._index(chain):
                    self.log.debug(f"unpack layer {chain[-1]}")
                    with self.blobs.open(chain[-1]) as file:
                        self.driver.unpack(chain, Verified(file, chain[-1]), staging.path)

    def _index(self, chain: Sequence[str]) -> bool:
        """Make the index of a layer's tar, if it can be mounted so."""
        from minidock.drivers.tar_reader import TarReader

        with self.driver.indexer(chain) as indexer:
            if indexer is None:
                return False
            with self.blobs.open(chain[-1]) as file:
                reader = TarReader(Verified(file, chain[-1]))
                for entry in reader:
                    indexer.add(entry, reader.offset)
                size = os.fstat(file.fileno()).st_size
            index = indexer.finish(diff_id=chain[-1], tar_size=size)
        if index is None:
            self.log.debug(f"unpack layer {chain[-1]}: no index can hold it: {indexer.problem}")
            return False
        self.log.debug(f"index layer {chain[-1]}")
        self.driver.publish(chain, index, tar=self.blobs.path(chain[-1]))
        return True

    def _let_rest(self, diff_ids: Sequence[str]) -> None:
        """Now and then, when one of ``diff_ids`` is mounted that was not, let go of others that no container has and
        nobody used for long: what is mounted would else only grow until the next boot."""
        stamp = f"{self.root.run}/layers.rested"
        try:
            # A stamp of the future is one of a clock that was set back since.
            if 0 <= time.time() - os.stat(stamp).st_mtime < _REST_EVERY:
                return
        except FileNotFoundError:
            pass
        with open(stamp, "wb"):
            pass
        from minidock.store.collector import contained

        self.driver.rest(contained(self.root, diff_ids), seconds=_UNUSED)


def is_archive(stream: BinaryIO) -> bool:
    """Whether a seekable stream is a tar archive, plain or compressed as ``import_layer`` reads it; it is rewound."""
    from minidock.drivers.compression import is_archive as probe

    return probe(stream)


def begins_archive(head: bytes) -> bool:
    """Whether a stream that begins with these 512 bytes, or is no longer, is a tar archive, plain or compressed."""
    from minidock.drivers import compression

    return (len(head) == 512 and not any(head)) or compression.is_compressed(head) or is_archive(BytesIO(head))


class Verified:
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
        lowers = open_lowers(root.lowers)
        try:
            mixed = any(isinstance(lower, int) for lower in lowers)
            return overlay(lowers, upper=root.upper, work=root.work, volatile=root.volatile, xino=mixed)
        finally:
            close_lowers(lowers)
    if root.read_only:
        return overlay([root.path])
    return mount.open_tree(root.path)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Say what was being done when the kernel refused."""
    try:
        yield
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise StoreError(f"cannot {what}: {place}{error.strerror or error}", hint=hint_for(error)) from error
