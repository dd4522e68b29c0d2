"""The directories of ``RUN --mount=type=cache``: kept from build to build, shared or not as each RUN asks.

A cache is ``cache/mounts/<sha256 of its ID>/``: ``mount.json`` names it, for people and for ``builder du``; ``data`` is
the directory itself; ``data-2`` and so on are further ones, for RUNs that want one of their own while the others are in
use. The lock of a directory is the flock(2) of the directory itself: shared for ``shared``, alone for the others.
Whoever uses any of them holds the folder's lock shared, and who removes the folder holds it alone.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import CorruptObjectError, StoreError
from minidock.kernel.files import RENAME_NOREPLACE, lock_exclusive, lock_shared, renameat2
from minidock.kernel.syscall import AT_FDCWD
from minidock.model.run_mounts import PRIVATE, SHARED
from minidock.store import locks
from minidock.store.files import hint_for, read_json, remove_tree, write_json

if TYPE_CHECKING:
    from minidock.store.layout import DataRoot

_RECORD = "mount.json"
_DATA = "data"
_MAX_RECORD = 64 * 1024
_MOST = 1000
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class CacheDirectory(NamedTuple):
    """A cache as lists show it: ``name`` is its folder's, ``problem`` says what is damaged or is empty. ``created`` and
    ``used`` are nanoseconds since the epoch."""

    name: str
    id: str
    created: int
    used: int
    busy: bool
    problem: str = ""


def cache_name(cache_id: str) -> str:
    """The folder's name of a cache ID: nothing of a stranger's text becomes a path."""
    return hashlib.sha256(cache_id.encode("utf-8", "surrogateescape")).hexdigest()


class CacheMounts:
    """The caches of a data root."""

    __slots__ = ("_root", "directory")

    def __init__(self, root: DataRoot) -> None:
        self._root = root
        self.directory = f"{root.cache}/mounts"

    @contextmanager
    def hold(
        self,
        cache_id: str,
        sharing: str,
        *,
        staging: str,
        fill: Callable[[str], None],
        before_waiting: Callable[[], None] = lambda: None,
    ) -> Iterator[str]:
        """A directory of the cache, locked as ``sharing`` says as long as the context lasts; waits where it has to,
        and calls ``before_waiting`` then.

        One that is missing is made in ``staging`` and given its content, owner and mode there by ``fill``, which is
        called with its path. Raises StoreError, and what the callables raise.
        """
        with ExitStack() as opened:
            try:
                folder = self._enter(cache_id, staging, opened)
                path = _take(folder, lambda fd: _lock(fd, sharing, before_waiting), staging, fill, opened)
            except OSError as error:
                raise StoreError(
                    f"cannot use the cache mount {cache_id!r}: {error.filename or self.directory}: {error.strerror}",
                    hint=hint_for(error) or "`minidock system check` looks for damage",
                ) from error
            yield path

    def list(self) -> list[CacheDirectory]:
        """All caches, damaged ones with what is wrong, by folder name. Raises OSError."""
        try:
            names = sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return []
        found = []
        for name in names:
            with suppress(FileNotFoundError):
                found.append(_look(f"{self.directory}/{name}", name))
        return found

    def remove(self, name: str) -> bool:
        """Remove a cache by its folder's name unless a RUN uses it; whether it is gone. Raises OSError."""
        path = f"{self.directory}/{name}"
        away = f"{self._root.tmp}/cache-{os.urandom(8).hex()}"
        try:
            fd = os.open(path, _FLAGS)
        except FileNotFoundError:
            return True
        except NotADirectoryError:
            os.unlink(path)
            return True
        try:
            if not locks.try_lock(fd):
                return False
            if locks.is_at(path, fd):
                # The lock goes along: what a killed removal leaves in tmp is swept, and this is not meanwhile.
                os.rename(path, away)
                remove_tree(away)
            return True
        finally:
            os.close(fd)

    def _enter(self, cache_id: str, staging: str, opened: ExitStack) -> str:
        """The cache's folder, made where it is missing, in which nobody removes anything meanwhile."""
        path = f"{self.directory}/{cache_name(cache_id)}"
        while True:
            os.makedirs(self.directory, 0o700, exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
            try:
                fd = os.open(path, _FLAGS)
            except FileNotFoundError:
                continue
            with ExitStack() as attempt:
                attempt.callback(os.close, fd)
                lock_shared(fd)
                if locks.is_at(path, fd):
                    opened.enter_context(attempt.pop_all())
                    break
        try:
            os.utime(f"{path}/{_RECORD}")
        except FileNotFoundError:
            record = {"id": cache_id, "created": time.time_ns()}
            write_json(f"{path}/{_RECORD}", record, sync=False, scratch=staging)
        return path


def _take(
    folder: str, lock: Callable[[int], bool], staging: str, fill: Callable[[str], None], opened: ExitStack
) -> str:
    """Lock one of the directories in ``folder``, the first unless it has to be one of its own."""
    for number in range(1, _MOST):
        path = f"{folder}/{_DATA}" if number == 1 else f"{folder}/{_DATA}-{number}"
        fd = _open(path, staging, fill)
        with ExitStack() as attempt:
            attempt.callback(os.close, fd)
            if lock(fd):
                opened.enter_context(attempt.pop_all())
                return path
    raise OSError(errno.EBUSY, "all its directories are in use", folder)


def _open(path: str, staging: str, fill: Callable[[str], None]) -> int:
    """A directory of a cache, made where it is missing."""
    with suppress(FileNotFoundError):
        return os.open(path, _FLAGS)
    made = f"{staging}/cache-{os.urandom(8).hex()}"
    os.mkdir(made, 0o700)
    try:
        fill(made)
        # Somebody else may have been quicker.
        with suppress(FileExistsError):
            renameat2(AT_FDCWD, made, AT_FDCWD, path, RENAME_NOREPLACE)
    finally:
        remove_tree(made)
    return os.open(path, _FLAGS)


def _lock(fd: int, sharing: str, before_waiting: Callable[[], None]) -> bool:
    if sharing == PRIVATE:
        return locks.try_lock(fd)
    if lock_shared(fd, block=False) if sharing == SHARED else locks.try_lock(fd):
        return True
    before_waiting()
    return lock_shared(fd) if sharing == SHARED else lock_exclusive(fd)


def _look(path: str, name: str) -> CacheDirectory:
    """A cache as it is. Raises FileNotFoundError for one that is gone."""
    used = os.lstat(path).st_mtime_ns
    try:
        fd = os.open(path, _FLAGS)
    except NotADirectoryError:
        return CacheDirectory(name, "", 0, used, False, "it is no folder")
    try:
        # Who would take it in this very instant waits for the look's end.
        busy = not locks.try_lock(fd)
    finally:
        os.close(fd)
    try:
        used = os.lstat(f"{path}/{_RECORD}").st_mtime_ns
        record = read_json(f"{path}/{_RECORD}", limit=_MAX_RECORD)
        cache_id, created = record.get("id"), record.get("created")
        problem = ""
        if not isinstance(cache_id, str) or not isinstance(created, int):
            cache_id, created, problem = "", 0, f"{_RECORD} does not name it"
        elif cache_name(cache_id) != name:
            problem = "its name is not the digest of its ID"
    except FileNotFoundError:
        cache_id, created, problem = "", 0, f"{_RECORD} is missing"
    except CorruptObjectError as error:
        cache_id, created, problem = "", 0, error.message
    # A build that has just begun has not written the record yet.
    return CacheDirectory(name, cache_id, created, used, busy, "" if busy else problem)
