"""A build cache in a folder of the host, which other builds, users and hosts may read and write.

    minidock-cache.json        says what the folder is
    blobs/sha256/<diff ID>     layers, as plain tarballs
    records/<key>.json         which layer the step of that key made

Every file appears whole, under its name, by rename; a layer before the records that name it. So a folder that is
written by two builds at once holds what both have, and one whose writer was killed what that had finished. Nothing that
a reader finds is believed: files are opened below the folder without following any link, a layer is taken only if it
has the bytes that its name says, and no name comes out of a file's content.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from minidock.build.cache_records import MAX_RECORD, Offer, Used, decode_record, encode_record
from minidock.errors import CorruptObjectError, HostError, UsageError
from minidock.kernel.files import copy_range
from minidock.kernel.resolve import open_beneath
from minidock.model.digest import hex_of
from minidock.model.oci import decode_object
from minidock.store import locks
from minidock.store.files import hint_for, open_scratch, write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from minidock.store.blobs import Blobs

MARK = "minidock-cache.json"
_VERSION = 1
_BLOBS, _RECORDS = "blobs/sha256", "records"
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# A named pipe or a device of that name is not waited for.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE = 1 << 20


class CacheFolder:
    """A folder that is read. A context manager, which raises CorruptObjectError for a folder that is no cache, and
    OSError."""

    __slots__ = ("_blobs", "_open", "_records", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._open = ExitStack()
        self._blobs = self._records = -1

    def __enter__(self) -> CacheFolder:
        with ExitStack() as opened:
            top = os.open(self.path, _DIRECTORY)
            opened.callback(os.close, top)
            _check_mark(top)
            self._blobs = open_beneath(top, _BLOBS, _DIRECTORY, symlinks=False)
            opened.callback(os.close, self._blobs)
            self._records = open_beneath(top, _RECORDS, _DIRECTORY, symlinks=False)
            opened.callback(os.close, self._records)
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def find(self, key: str) -> Offer | None:
        """The record of a key, if there is one. Raises CorruptObjectError for a damaged one, OSError."""
        name = f"{hex_of(key)}.json"
        try:
            data = _read(self._records, name, limit=MAX_RECORD)
            return decode_record(data)
        except FileNotFoundError:
            return None
        except CorruptObjectError as error:
            raise CorruptObjectError(f"{_RECORDS}/{name}: {error.message}") from None

    def copy_layer(self, offer: Offer, path: str, on_copied: Callable[[int], None]) -> None:
        """Copy the layer of ``offer`` into a new file. Raises CorruptObjectError unless it has the size that the offer
        says and the bytes that its digest says, OSError."""
        assert offer.diff_id is not None
        name = hex_of(offer.diff_id)
        where = f"{_BLOBS}/{name}"
        with _open(self._blobs, name, where=where) as fd, open(path, "xb", buffering=0) as out:
            if os.fstat(fd).st_size != offer.size:
                raise CorruptObjectError(f"{where} is damaged: its size is not what the record says")
            known, count = hashlib.sha256(), 0
            while count < offer.size and (piece := os.read(fd, min(_PIECE, offer.size - count))):
                known.update(piece)
                write_all(out.fileno(), piece)
                count += len(piece)
                on_copied(count)
        if f"sha256:{known.hexdigest()}" != offer.diff_id:
            raise CorruptObjectError(f"{where} is damaged: its content has another digest")


def check_destination(path: str) -> None:
    """Refuse a folder that holds something else than a cache, and a place where there can be none. Raises UsageError.

    Writes nothing.
    """
    there = os.path.abspath(path)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        raise UsageError(f"cannot write a cache to {path}: {there} is not a folder", hint="give another folder")
    if os.path.isdir(path):
        with _explained(path):
            top = os.open(path, _DIRECTORY)
            try:
                _check_own(top, path)
            finally:
                os.close(top)


def write_folder(
    path: str, records: Collection[Used], blobs: Blobs, *, anew: Collection[str], on_copied: Callable[[int], None]
) -> int:
    """Add records with their layers to a folder, which is made if it is missing; how many bytes were copied.

    Layers that are there in their size are not copied again, but for those of ``anew`` (digests). A record whose layer
    the store has not is left out. Raises HostError where it cannot be written, UsageError as ``check_destination``.
    """
    with _explained(path), ExitStack() as opened:
        os.makedirs(path, 0o755, exist_ok=True)
        top = os.open(path, _DIRECTORY)
        opened.callback(os.close, top)
        if not _check_own(top, path):
            text = f'{{"version": {_VERSION}, "about": "a build cache of minidock, for build --cache-from"}}\n'
            _write(top, MARK, partial(write_all, data=text.encode()))
        folders = []
        for name in (_BLOBS.partition("/")[0], _BLOBS, _RECORDS):
            folders.append(_make(top, name))
            opened.callback(os.close, folders[-1])
        _, layers, named = folders
        for folder in (top, layers, named):
            _sweep(folder)
        sizes: dict[str, int] = {}
        copied = 0
        for diff_id in sorted({used.diff_id for used in records if used.diff_id is not None}):
            if blobs.has(diff_id):
                sizes[diff_id] = blobs.size(diff_id)
                copied += _add_layer(layers, diff_id, blobs, anew=diff_id in anew)
                on_copied(copied)
        for used in records:
            if used.diff_id is None or used.diff_id in sizes:
                data = encode_record(used, sizes.get(used.diff_id or "", 0))
                _write(named, f"{hex_of(used.key)}.json", partial(write_all, data=data))
        return copied


def _check_mark(top: int) -> None:
    try:
        version = decode_object(_read(top, MARK, limit=MAX_RECORD), what=f"file {MARK}").get("version")
    except FileNotFoundError:
        raise CorruptObjectError(f"it is no build cache of minidock: it has no {MARK}") from None
    if not isinstance(version, int) or version > _VERSION:
        raise CorruptObjectError(f"it is of a newer minidock: its {MARK} has version {str(version)[:20]}")


def _check_own(top: int, path: str) -> bool:
    """Whether a folder is a cache already; else it is empty. Raises UsageError for any other."""
    names = [name for name in os.listdir(top) if not _TEMPORARY.fullmatch(name)]
    if not names:
        return False
    try:
        _check_mark(top)
    except CorruptObjectError as error:
        raise UsageError(
            f"cannot write a cache to {path}: {error.message}",
            hint=f"choose an empty or new folder; this one holds {sorted(names)[0]!r}",
        ) from None
    return True


def _make(top: int, name: str) -> int:
    """A directory below the folder, made if it is missing. Links there are refused."""
    parent, _, last = name.rpartition("/")
    above = open_beneath(top, parent or ".", _DIRECTORY, symlinks=False)
    try:
        with suppress(FileExistsError):
            os.mkdir(last, 0o755, dir_fd=above)
    finally:
        os.close(above)
    return open_beneath(top, name, _DIRECTORY, symlinks=False)


def _add_layer(layers: int, diff_id: str, blobs: Blobs, *, anew: bool) -> int:
    """Copy a layer unless it is there; the bytes copied."""
    name = hex_of(diff_id)
    with blobs.open(diff_id) as source:
        size = os.fstat(source.fileno()).st_size
        with suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=layers, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and status.st_size == size and not anew:
                # Its time tells people which layers are of use still.
                os.utime(name, dir_fd=layers, follow_symlinks=False)
                return 0

        _write(layers, name, lambda fd: copy_range(source.fileno(), fd, size))
        return size


def _write(directory: int, name: str, fill: Callable[[int], object]) -> None:
    """Make or replace a file: it has its name when ``fill`` has written it. Never a link to a blob of the store, which
    whoever may write here could change."""
    fd, temporary = open_scratch(f"/proc/self/fd/{directory}", mode=0o644)
    temporary = os.path.basename(temporary)
    try:
        fill(fd)
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise
    finally:
        os.close(fd)


def _sweep(directory: int) -> None:
    """Remove what killed writers left half-written; those that live have it locked."""
    for name in filter(_TEMPORARY.fullmatch, os.listdir(directory)):
        with suppress(OSError, CorruptObjectError), _open(directory, name, where=name) as fd:
            if locks.try_lock(fd):
                os.unlink(name, dir_fd=directory)


def _read(directory: int, name: str, *, limit: int) -> bytes:
    with _open(directory, name, where=name) as fd:
        data = b""
        while piece := os.read(fd, limit + 1 - len(data)):
            data += piece
    if len(data) > limit:
        raise CorruptObjectError(f"it has more than {limit} bytes")
    return data


@contextmanager
def _open(directory: int, name: str, *, where: str) -> Iterator[int]:
    """A regular file, open for reading. Raises CorruptObjectError for anything else, OSError."""
    try:
        fd = open_beneath(directory, name, _READ, follow=False, symlinks=False)
    except OSError as error:
        if error.errno is not None and stat.S_ISLNK(_mode(directory, name)):
            raise CorruptObjectError(f"{where} is a symbolic link") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CorruptObjectError(f"{where} is not a regular file")
        yield fd
    finally:
        os.close(fd)


def _mode(directory: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except OSError:
        return 0


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Say where the cache could not be written when the kernel refused."""
    try:
        yield
    except OSError as error:
        raise HostError(f"cannot write the cache to {path}: {error.strerror}", hint=hint_for(error)) from error
