"""An image's tree, read from the tarballs of its layers (OCI image-spec, layer.md), with no builder's help."""

from __future__ import annotations

import hashlib
import json
import tarfile
from typing import BinaryIO, NamedTuple

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_XATTR = "SCHILY.xattr."
_SHOWN = 120
_KINDS = {
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "link",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
}


class Inode(NamedTuple):
    """All of a file but its names; two names are hard links of each other if they are one object."""

    kind: str
    text: str


Tree = dict[str, Inode]


class Change(NamedTuple):
    """What one entry of a layer does at a path: ``inode``, or another name of ``target``, or a removal."""

    path: str
    inode: Inode | None = None
    target: str = ""
    opaque: bool = False


def read_layer(stream: BinaryIO) -> list[Change]:
    """The changes of a layer, in order."""
    found: list[Change] = []
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        for member in tar:
            path = _clean(member.name)
            folder, _, name = path.rpartition("/")
            if name == _OPAQUE:
                found.append(Change(folder, opaque=True))
            elif name.startswith(_WHITEOUT):
                found.append(Change(f"{folder}/{name.removeprefix(_WHITEOUT)}".lstrip("/")))
            elif member.islnk():
                found.append(Change(path, target=_clean(member.linkname)))
            else:
                found.append(Change(path, _inode(tar, member)))
    return found


def _clean(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _inode(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Inode:
    kind = _KINDS.get(member.type, "file")
    owner = f"{member.uid}:{member.gid}"
    shown = f"{kind} {owner}" if kind == "link" else f"{kind} {member.mode & 0o7777:o} {owner}"
    if kind == "link":
        shown += f" -> {member.linkname}"
    elif kind.endswith("device"):
        shown += f" {member.devmajor}:{member.devminor}"
    elif kind == "file":
        content = tar.extractfile(member)
        assert content is not None
        shown += " " + show_content(content.read())
    xattrs = {key.removeprefix(_XATTR): value for key, value in member.pax_headers.items() if key.startswith(_XATTR)}
    for name, value in sorted(xattrs.items()):
        shown += f" {name}={value.encode('utf-8', 'surrogateescape').hex()}"
    return Inode(kind, shown)


def show_content(data: bytes) -> str:
    """A file's content as JSON where it is short text, else its size and digest."""
    try:
        if len(data) <= _SHOWN:
            return json.dumps(data.decode(), ensure_ascii=False)
    except UnicodeDecodeError:
        pass
    return f"{len(data)} bytes sha256:{hashlib.sha256(data).hexdigest()}"


def apply(changes: list[Change], tree: Tree) -> None:
    """Apply a layer: what it removes is beneath, what it adds stays."""
    for change in changes:
        if change.inode is None and not change.target:
            _remove(tree, change.path, itself=not change.opaque)
    for change in changes:
        if change.inode is None and not change.target:
            continue
        inode = change.inode or tree[change.target]
        there = tree.get(change.path)
        if there is not None and there.kind == "directory" != inode.kind:
            _remove(tree, change.path, itself=True)
        tree[change.path] = inode


def _remove(tree: Tree, path: str, *, itself: bool) -> None:
    below = f"{path}/" if path else ""
    for name in [name for name in tree if name.startswith(below) and name]:
        del tree[name]
    if itself:
        tree.pop(path, None)


def shown(tree: Tree) -> dict[str, str]:
    """Each path of the tree with its file's text; a further name of one names the first."""
    first: dict[int, str] = {}
    found: dict[str, str] = {}
    for path in sorted(tree):
        if not path:
            continue
        inode = tree[path]
        name = first.setdefault(id(inode), path)
        found[path] = inode.text if name == path else f"{inode.text} = {name}"
    return found
