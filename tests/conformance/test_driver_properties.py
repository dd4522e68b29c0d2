"""The drivers' first property: a writable layer that becomes a layer by rename is what unpacking its tar makes."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import socket
from typing import Any

from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st

_NAMES = st.sampled_from(["a", "b", "c", "d.txt", "é", "x" * 120])
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
_TIMES = st.sampled_from([0, 1_000_000_000, 1_000_000_000_500_000_000, 1_600_000_001_999_999_999])
_MODES = st.sampled_from([0o644, 0o755, 0o600, 0o4755, 0o1777, 0o2711])

_OPERATIONS = st.one_of(
    st.tuples(st.just("mkdir"), _PATHS),
    st.tuples(st.just("write"), _PATHS, st.binary(max_size=40)),
    st.tuples(st.just("append"), _PATHS, st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("remove"), _PATHS),
    st.tuples(st.just("recreate"), _PATHS),
    st.tuples(st.just("restore"), _PATHS),
    st.tuples(st.just("touch_up"), _PATHS),
    st.tuples(st.just("rename"), _PATHS, _PATHS),
    st.tuples(st.just("link"), _PATHS, _PATHS),
    st.tuples(st.just("symlink"), st.sampled_from(["a", "../b", "/c/d.txt", "nowhere"]), _PATHS),
    st.tuples(st.just("chmod"), _PATHS, _MODES),
    st.tuples(st.just("chown"), _PATHS, st.sampled_from([0, 33, 70000, 3_000_000])),
    st.tuples(st.just("utime"), _PATHS, _TIMES),
    st.tuples(st.just("fifo"), _PATHS),
    st.tuples(st.just("device"), _PATHS),
    st.tuples(st.just("socket"), _PATHS),
    st.tuples(st.just("xattr"), _PATHS, st.sampled_from(["user.k", "trusted.k"]), st.binary(max_size=8)),
    st.tuples(st.just("unxattr"), _PATHS),
)
_LAYERS = st.lists(st.lists(_OPERATIONS, max_size=12), min_size=1, max_size=4)
_SETTINGS = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _recreate(path: str) -> None:
    """rm -rf of a directory, and a new one with other things in it: overlayfs marks it opaque."""
    _remove(path)
    os.mkdir(path)
    with open(f"{path}/a", "w") as file:
        file.write("new")


def _restore(path: str) -> None:
    """Remove something and make it again just as it was."""
    status = os.lstat(path)
    if os.path.islink(path):
        target = os.readlink(path)
        os.unlink(path)
        os.symlink(target, path)
    elif os.path.isdir(path):
        held = f"{os.path.dirname(path)}/.held"
        shutil.copytree(path, held, symlinks=True)
        shutil.rmtree(path)
        os.rename(held, path)
    else:
        with open(path, "rb") as file:
            data = file.read()
        os.unlink(path)
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, status.st_mode & 0o7777)
    os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _touch_up(path: str) -> None:
    """Copy something up without changing it."""
    os.chmod(path, os.stat(path).st_mode & 0o7777)


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def _append(path: str, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)


def _socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


def _unxattr(path: str) -> None:
    for name in os.listxattr(path, follow_symlinks=False):
        os.removexattr(path, name, follow_symlinks=False)


_ACTIONS: dict[str, Any] = {
    "mkdir": os.mkdir,
    "write": _write,
    "append": _append,
    "remove": _remove,
    "recreate": _recreate,
    "restore": _restore,
    "touch_up": _touch_up,
    "rename": os.rename,
    "link": lambda old, new: os.link(old, new, follow_symlinks=False),
    "chmod": os.chmod,
    "chown": lambda path, uid: os.chown(path, uid, uid, follow_symlinks=False),
    "utime": lambda path, ns: os.utime(path, ns=(ns, ns), follow_symlinks=False),
    "fifo": os.mkfifo,
    "device": lambda path: os.mknod(path, 0o20600, os.makedev(1, 3)),
    "socket": _socket,
    "xattr": lambda path, name, value: os.setxattr(path, name, value, follow_symlinks=False),
    "unxattr": _unxattr,
}
_TWO_PATHS = {"rename", "link"}


def _apply(operation: tuple[Any, ...], root: str) -> None:
    kind, *rest = operation
    path = f"{root}/{rest[0]}"
    if kind in {"write", "append", "restore"} and os.path.exists(path) and not _is_plain(path):
        return
    with contextlib.suppress(OSError, shutil.Error, ValueError):
        if kind == "symlink":
            os.symlink(rest[0], f"{root}/{rest[1]}")
        elif kind in _TWO_PATHS:
            _ACTIONS[kind](path, f"{root}/{rest[1]}")
        else:
            _ACTIONS[kind](path, *rest[1:])


@_SETTINGS
@given(layers=_LAYERS)
def test_a_renamed_writable_layer_is_what_its_tar_unpacks_to(lab: Any, layers: list[list[tuple[Any, ...]]]) -> None:
    lab.clean()
    stack, twin, tree = lab.stack(), lab.stack(), lab.stack(tarballs=False)
    for operations in layers:
        writable = stack.prepared()
        with stack.mounted(writable) as root:
            for operation in operations:
                _apply(operation, root)
            before = lab.whole_seconds(lab.snapshot(root, marks=False))
        packed, tar = stack.pack(writable)
        note(f"{packed}")
        left = lab.snapshot(stack.tree_of(writable))
        if packed.empty:
            assert _without_the_roots_time(stack.view(marks=False)) == _without_the_roots_time(before)
            continue
        twin.unpack(tar, packed.diff_id)
        if packed.sealed is None:
            assert twin.layer_tree() == left
        else:
            # The writable layer is dropped. What unpacking makes of the tar is what its index shows.
            tree.unpack(tar, packed.diff_id)
            assert twin.layer_tree() == tree.layer_tree()
        again, _ = stack.pack(writable)
        assert again == packed
        stack.diff_ids = (*stack.diff_ids, packed.diff_id)
        stack.driver.adopt(stack.diff_ids, writable, packed, tar=stack.keep(tar, packed.diff_id))
        assert stack.driver.has(stack.diff_ids)
        assert stack.driver.verify(stack.diff_ids, io.BytesIO(tar)) == []
        merged = stack.view(marks=False)
        assert _without_link_groups(merged) == _without_link_groups(before)
        assert _links_kept(before, merged)


@settings(_SETTINGS, max_examples=25)
@given(layers=_LAYERS)
# One of two names of a file is deleted in the next layer.
@example(layers=[[("symlink", "a", "b"), ("link", "b", "a")], [("remove", "a")]])
@example(layers=[[("write", "b", b"x"), ("link", "b", "a"), ("link", "b", "c")], [("remove", "a")]])
def test_every_driver_makes_the_same_tree_of_the_same_tars(lab: Any, layers: list[list[tuple[Any, ...]]]) -> None:
    lab.clean()
    stack = lab.stack()
    for operations in layers:
        stack.edit(lambda root, todo=operations: [_apply(operation, root) for operation in todo])
    expected = stack.view(marks=False)
    for name in ("overlay2", "vfs"):
        assert lab.rebuilt(stack, name).view(marks=False) == expected


def _without_the_roots_time(tree: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """A layer without anything but another time of the root directory is none."""
    return {path: (*entry[:3], 0, *entry[4:]) if not path else entry for path, entry in tree.items()}


def _without_link_groups(tree: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    return {path: entry[:-1] for path, entry in tree.items()}


def _links_kept(before: dict[str, tuple[Any, ...]], after: dict[str, tuple[Any, ...]]) -> bool:
    """Names that were one file are one file; a name that is left out may join those that it is alike beneath."""
    return all(not entry[-1] or after[path][-1] == after[entry[-1]][-1] != "" for path, entry in before.items())


def _is_plain(path: str) -> bool:
    """Neither a FIFO, which would block, nor a device."""
    return os.path.isfile(path) or os.path.isdir(path)
