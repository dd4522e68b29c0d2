"""Small files that are written whole, JSON in them, and trees that are removed whole."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from typing import Any

from minidock.errors import CorruptObjectError, StoreError

MAX_JSON = 16 * 1024 * 1024
_MAX_DEPTH = 64


def write_atomic(
    path: str, data: bytes, *, sync: bool, mode: int = 0o600, scratch: str = "", name_later: bool = False
) -> None:
    """Write ``path`` so that a reader sees the old content or the new one, never a part.

    ``scratch`` is where the temporary file is made (the data root's ``tmp``, where ``staging.sweep`` finds what a
    killed writer left); without it, the file's own directory. With ``sync`` the content and its name are on disk at
    return; with ``name_later`` only the content, and the caller syncs the directory. Raises StoreError naming the path
    and the kernel's answer; its ``__cause__`` is the OSError.
    """
    directory = os.path.dirname(path) or "."
    try:
        fd, temporary = open_scratch(scratch or directory, mode=mode)
        try:
            write_all(fd, data)
            if sync:
                os.fdatasync(fd)
            os.rename(temporary, path)
        except BaseException:
            unlink_if_there(temporary)
            raise
        finally:
            os.close(fd)
        if sync and not name_later:
            fsync_dir(directory)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}", hint=hint_for(error)) from error


def open_scratch(directory: str, *, mode: int = 0o600) -> tuple[int, str]:
    """A new temporary file in ``directory``: its descriptor and path, locked so that no sweep removes it meanwhile.

    Raises OSError.
    """
    while True:
        path = f"{directory}/.{os.urandom(8).hex()}.tmp"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            os.fchmod(fd, mode)
            if os.fstat(fd).st_nlink:
                return fd, path
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``, however many calls it takes. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_json(
    path: str, value: dict[str, Any], *, sync: bool, mode: int = 0o600, scratch: str = "", lists: bool = False
) -> None:
    """Write a JSON object with each of its members on a line, for people; with ``lists``, each member's items too.

    Raises as ``write_atomic`` does.
    """
    members = [f"{json.dumps(key)}: {_lines(item) if lists else _compact(item)}" for key, item in value.items()]
    data = ("{\n" + ",\n".join(members) + "\n}\n").encode()
    write_atomic(path, data, sync=sync, mode=mode, scratch=scratch)


def read_json(path: str, *, limit: int = MAX_JSON) -> dict[str, Any]:
    """Read a JSON object from a regular file of at most ``limit`` bytes.

    Raises OSError when it cannot be read (FileNotFoundError when it is missing), CorruptObjectError naming the path for
    anything that is not a JSON object.
    """
    data = read_file(path, limit=limit)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptObjectError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise CorruptObjectError(f"{path} is not a JSON object")
    return value


def read_file(path: str, *, limit: int) -> bytes:
    """The bytes of a regular file of at most ``limit`` bytes; symbolic links are not followed.

    Raises OSError when it cannot be read, CorruptObjectError when it is larger or not a regular file.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CorruptObjectError(f"{path} is a symbolic link") from None
        raise
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise CorruptObjectError(f"{path} is not a regular file")
        if status.st_size > limit:
            raise CorruptObjectError(f"{path} has {status.st_size} bytes, more than the {limit} allowed")
        # A regular file gives less than was asked for only at its end.
        data = os.read(fd, status.st_size + 1)
        while len(data) > status.st_size and (piece := os.read(fd, limit)):
            data += piece
        return data
    finally:
        os.close(fd)


def fsync_dir(path: str) -> None:
    """Put a directory's entries on disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def unlink_if_there(path: str) -> None:
    """Remove a file; one that is gone already is fine. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def remove_tree(path: str) -> None:
    """Remove a directory and everything below it, or a file; what is gone already is fine.

    Works on directory descriptors and follows no symbolic link, so that whoever changes the tree meanwhile cannot lead
    it elsewhere. Trees of any depth take a bounded number of descriptors. What is mounted in the tree is left alone:
    EBUSY. Raises OSError naming the entry.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        unlink_if_there(path)
        return
    try:
        while _remove_entries(fd, top=fd, depth=0, path=path):
            continue
    finally:
        os.close(fd)
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return


def hint_for(error: OSError) -> str:
    """What a person can do about an error of the store's file system."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "free some space: remove containers, images or volumes that are not needed"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "run minidock as root, or choose a folder of your own with --root DIR or MINIDOCK_ROOT"
    if error.errno == errno.EROFS:
        return "the file system is read-only: choose another folder with --root DIR or MINIDOCK_ROOT"
    return ""


def _remove_entries(fd: int, *, top: int, depth: int, path: str) -> bool:
    """Remove what is in the directory ``fd``; True when something was moved up to ``top``, which needs another pass."""
    again = False
    with os.scandir(fd) as entries:
        listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in listed:
        try:
            if not is_directory:
                os.unlink(name, dir_fd=fd)
            elif depth < _MAX_DEPTH:
                again |= _remove_directory(fd, name, top=top, depth=depth, path=f"{path}/{name}")
            else:
                os.rename(name, f".deep-{os.urandom(8).hex()}", src_dir_fd=fd, dst_dir_fd=top)
                again = True
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.filename == name:
                error.filename = f"{path}/{name}"
            raise
    return again


def _remove_directory(parent: int, name: str, *, top: int, depth: int, path: str) -> bool:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if os.fstat(fd).st_dev != os.fstat(top).st_dev:
            raise OSError(errno.EBUSY, "something is mounted here", path)
        again = _remove_entries(fd, top=top, depth=depth + 1, path=path)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)
    return again


def _lines(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(_compact(item) for item in value) + "\n]"
    return _compact(value)


def _compact(value: Any) -> str:
    text = json.dumps(value, separators=(", ", ": "), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # Bytes of the host that are no UTF-8 came as lone surrogates, which JSON's escapes keep.
        return json.dumps(value, separators=(", ", ": "))
    return text
