"""Named and anonymous volumes: ``volumes/<name>/_data`` and, beside it, ``volume.json``.

A volume is assembled under ``tmp/`` and appears by one rename, so a directory without ``volume.json`` is never one.

Copy-up (the image's files at the mount point become an empty volume's first content) keeps the ``_data`` directory,
which other containers may have mounted already, and goes under the volume's own lock:

1. the files are copied into ``copy-up.partial`` and, for volumes that outlive their container, synced;
2. ``copy-up.partial`` is renamed ``copy-up.complete``: from here on the copy is whole and only has to be moved;
3. its entries are moved into ``_data`` one by one, never over one that is there; ``_data`` takes the directory's owner,
   mode and attributes; ``copy-up.complete`` is removed.

What SIGKILL leaves: in step 1 a partial copy, which the next user of the volume throws away before it copies anew; in
step 3 a whole copy that is moved in part, which the next user of the volume (``ensure``, ``populate``, ``path_of``)
finishes moving before it goes on. Two simultaneous first users meet at the lock: one copies, the other finds it done.
Removal renames the whole directory into ``tmp/``, where what is left of it is swept.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import ConflictError, CorruptObjectError, MountSpecError, NoSuchVolumeError, StoreError
from minidock.kernel import files as kernel_files
from minidock.kernel import resolve
from minidock.model.digest import is_id
from minidock.model.names import check_name
from minidock.store import files, locks, staging

if TYPE_CHECKING:
    from minidock.store.layout import DataRoot

ANONYMOUS_LABEL = "com.docker.volume.anonymous"

_DATA = "_data"
_JSON = "volume.json"
_LOCK = "lock"
_PARTIAL = "copy-up.partial"
_COMPLETE = "copy-up.complete"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class Volume(NamedTuple):
    """A volume. ``created`` is nanoseconds since the epoch; ``anonymous`` volumes go with their container."""

    name: str
    mountpoint: str
    labels: tuple[tuple[str, str], ...]
    created: int
    anonymous: bool


class Volumes:
    """The volumes of a data root."""

    __slots__ = ("root",)

    def __init__(self, root: DataRoot) -> None:
        self.root = root

    def create(
        self, name: str = "", *, labels: Sequence[tuple[str, str]] = (), anonymous: bool = False, sync: bool = True
    ) -> Volume:
        """Make a volume, or return the one of that name as it is. Without a name it gets 64 random hexadecimal digits.

        ``sync`` puts it on disk before returning. Raises InvalidReferenceError for a bad name, StoreError.
        """
        if name:
            check_name(name, kind="volume")
        else:
            name, anonymous = os.urandom(32).hex(), True
        if anonymous:
            labels = ((ANONYMOUS_LABEL, ""), *labels)
        with locks.shared(self._lock):
            if not self.exists(name):
                volume = Volume(name, self._data(name), tuple(dict(labels).items()), time.time_ns(), anonymous)
                try:
                    self._make(volume, sync=sync)
                except OSError as error:
                    raise _store_error(f"cannot make volume {name!r}", error) from error
            return self.get(name)

    def exists(self, name: str) -> bool:
        """True when there is a volume of that name; a name that none can have is simply not there."""
        return not name.startswith(".") and "/" not in name and os.path.exists(f"{self.root.volumes}/{name}/{_JSON}")

    def get(self, name: str) -> Volume:
        """The volume of that name; raises NoSuchVolumeError, CorruptObjectError."""
        if not self.exists(name):
            raise NoSuchVolumeError(f"no such volume: {name}", hint=f"make it with: minidock volume create {name}")
        try:
            raw = files.read_json(f"{self.root.volumes}/{name}/{_JSON}")
            labels = tuple((str(key), str(value)) for key, value in (raw.get("labels") or {}).items())
            return Volume(name, self._data(name), labels, int(raw["created"]), bool(raw.get("anonymous", False)))
        except FileNotFoundError:
            raise NoSuchVolumeError(f"no such volume: {name}") from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CorruptObjectError(f"the record of volume {name!r} is damaged: {error}") from None

    def list(self) -> Sequence[Volume]:
        """All volumes by name. One that vanishes meanwhile is left out; one with a damaged record has no labels."""
        found = []
        for name in sorted(os.listdir(self.root.volumes)):
            try:
                found.append(self.get(name))
            except NoSuchVolumeError:
                continue
            except CorruptObjectError:
                found.append(Volume(name, self._data(name), (), 0, is_id(name)))
        return found

    def ensure(
        self,
        name: str,
        *,
        labels: Sequence[tuple[str, str]] = (),
        anonymous: bool = False,
        sync: bool = True,
        make: bool = True,
    ) -> Volume:
        """The volume of that name with no copy-up left half done, made if it is missing and ``make`` allows that.

        For one who is on record as a user of it: a removal that asked for users before has done its work when this
        looks, and a later one is refused. Raises NoSuchVolumeError, StoreError.
        """
        if make:
            volume = self.create(name, labels=labels, anonymous=anonymous, sync=sync)
        else:
            with locks.shared(self._lock):
                volume = self.get(name)
        self._finish_copy_up(name)
        return volume

    def path_of(self, name: str) -> str:
        """The directory that is mounted, with no copy-up left half done. Raises NoSuchVolumeError."""
        if not self.exists(name):
            raise NoSuchVolumeError(f"no such volume: {name}", hint=f"make it with: minidock volume create {name}")
        self._finish_copy_up(name)
        return self._data(name)

    def is_empty(self, name: str) -> bool:
        """True when nothing lies in the volume and no copy-up is under way or left half done."""
        if os.path.exists(self._in(name, _COMPLETE)):
            return False
        with os.scandir(self._data(name)) as entries:
            return not any(entries)

    def populate(self, name: str, source_root_fd: int, path: str, *, sync: bool = True) -> bool:
        """Copy-up: fill the volume, if it is empty, with what lies at ``path`` below the directory ``source_root_fd``.

        ``path`` is resolved inside that root, whatever links lie there; one that does not exist gives nothing. Returns
        whether the volume was filled. Raises MountSpecError when a file is in the way, StoreError when copying fails.
        """
        try:
            source = resolve.open_in_root(source_root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            raise MountSpecError(
                f"cannot mount volume {name!r} over the file {path!r} of the image", hint="choose a directory as target"
            ) from None
        try:
            with locks.exclusive(self._in(name, _LOCK)):
                return self._copy_up(name, source, sync=sync)
        except OSError as error:
            raise _store_error(
                f"cannot copy {error.filename or path} of the image into volume {name!r}", error
            ) from error
        finally:
            os.close(source)

    def remove(self, name: str, *, users: Sequence[str] | Callable[[], Sequence[str]] = ()) -> None:
        """Remove a volume that nobody uses.

        ``users`` are the IDs of containers that refer to it; a callable is asked under the lock that ``create`` and
        ``ensure`` respect, so that nobody becomes a user in between. Raises NoSuchVolumeError, ConflictError naming the
        users, StoreError.
        """
        try:
            with staging.Staging(self.root, "volume") as stage, locks.exclusive(self._lock):
                if not self.exists(name):
                    raise NoSuchVolumeError(f"no such volume: {name}")
                in_use = users() if callable(users) else users
                if in_use:
                    raise ConflictError(
                        f'volume "{name}" is in use - [{", ".join(user[:12] for user in in_use)}]',
                        hint="remove the containers first",
                    )
                os.rename(f"{self.root.volumes}/{name}", f"{stage.path}/{name}")
        except OSError as error:
            raise _store_error(f"cannot remove volume {name!r}", error) from error

    @property
    def _lock(self) -> str:
        return self.root.lock("volumes")

    def _data(self, name: str) -> str:
        return f"{self.root.volumes}/{name}/{_DATA}"

    def _in(self, name: str, entry: str) -> str:
        return f"{self.root.volumes}/{name}/{entry}"

    def _make(self, volume: Volume, *, sync: bool) -> None:
        record = {"name": volume.name, "created": volume.created, "labels": dict(volume.labels)}
        record["anonymous"] = volume.anonymous
        with staging.Staging(self.root, "volume") as stage:
            made = f"{stage.path}/{volume.name}"
            os.mkdir(made, 0o711)
            os.chmod(made, 0o711)
            os.mkdir(f"{made}/{_DATA}", 0o755)
            os.chmod(f"{made}/{_DATA}", 0o755)
            os.close(locks.open_lock(f"{made}/{_LOCK}"))
            files.write_json(f"{made}/{_JSON}", record, sync=sync, mode=0o644)
            try:
                kernel_files.renameat2(
                    -100, made, -100, f"{self.root.volumes}/{volume.name}", kernel_files.RENAME_NOREPLACE
                )
            except FileExistsError:
                if not self.exists(volume.name):
                    raise
            if sync:
                files.fsync_dir(self.root.volumes)

    def _finish_copy_up(self, name: str) -> None:
        if os.path.exists(self._in(name, _COMPLETE)):
            with locks.exclusive(self._in(name, _LOCK)):
                self._move_in(name)

    def _copy_up(self, name: str, source: int, *, sync: bool) -> bool:
        """Steps 1 to 3, under the lock."""
        from minidock.volumes import copytree

        self._move_in(name)
        files.remove_tree(self._in(name, _PARTIAL))
        if not self.is_empty(name):
            return False
        partial = self._in(name, _PARTIAL)
        os.mkdir(partial, 0o700)
        target = os.open(partial, _DIRECTORY)
        try:
            copytree.copy_contents(source, target)
            copytree.copy_metadata(source, target)
            if sync and not copytree.is_empty(target):
                kernel_files.syncfs(target)
        finally:
            os.close(target)
        os.rename(partial, self._in(name, _COMPLETE))
        self._move_in(name)
        return True

    def _move_in(self, name: str) -> None:
        """Step 3, under the lock; nothing to do where there is no whole copy."""
        from minidock.volumes import copytree

        complete = self._in(name, _COMPLETE)
        try:
            source = os.open(complete, _DIRECTORY)
        except FileNotFoundError:
            return
        try:
            target = os.open(self._data(name), _DIRECTORY)
            try:
                copytree.copy_metadata(source, target)
                for entry in os.listdir(source):
                    try:
                        kernel_files.renameat2(source, entry, target, entry, kernel_files.RENAME_NOREPLACE)
                    except OSError as error:
                        if error.errno != errno.EEXIST:
                            raise
            finally:
                os.close(target)
        finally:
            os.close(source)
        files.remove_tree(complete)


def _store_error(what: str, error: OSError) -> StoreError:
    return StoreError(f"{what}: {error.strerror}", hint=files.hint_for(error))
