"""Containers' records on disk: one folder for each, and a symbolic link for each name.

A folder appears and vanishes by one rename, so that nobody sees half of one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from minidock.errors import ConflictError, CorruptObjectError, InvalidReferenceError, NoSuchContainerError, StoreError
from minidock.model.container import (
    EXITED,
    Record,
    State,
    record_from_json,
    record_to_json,
    state_from_json,
)
from minidock.model.digest import is_digest, is_id
from minidock.model.names import check_name
from minidock.store import files, locks
from minidock.store.staging import Staging

if TYPE_CHECKING:
    from minidock.store.layout import DataRoot

_RECORD = "container.json"
_STATE = "state.json"
_STATE_TYPES = tuple(map(type, State()))
_UNKNOWN_EXIT = 255
_HEX = frozenset("0123456789abcdef")


def new_id() -> str:
    """A new container ID: 64 hexadecimal digits, of which the first twelve are not all decimal (as docker's)."""
    while True:
        value = os.urandom(32).hex()
        if not value[:12].isdecimal():
            return value


class ContainerStore:
    """The containers of a data root."""

    __slots__ = ("root",)

    def __init__(self, root: DataRoot) -> None:
        self.root = root

    def lock_path(self, container_id: str) -> str:
        """The lock that the container's monitor holds as long as it lives."""
        return self.root.container_lock(container_id)

    def create(self, record: Record, state: State, fill: Callable[[str], None]) -> None:
        """Assemble a container's folder in ``tmp/`` and let it appear under its ID and name at once.

        ``fill`` is called with the folder's path for the time being, to put more into it; it must not keep the path. A
        container that removes itself is not synced. Raises ConflictError when the name is taken, StoreError; whatever
        ``fill`` raises is passed on, and nothing of the container is left.
        """
        check_name(record.name, kind="container")
        sync = not record.settings.auto_remove
        try:
            with Staging(self.root, prefix=f"container-{record.id[:12]}") as staging:
                os.chmod(staging.path, 0o710)
                files.write_json(f"{staging.path}/{_RECORD}", record_to_json(record), sync=False)
                files.write_json(f"{staging.path}/{_STATE}", state._asdict(), sync=False)
                os.close(locks.open_lock(f"{staging.path}/lock"))
                fill(staging.path)
                if sync:
                    _sync_files(staging.path)
                with locks.exclusive(self.root.containers_lock):
                    self._publish(record, staging.path)
                if sync:
                    files.fsync_dir(self.root.names)
                    files.fsync_dir(self.root.containers)
        except OSError as error:
            where = error.filename or self.root.tmp
            raise StoreError(
                f"cannot create the container {record.name}: {where}: {error.strerror}", hint=files.hint_for(error)
            ) from error

    def load(self, container_id: str) -> Record:
        """The record. Raises NoSuchContainerError, CorruptObjectError."""
        record = record_from_json(self._read(container_id, _RECORD))
        if record.id != container_id:
            raise CorruptObjectError(f"the record of the container {container_id} is another's: {record.id}")
        return record

    def state(self, container_id: str) -> State:
        """The state as it was last written. Raises NoSuchContainerError, CorruptObjectError."""
        state = state_from_json(self._read(container_id, _STATE))
        if tuple(map(type, state)) != _STATE_TYPES:
            name = next(n for n, v, t in zip(State._fields, state, _STATE_TYPES, strict=True) if type(v) is not t)
            raise CorruptObjectError(f"the state of the container {container_id} is damaged: {name}")
        return state

    def write_state(self, container_id: str, state: State, *, sync: bool) -> None:
        """Replace the state. Raises NoSuchContainerError when the container has gone, StoreError."""
        path = f"{self.root.container_dir(container_id)}/{_STATE}"
        try:
            files.write_json(path, state._asdict(), sync=sync, scratch=self.root.tmp)
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError) and not self.exists(container_id):
                raise _no_such(container_id) from None
            raise

    def exists(self, container_id: str) -> bool:
        return is_id(container_id) and os.path.isdir(self.root.container_dir(container_id))

    def ids(self) -> Sequence[str]:
        """The IDs of all containers, damaged ones too, in no order. Raises OSError."""
        return [name for name in os.listdir(self.root.containers) if is_id(name)]

    def list(self) -> list[tuple[Record, State]]:
        """Every container, the latest first. One that vanishes meanwhile, or whose record is damaged, is left out; one
        whose state is damaged reads as exited with status 255 and says why. Raises OSError.
        """
        found = []
        for container_id in self.ids():
            try:
                record = self.load(container_id)
                found.append((record, self._state_or_damaged(container_id)))
            except (NoSuchContainerError, CorruptObjectError):
                continue
        found.sort(key=lambda pair: (-pair[0].created, pair[0].id))
        return found

    def resolve(self, name_or_id: str) -> str:
        """The full ID of the container of that full ID, exact name or unique ID prefix, in this order.

        Raises NoSuchContainerError. A container whose record is damaged is found as well.
        """
        if self.exists(name_or_id):
            return name_or_id
        name = name_or_id.removeprefix("/")
        by_name = self._id_of_name(name)
        if by_name:
            return by_name
        if name and len(name) < 64 and _HEX.issuperset(name):
            matches = [container_id for container_id in self.ids() if container_id.startswith(name)]
            if len(matches) > 1:
                raise NoSuchContainerError(f"the container ID {name} is ambiguous", hint="give more of its digits")
            if matches:
                return matches[0]
        raise _no_such(name_or_id)

    def remove(self, container_id: str) -> None:
        """Let the container vanish by one rename, then delete what it was. A container that has gone is fine.

        Raises StoreError.
        """
        if not is_id(container_id):
            raise _no_such(container_id)
        trash = f"{self.root.tmp}/removed-{container_id[:12]}-{os.urandom(4).hex()}"
        try:
            with locks.exclusive(self.root.containers_lock):
                names = self._names_of(container_id)
                try:
                    os.rename(self.root.container_dir(container_id), trash)
                except FileNotFoundError:
                    trash = ""
                for name in names:
                    files.unlink_if_there(f"{self.root.names}/{name}")
            if trash:
                files.remove_tree(trash)
        except OSError as error:
            raise StoreError(
                f"cannot remove the container {container_id}: {error.filename}: {error.strerror}",
                hint=files.hint_for(error),
            ) from error

    def drop_lost_names(self) -> None:
        """Remove the names without a container, which whoever was killed in ``create`` or ``remove`` left. Raises
        OSError.
        """
        if len(os.listdir(self.root.names)) <= len(self.ids()):
            return
        with locks.exclusive(self.root.containers_lock):
            for name in os.listdir(self.root.names):
                target = self._target(name)
                if is_id(target) and not self.exists(target):
                    files.unlink_if_there(f"{self.root.names}/{name}")

    def needs(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The image ID and the diff IDs that each container with a readable record needs. Raises OSError."""
        for container_id in self.ids():
            try:
                record = self.load(container_id)
            except (NoSuchContainerError, CorruptObjectError):
                continue
            if is_digest(record.image_id):
                yield record.image_id, tuple(d for d in record.diff_ids if is_digest(d))

    def _publish(self, record: Record, path: str) -> None:
        """The name first: a link whose container is not there is a crash's leftover, and the next comer's.

        ``drop_lost_names`` removes those that nobody comes for.
        """
        link = f"{self.root.names}/{record.name}"
        holder = self._id_of_name(record.name)
        if holder:
            raise ConflictError(
                f'conflict: the container name "/{record.name}" is already in use by container "{holder}"',
                hint="remove or rename that container, or choose another name",
            )
        files.unlink_if_there(link)
        os.symlink(f"../{record.id}", link)
        try:
            os.rename(path, self.root.container_dir(record.id))
        except BaseException:
            files.unlink_if_there(link)
            raise

    def _names_of(self, container_id: str) -> Sequence[str]:
        try:
            name = self.load(container_id).name
        except (NoSuchContainerError, CorruptObjectError):
            return [name for name in os.listdir(self.root.names) if self._target(name) == container_id]
        return [name] if self._target(name) == container_id else []

    def _id_of_name(self, name: str) -> str:
        target = self._target(name)
        return target if target and self.exists(target) else ""

    def _target(self, name: str) -> str:
        try:
            check_name(name, kind="container")
            return os.readlink(f"{self.root.names}/{name}").removeprefix("../")
        except (InvalidReferenceError, FileNotFoundError):
            return ""
        except OSError as error:
            if error.errno == errno.EINVAL:
                return ""
            raise

    def _read(self, container_id: str, name: str) -> dict[str, Any]:
        if not is_id(container_id):
            raise _no_such(container_id)
        try:
            return files.read_json(f"{self.root.container_dir(container_id)}/{name}")
        except FileNotFoundError:
            if not self.exists(container_id):
                raise _no_such(container_id) from None
            raise CorruptObjectError(f"the container {container_id} has no {name}") from None
        except OSError as error:
            raise CorruptObjectError(f"cannot read {name} of the container {container_id}: {error.strerror}") from error

    def _state_or_damaged(self, container_id: str) -> State:
        try:
            return self.state(container_id)
        except CorruptObjectError as error:
            return State(status=EXITED, exit_code=_UNKNOWN_EXIT, error=error.message)


def _sync_files(path: str) -> None:
    """Put a new folder and the plain files directly in it on disk; what is below (a writable layer) is empty yet."""
    with os.scandir(path) as entries:
        files_in = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
        names = [entry.path for entry in files_in if entry.stat(follow_symlinks=False).st_size]
    for name in names:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)
    files.fsync_dir(path)


def _no_such(name_or_id: str) -> NoSuchContainerError:
    return NoSuchContainerError(f"no such container: {name_or_id}", hint="see `minidock ps -a`")
