"""What one source of a COPY selects: a list of entries, found by one walk, and the digest of their contents.

The walk only lists; reading comes after, for the digest and once more for the copy. A file's status is taken when it is
read for the digest; each time it is opened later it must still be the same, so that a digest never stands for other
bytes than those that were copied.
"""

from __future__ import annotations

import errno
import hashlib
import operator
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from minidock.build.contents import Contents
from minidock.build.tree import DIRECTORY_FLAGS, open_real
from minidock.errors import MinidockError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minidock.build.choice import Choice
    from minidock.build.tree import SourceTree
    from minidock.dockerfile.ignore import IgnoreRules

_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_QUIETLY = _FILE_FLAGS | os.O_NOATIME
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
BLOCK = 128 * 1024
SMALL = 64 * 1024
# All that the walk knows of a regular file: asking for more would cost as much again as listing it.
_NAME = operator.itemgetter(0)
_LISTED = os.stat_result((stat.S_IFREG, *[0] * 9))


class Entry(NamedTuple):
    """One file, directory, link or node. ``link`` is a symbolic link's target, else empty.

    Of a regular file, ``status`` tells the type alone until the digest is known.
    """

    name: str
    status: os.stat_result
    link: str = ""


class Group(NamedTuple):
    """A directory of the selection: its path below the selected directory ("" for that itself), what is in it."""

    path: str
    entries: list[Entry]


class Selection:
    """What a source selects.

    ``path`` is its real path in ``tree``; ``name`` the base name that the Dockerfile gave it. A directory's contents
    are ``groups``, parents before children; a single file is the only entry of one group whose directory is its parent.
    ``xattrs`` holds the extended attributes of the entries that have any, by path below the group's root; they are
    known once the digest is. So are ``held``, the content of small files, as much of it as was asked for; ``heads``,
    what the ``digest`` was taken of but for the contents; and ``contents``, the hexadecimal sha256 of all of these.
    """

    __slots__ = ("contents", "digest", "groups", "heads", "held", "is_directory", "name", "path", "tree", "xattrs")

    def __init__(self, tree: SourceTree, path: str, name: str, *, is_directory: bool, groups: list[Group]) -> None:
        self.tree = tree
        self.path = path
        self.name = name
        self.is_directory = is_directory
        self.groups = groups
        self.xattrs: dict[str, dict[str, bytes]] = {}
        self.held: dict[str, memoryview] = {}
        self.heads: list[bytes] = []
        self.contents = ""
        self.digest = ""

    @property
    def base(self) -> str:
        """The path in the tree that the groups' paths are relative to."""
        return self.path if self.is_directory else os.path.dirname(self.path)

    def open_group(self, group: Group) -> int:
        """A descriptor of the group's directory in the source tree."""
        return open_real(self.tree.fd, join(self.base, group.path), DIRECTORY_FLAGS)

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it; never of a single file."""
        return not any(group.entries for group in self.groups)


def join(directory: str, name: str) -> str:
    """``directory/name`` of relative paths, where either may be empty."""
    return f"{directory}/{name}" if directory and name else directory or name


def select(tree: SourceTree, path: str, name: str, excluded: IgnoreRules | None = None) -> Selection | None:
    """What lies at the real path ``path``, ignore rules applied; None if there is nothing or all of it is ignored.

    ``excluded`` are further rules, about the paths below a directory and about the ``name`` of anything else. Sockets
    are passed over. Raises OSError for what cannot be read.
    """
    try:
        fd = open_real(tree.fd, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        status = os.fstat(fd)
        link = os.readlink("", dir_fd=fd) if stat.S_ISLNK(status.st_mode) else ""
    finally:
        os.close(fd)
    if stat.S_ISDIR(status.st_mode):
        found = select_below(tree, path, excluded=excluded, name=name)
        return None if found.empty and tree.ignored(path) else found
    if tree.ignored(path) or stat.S_ISSOCK(status.st_mode) or (excluded is not None and excluded.matches(name)):
        return None
    entry = Entry(os.path.basename(path), status, link)
    return Selection(tree, path, name, is_directory=False, groups=[Group("", [entry])])


def select_below(
    tree: SourceTree,
    path: str,
    *,
    choice: Choice | None = None,
    excluded: IgnoreRules | None = None,
    name: str = "",
) -> Selection:
    """What is in the directory at the real path ``path``: what ``choice`` chooses, ignore rules and the rules
    ``excluded`` applied; perhaps nothing. Raises OSError for what cannot be read, and for what is no directory."""
    choices: list[Choice] = [] if choice is None else [choice]
    for rules, above in ((tree.rules, path), (excluded, "")):
        if rules is not None:
            from minidock.build.choice import Ignoring

            choices.append(Ignoring(rules, above))
    return Selection(tree, path, name, is_directory=True, groups=_walk(tree, path, choices))


def _walk(tree: SourceTree, root: str, choices: Sequence[Choice]) -> list[Group]:
    if choices:
        from minidock.build.choice import choose
    groups: list[Group] = []
    passed: set[str] = set()
    pending = [""]
    while pending:
        path = pending.pop()
        only = choices[0].only(path) if choices else ""
        group, directories = _find(tree, root, path, only) if only else _list(tree, root, path)
        groups.append(group)
        if choices:
            choose(path, group.entries, directories, choices, passed)
        pending.extend(sorted((join(path, name) for name in directories), reverse=True))
    return _without_empty(groups, passed) if passed else groups


def _find(tree: SourceTree, root: str, path: str, name: str) -> tuple[Group, set[str]]:
    """As ``_list``, of one name."""
    fd = open_real(tree.fd, join(root, path), DIRECTORY_FLAGS)
    try:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        link = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else ""
    except FileNotFoundError:
        return Group(path, []), set()
    finally:
        os.close(fd)
    entries = [] if stat.S_ISSOCK(status.st_mode) else [Entry(name, status, link)]
    return Group(path, entries), {name} if stat.S_ISDIR(status.st_mode) else set()


def _list(tree: SourceTree, root: str, path: str) -> tuple[Group, set[str]]:
    fd = open_real(tree.fd, join(root, path), DIRECTORY_FLAGS)
    entries: list[Entry] = []
    directories: set[str] = set()
    try:
        with os.scandir(fd) as listing:
            for item in listing:
                name = item.name
                if item.is_file(follow_symlinks=False):
                    entries.append(Entry(name, _LISTED))
                    continue
                status = item.stat(follow_symlinks=False)
                kind = stat.S_IFMT(status.st_mode)
                if kind == stat.S_IFDIR:
                    entries.append(Entry(name, status))
                    directories.add(name)
                elif kind == stat.S_IFLNK:
                    entries.append(Entry(name, status, os.readlink(name, dir_fd=fd)))
                elif kind != stat.S_IFSOCK:
                    entries.append(Entry(name, status))
    finally:
        os.close(fd)
    entries.sort(key=_NAME)
    return Group(path, entries), directories


def _without_empty(groups: list[Group], passed: set[str]) -> list[Group]:
    """Leave out the passed directories below which nothing was taken."""
    wanted: set[str] = set()
    for group in reversed(groups):
        group.entries[:] = [
            entry for entry in group.entries if (path := join(group.path, entry.name)) not in passed or path in wanted
        ]
        if group.entries:
            wanted.add(group.path)
    return [group for group in groups if group.path not in passed or group.path in wanted]


def content_digest(selection: Selection, *, hold: int = 0) -> str:
    """The hexadecimal sha256 over path, type, mode, owner, size, link target, device, extended attributes and content
    of every entry; never over times. The context's files count as root's, which is what they become.

    Fills all of the selection that is known only then, and ``held`` with at most ``hold`` bytes that need not be read
    again. Raises OSError, or MinidockError if a file changes meanwhile.
    """
    digester = _Digester(selection, hold)
    for group in selection.groups:
        fd = selection.open_group(group)
        try:
            digester.add(fd, group)
        finally:
            os.close(fd)
    selection.heads = digester.heads
    selection.contents, selection.digest = digester.hexdigests()
    return selection.digest


class _Digester:
    __slots__ = ("_contents", "_hash", "_is_directory", "_keep_owner", "_links", "_selection", "heads")

    def __init__(self, selection: Selection, hold: int) -> None:
        self._contents = Contents(small=SMALL, hold=hold)
        self._selection = selection
        self._is_directory = selection.is_directory
        self._keep_owner = selection.tree.keep_owner
        self._hash = hashlib.sha256()
        self.heads: list[bytes] = []
        self._links: dict[tuple[int, int], str] = {}

    def add(self, directory: int, group: Group) -> None:
        prefix = f"{group.path}/" if group.path else ""
        heads: list[bytes] = []
        for number, entry in enumerate(group.entries):
            path = prefix + entry.name
            if stat.S_ISREG(entry.status.st_mode):
                heads.append(self._file(directory, group, number, path))
            else:
                xattrs = read_xattrs(f"/proc/self/fd/{directory}/{entry.name}")
                heads.append(self._head(path, entry.status, 0, entry.link, xattrs))
        joined = b"".join(heads)
        self._hash.update(joined)
        self.heads.append(joined)

    def hexdigests(self) -> tuple[str, str]:
        """The digests of all contents, and of everything. The heads say where each content ends, so that one digest of
        all contents will do."""
        contents = self._contents.digest()
        return contents.hex(), hashlib.sha256(self._hash.digest() + contents).hexdigest()

    def _file(self, directory: int, group: Group, number: int, path: str) -> bytes:
        """Read a file; its status, as it is found now, is put into the group."""
        entry = group.entries[number]
        fd = _open_quietly(entry, directory)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise changed(entry)
            group.entries[number] = Entry(entry.name, status)
            xattrs = read_xattrs(fd)
            size = status.st_size
            if status.st_nlink > 1:
                first = self._links.setdefault((status.st_dev, status.st_ino), path)
                if first != path:
                    return self._head(path, status, size, first, xattrs)
            content = self._contents.read(fd, size)
            if content is not None:
                self._selection.held[path] = content
            return self._head(path, status, size, "", xattrs)
        except EOFError:
            raise changed(entry) from None
        finally:
            os.close(fd)

    def _head(self, path: str, status: os.stat_result, size: int, link: str, xattrs: dict[str, bytes]) -> bytes:
        """All but the content; ``link`` is a symbolic link's target, or the path of the same file given before."""
        mode = status.st_mode
        named = os.fsencode(path) if self._is_directory else b""
        uid, gid = (status.st_uid, status.st_gid) if self._keep_owner else (0, 0)
        kind = stat.S_IFMT(mode)
        device = status.st_rdev if kind in _DEVICES else 0
        shown = kind if kind == stat.S_IFLNK else mode
        fields = (shown, uid, gid, size, device, len(xattrs), named, os.fsencode(link) if link else b"")
        head = b"%o %d %d %d %d %d\0%b\0%b\0" % fields
        if xattrs:
            self._selection.xattrs[path] = xattrs
            for name, value in sorted(xattrs.items()):
                head += b"%b\0%d %b" % (os.fsencode(name), len(value), value)
        return head


def open_unchanged(entry: Entry, directory: int) -> int:
    """Open a regular file once more; raise MinidockError if it is not the same, unchanged file that was digested."""
    fd = _open_quietly(entry, directory)
    try:
        check_unchanged(fd, entry)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_unchanged(fd: int, entry: Entry) -> None:
    """Raise MinidockError if an open file is not, or no more, the one that was digested."""
    now, then = os.fstat(fd), entry.status
    if now.st_ino != then.st_ino or now.st_size != then.st_size or now.st_mtime_ns != then.st_mtime_ns:
        raise changed(entry)


def _open_quietly(entry: Entry, directory: int) -> int:
    """Open for reading, without a new access time where that is allowed: it would cost a write for each file."""
    try:
        return os.open(entry.name, _QUIETLY, dir_fd=directory)
    except PermissionError:
        return os.open(entry.name, _FILE_FLAGS, dir_fd=directory)
    except FileNotFoundError:
        raise changed(entry) from None


def changed(entry: Entry) -> MinidockError:
    """The error for a file that changed between being listed and being copied."""
    return MinidockError(f"file {entry.name!r} changed while it was being copied", hint="build again")


def read_xattrs(target: int | str) -> dict[str, bytes]:
    """The extended attributes that a copy keeps: ``security.capability``, POSIX ACLs, ``user.`` and ``trusted.`` but
    not overlayfs' own. ``target`` is an open file, or a path whose last component is not followed."""
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return {}
    if not names:
        return {}
    return {name: os.getxattr(target, name, follow_symlinks=follow) for name in names if _kept(name)}


def _kept(name: str) -> bool:
    if name.startswith(("security.", "system.")):
        return name in ("security.capability", "system.posix_acl_access", "system.posix_acl_default")
    return not name.startswith(("trusted.overlay.", "user.overlay."))
