"""What COPY and ADD have in common, wherever their sources are: which files a source names, and how selections,
archives and heredocs get into a step's root file system."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

from minidock.build.selection import Selection, content_digest, open_unchanged, select
from minidock.build.tree import SourceTree, is_pattern, named_paths, real_path
from minidock.build.writer import (
    Look,
    Writer,
    destination_path,
    is_directory_name,
    make_directories,
    open_target,
    write_file,
)
from minidock.errors import ArchiveError, MinidockError
from minidock.rootfs import is_archive

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    from minidock.build.work import StepWork
    from minidock.dockerfile.ignore import IgnoreRules
    from minidock.dockerfile.instructions import Heredoc


def absolute(workdir: str, destination: str) -> str:
    """A destination without links followed; an end slash, which says that it is a directory, stays."""
    path = "/" + posixpath.normpath(posixpath.join(workdir, destination)).lstrip("/")
    return f"{path}/" if is_directory_name(destination) and path != "/" else path


def check_count(word: str, count: int, destination: str) -> None:
    """Raises MinidockError where several sources would become one file."""
    if count > 1 and not is_directory_name(destination):
        raise MinidockError(
            f"{word} of more than one source needs a directory as destination, not {destination}",
            hint=f"end it with a slash: {destination}/",
        )


def selections(tree: SourceTree, source: str, excluded: IgnoreRules | None = None) -> list[Selection]:
    """What one source selects, without what ``excluded`` leaves out. Raises MinidockError if it is no pattern and
    nothing is there."""
    found: list[Selection] = []
    for path in named_paths(tree, source):
        try:
            selection = select(tree, real_path(tree.fd, path), os.path.basename(path), excluded)
        except (FileNotFoundError, NotADirectoryError):
            selection = None
        if selection is not None:
            found.append(selection)
    if not found and not is_pattern(source) and (excluded is None or not selections(tree, source)):
        raise MinidockError(f"{source!r} is not found in {tree.name}", hint=why_missing(tree, source))
    return found


def why_missing(tree: SourceTree, source: str) -> str:
    """What to say about a source that is not there, perhaps nothing."""
    if tree.rules is None:
        return ""
    try:
        real_path(tree.fd, source)
    except OSError:
        return "a source is relative to the build context, and links do not lead out of it"
    return "it is there, but .dockerignore leaves it out"


def whole(
    tree: SourceTree, path: str = "", name: str = "", *, excluded: IgnoreRules | None = None, hold: int = 0
) -> Selection:
    """What lies at a path that is there, a directory without what ``excluded`` leaves out, read for its digest;
    ``hold`` as ``content_digest`` has it."""
    selection = select(tree, path, name, excluded)
    assert selection is not None, "it was made just now"
    content_digest(selection, hold=hold)
    return selection


def printable(name: str) -> str:
    """A file's name as JSON can hold it, whatever its bytes are; different names stay different."""
    return os.fsencode(name).decode("latin-1")


def is_unpacked(selection: Selection, *, unpack: bool | None, instead: str) -> bool:
    """Whether a selection is an archive that is unpacked: never, where it is one, or always as ``unpack`` is False,
    None or True. Raises ArchiveError for one that has to be and is none; ``instead`` is the hint."""
    if unpack is False or selection.is_directory:
        return False
    with _open_file(selection) as archive:
        found = is_archive(archive)
    if unpack and not found:
        raise ArchiveError(f"{selection.name} is not a tar archive", hint=instead)
    return found


def put(selection: Selection, root: int, destination: str, look: Look) -> None:
    """Copy what a selection holds."""
    target = open_target(root, destination, "" if selection.is_directory else selection.name, look)
    try:
        Writer(selection, target, look).write()
    finally:
        os.close(target.fd)


def put_unpacked(
    selection: Selection,
    root: int,
    destination: str,
    look: Look,
    work: StepWork,
    *,
    excluded: IgnoreRules | None = None,
) -> None:
    """Unpack the archive that a selection is, without what ``excluded`` leaves out; with such rules, or another owner
    or mode, aside first. Raises ArchiveError."""
    with _open_file(selection) as archive:
        if look.owner is None and look.mode is None and excluded is None:
            directory = destination_path(root, destination)
            os.close(make_directories(root, directory, look))
            work.extract(archive, root, directory)
            return
        scratch = work.scratch()
        work.extract(archive, scratch, "", mtime=work.dating.instead)
    tree = SourceTree(scratch, name="the archive", keep_owner=True)
    put(whole(tree, excluded=excluded), root, destination, look)


def put_heredocs(heredocs: Iterable[Heredoc], root: int, destination: str, look: Look) -> None:
    """Write each heredoc as a file of its name."""
    for heredoc in heredocs:
        target = open_target(root, destination, heredoc.name, look)
        try:
            write_file(target.fd, target.name, heredoc.body.encode("utf-8", "surrogateescape"), look)
        finally:
            os.close(target.fd)


def _open_file(selection: Selection) -> BinaryIO:
    """The one file of a selection, which has not changed since it was listed."""
    group = selection.groups[0]
    source = selection.open_group(group)
    try:
        return open(open_unchanged(group.entries[0], source), "rb")
    finally:
        os.close(source)
