"""Unpacked layers on disk: one directory for each, ``<64 hex digits>/tree`` with a ``state`` beside it.

A tree is a cache of its tar, so it is not synced when it is made. ``state`` holds the ID of the boot in which it was
made, or ``synced`` once the whole file system has been written out since: a tree of an earlier boot that was never
synced may be torn, and counts as missing.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from minidock.drivers import trees
from minidock.kernel.files import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2, syncfs
from minidock.model.digest import chain_id, hex_of, is_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SYNCED = b"synced\n"
_STATE = "state"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Layers:
    """The layers below ``directory``. With ``chained`` a layer's tree always belongs to one chain of layers; without, a
    tree that needs nothing from beneath is kept under its diff ID and shared by all chains."""

    __slots__ = ("_boot", "_boot_id_path", "chained", "directory")

    def __init__(self, directory: str, *, chained: bool, boot_id_path: str = _BOOT_ID) -> None:
        self.directory = directory
        self.chained = chained
        self._boot = b""
        self._boot_id_path = boot_id_path

    def key(self, diff_ids: Sequence[str], *, self_contained: bool) -> str:
        """The name of the topmost layer's directory. Raises InvalidReferenceError for what is no digest."""
        if self_contained and not self.chained:
            return hex_of(diff_ids[-1])
        return hex_of(chain_id(diff_ids))

    def find(self, diff_ids: Sequence[str]) -> str:
        """The tree of the topmost layer if it is there and whole, else ""."""
        for key in self._keys_of(diff_ids):
            if self.is_valid(key):
                return self.tree(key)
        return ""

    def paths(self, diff_ids: Sequence[str]) -> list[str]:
        """The trees of all layers, topmost first. Raises FileNotFoundError naming the diff ID of a missing one."""
        return [self.path(diff_ids[:count]) for count in range(len(diff_ids), 0, -1)]

    def path(self, diff_ids: Sequence[str]) -> str:
        """The tree of the topmost layer, which ``find`` found before. Raises FileNotFoundError naming the diff ID."""
        for key in self._keys_of(diff_ids):
            path = self.tree(key)
            if os.path.isdir(path):
                return path
        raise FileNotFoundError(errno.ENOENT, "the layer is not unpacked", diff_ids[-1])

    def tree(self, key: str) -> str:
        return f"{self.directory}/{key}/tree"

    def is_valid(self, key: str) -> bool:
        """Whether the layer is there and can be trusted."""
        state = self._state(key)
        return state == _SYNCED or (state != b"" and state == self._this_boot())

    def is_whole(self, key: str) -> bool:
        """``is_valid``, and the tree is there as well."""
        return self.is_valid(key) and os.path.isdir(self.tree(key))

    def torn(self, diff_ids: Sequence[str]) -> list[str]:
        """The names of what is there of the topmost layer and not whole."""
        keys = [key for key in self._keys_of(diff_ids) if os.path.lexists(f"{self.directory}/{key}")]
        return [key for key in keys if not self.is_whole(key)]

    def publish(self, staged: str, key: str) -> None:
        """Let the directory ``staged``, which holds a finished ``tree``, become the layer ``key``, at once and whole.

        If the layer is there already, ``staged`` stays; what is there but torn changes places with it. The caller
        removes what ``staged`` is afterwards. Raises OSError.
        """
        _write(f"{staged}/{_STATE}", self._this_boot())
        target = f"{self.directory}/{key}"
        try:
            _rename(staged, target, RENAME_NOREPLACE)
        except FileExistsError:
            if not self.is_valid(key):
                _rename(staged, target, RENAME_EXCHANGE)

    def keys(self) -> list[str]:
        return [name for name in os.listdir(self.directory) if is_id(name)]

    def remove(self, key: str) -> None:
        """Remove a layer; its state goes first, so that half of it is never taken for the whole. Raises OSError."""
        if not is_id(key):
            raise ValueError(f"not the name of a layer: {key!r}")
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(f"{self.directory}/{key}/{_STATE}")
        with trees.opened(self.directory) as fd:
            trees.remove(key, fd)

    def settle(self) -> None:
        """Write the file system out and mark the trees of this boot as synced. Raises OSError."""
        pending = [key for key in self.keys() if self._state(key) == self._this_boot()]
        if not pending:
            return
        with trees.opened(self.directory) as fd:
            syncfs(fd)
        for key in pending:
            with suppress(FileNotFoundError, NotADirectoryError):
                _write(f"{self.directory}/{key}/{_STATE}", _SYNCED)

    def _keys_of(self, diff_ids: Sequence[str]) -> Iterator[str]:
        """Where the topmost layer may be; the chain's name is worked out only if the layer's own is not enough."""
        if not self.chained:
            yield hex_of(diff_ids[-1])
        if self.chained or len(diff_ids) > 1:
            yield hex_of(chain_id(diff_ids))

    def _state(self, key: str) -> bytes:
        try:
            fd = os.open(f"{self.directory}/{key}/{_STATE}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return b""
        try:
            return os.read(fd, 64)
        finally:
            os.close(fd)

    def _this_boot(self) -> bytes:
        if not self._boot:
            fd = os.open(self._boot_id_path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._boot = os.read(fd, 64)
            finally:
                os.close(fd)
        return self._boot


def _rename(old: str, new: str, flags: int) -> None:
    """renameat2, in two steps on a file system without its flags: the target is put aside, never mixed."""
    try:
        renameat2(-100, old, -100, new, flags)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        if flags == RENAME_NOREPLACE and os.path.lexists(new):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from None
        if flags == RENAME_EXCHANGE:
            os.rename(new, f"{old}/torn")
        os.rename(old, new)


def _write(path: str, data: bytes) -> None:
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    os.rename(temporary, path)
