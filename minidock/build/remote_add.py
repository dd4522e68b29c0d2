"""The step of an ADD that has sources which are not of this host, perhaps beside others that are.

Its key holds what was fetched: the digest of a file's content, the commit of a git repository. A file's is known
without asking where ``--checksum`` says it; a repository that has not moved is not fetched again.
"""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, NamedTuple

from minidock.build.accounts import owner_in
from minidock.build.cache import Key, make_key
from minidock.build.copying import octal_mode
from minidock.build.direct import compose
from minidock.build.selection import Selection, content_digest, open_unchanged, select
from minidock.build.sources.fetcher import UNNAMED
from minidock.build.sources.remote import GitSource, HttpSource, check_commit, redacted
from minidock.build.tree import DIRECTORY_FLAGS, SourceTree, is_pattern, named_paths, real_path
from minidock.build.work import Source
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
from minidock.model.digest import digest_of, is_digest
from minidock.model.users import parse_user
from minidock.rootfs import is_archive

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import Any, BinaryIO

    from minidock.build.work import StepWork
    from minidock.dockerfile.instructions import Add, Heredoc

# Bytes of small files that are held from their reading to the copy.
_HOLD = 32 << 20
Operand = str | GitSource | HttpSource


class _Part(NamedTuple):
    """A selection, and whether it is an archive that is unpacked."""

    selection: Selection
    unpack: bool


class RemoteAdd:
    """Fetches the sources and copies them to ``destination`` (absolute; an end slash says that it is a directory)."""

    __slots__ = (
        "_checksum",
        "_keep_git_dir",
        "_mode",
        "_operands",
        "_owner",
        "_unpack",
        "destination",
        "heredocs",
        "title",
    )

    def __init__(self, instruction: Add, operands: Sequence[Operand], workdir: str) -> None:
        """``operands`` are the sources, read. Raises MinidockError for flags that make no sense."""
        self.title = redacted(instruction.location.text)
        self.destination = _absolute(workdir, instruction.destination)
        self.heredocs: tuple[Heredoc, ...] = instruction.heredocs
        self._operands = tuple(operands)
        self._owner = instruction.chown
        self._mode = octal_mode(instruction.chmod) if instruction.chmod else None
        self._unpack = instruction.unpack
        self._keep_git_dir = instruction.keep_git_dir
        self._checksum = _checksum(instruction.checksum, self._operands, len(self.heredocs))
        if self._owner:
            parse_user(self._owner)
        self._check_count(len(self._operands) + len(self.heredocs))
        for operand in self._operands:
            if isinstance(operand, HttpSource) and not operand.name and is_directory_name(self.destination):
                raise MinidockError(
                    f"the URL {operand.shown} has no file name to be called by in {self.destination}",
                    hint="give a destination without an end slash",
                )

    def keys(self, work: StepWork) -> Iterator[Key]:
        yield make_key(
            work.below,
            instruction="ADD",
            destination=self.destination,
            chown=self._owner,
            chmod=self._mode,
            unpack=self._unpack,
            heredocs=[[heredoc.name, digest_of(heredoc.body.encode())] for heredoc in self.heredocs],
            remote=[self._identity(operand, work) for operand in self._operands],
        )

    def perform(self, work: StepWork) -> Collection[str]:
        parts = [part for operand in self._operands for part in self._parts(operand, work)]
        self._check_count(len(parts) + len(self.heredocs))
        selections = [part.selection for part in parts]
        if not any(part.unpack for part in parts) and compose(
            work, self.destination, self._look, selections=selections, heredocs=self.heredocs
        ):
            return ()
        with work.open_root() as root:
            look = self._look(root)
            for part in parts:
                self._put(part, root, look, work)
            for heredoc in self.heredocs:
                target = open_target(root, self.destination, heredoc.name, look)
                try:
                    write_file(target.fd, target.name, heredoc.body.encode("utf-8", "surrogateescape"), look)
                finally:
                    os.close(target.fd)
        return ()

    def _identity(self, operand: Operand, work: StepWork) -> list[Any]:
        """What of a source decides the result, as JSON."""
        tell = work.progress.output
        if isinstance(operand, GitSource):
            commit = work.fetcher.commit(operand, tell)
            return ["git", commit.digest, operand.subdir, self._keeps(operand), operand.submodules]
        if isinstance(operand, HttpSource):
            known = self._checksum or work.fetcher.file(operand, tell).digest
            return ["http", operand.name, known]
        found = _local(work, operand)
        return ["files", *([os.fsencode(s.name).decode("latin-1"), s.is_directory, content_digest(s)] for s in found)]

    def _parts(self, operand: Operand, work: StepWork) -> Iterator[_Part]:
        tell = work.progress.output
        if isinstance(operand, GitSource):
            fd = work.fetcher.tree(operand, tell, keep=self._keeps(operand))
            work.at_end(lambda: os.close(fd))
            yield _Part(_only(SourceTree(fd, name=operand.shown, keep_owner=False), "", ""), False)
        elif isinstance(operand, HttpSource):
            fetched = work.fetcher.file(operand, tell)
            if self._checksum and fetched.digest != self._checksum:
                raise MinidockError(
                    f"{operand.shown} has the digest {fetched.digest}, not {self._checksum}",
                    hint="change --checksum if that is what you want",
                )
            fd = os.open(os.path.dirname(fetched.path), DIRECTORY_FLAGS)
            work.at_end(lambda: os.close(fd))
            name = operand.name or UNNAMED
            selection = _only(SourceTree(fd, name=operand.shown, keep_owner=False), name, name)
            yield _Part(selection, bool(self._unpack) and _holds_archive(selection, needed=True))
        else:
            for selection in _local(work, operand):
                content_digest(selection)
                wanted = self._unpack is not False and not selection.is_directory
                yield _Part(selection, wanted and _holds_archive(selection, needed=bool(self._unpack)))

    def _put(self, part: _Part, root: int, look: Look, work: StepWork) -> None:
        selection = part.selection
        if part.unpack:
            with _open_file(selection) as archive:
                if look == Look():
                    directory = destination_path(root, self.destination)
                    os.close(make_directories(root, directory, look))
                    work.extract(archive, root, directory)
                    return
                scratch = work.scratch()
                work.extract(archive, scratch, "")
                selection = _only(SourceTree(scratch, name="the archive", keep_owner=True), "", "")
        target = open_target(root, self.destination, "" if selection.is_directory else selection.name, look)
        try:
            Writer(selection, target, look).write()
        finally:
            os.close(target.fd)

    def _keeps(self, source: GitSource) -> bool:
        return self._keep_git_dir or bool(source.keep_git_dir)

    def _look(self, root: int) -> Look:
        return Look(owner_in(root, self._owner) if self._owner else None, self._mode)

    def _check_count(self, count: int) -> None:
        if count > 1 and not is_directory_name(self.destination):
            raise MinidockError(
                f"ADD of more than one source needs a directory as destination, not {self.destination}",
                hint=f"end it with a slash: {self.destination}/",
            )


def _absolute(workdir: str, destination: str) -> str:
    path = "/" + posixpath.normpath(posixpath.join(workdir, destination)).lstrip("/")
    return f"{path}/" if is_directory_name(destination) and path != "/" else path


def _checksum(text: str, operands: Sequence[Operand], others: int) -> str:
    """The value of ``--checksum`` for a file; a repository's is in its source already. Raises MinidockError."""
    if not text:
        return ""
    if len(operands) + others != 1:
        raise MinidockError("ADD --checksum needs exactly one source, which is an URL or a git repository")
    if isinstance(operands[0], GitSource):
        return ""
    if not is_digest(text):
        raise MinidockError(
            f"invalid --checksum={text}: it is no digest", hint="the form is sha256: and 64 hexadecimal digits"
        )
    return text


def with_checksum(operand: Operand, checksum: str) -> Operand:
    """A git source that is to be at a commit. Raises UsageError for what is no commit."""
    if not checksum or not isinstance(operand, GitSource):
        return operand
    commit = check_commit(checksum, what="--checksum")
    if operand.commit and not operand.commit.startswith(commit) and not commit.startswith(operand.commit):
        raise MinidockError(f"--checksum={commit} is another commit than {operand.commit} of the URL")
    return operand._replace(commit=max(commit, operand.commit, key=len))


def _local(work: StepWork, source: str) -> list[Selection]:
    """What a source of the build context selects. Raises MinidockError if it is no pattern and nothing is there."""
    tree = work.open_source(Source())
    found = []
    for path in named_paths(tree, source):
        try:
            selection = select(tree, real_path(tree.fd, path), os.path.basename(path))
        except (FileNotFoundError, NotADirectoryError):
            selection = None
        if selection is not None:
            found.append(selection)
    if not found and not is_pattern(source):
        raise MinidockError(f"{source!r} is not found in {tree.name}, or its ignore rules leave it out")
    return found


def _only(tree: SourceTree, path: str, name: str) -> Selection:
    selection = select(tree, path, name)
    assert selection is not None, "it was made just now"
    content_digest(selection, hold=_HOLD)
    return selection


def _holds_archive(selection: Selection, *, needed: bool) -> bool:
    with _open_file(selection) as file:
        found = is_archive(file)
    if needed and not found:
        raise ArchiveError(f"{selection.name} is not a tar archive", hint="add it without --unpack")
    return found


def _open_file(selection: Selection) -> BinaryIO:
    group = selection.groups[0]
    source = selection.open_group(group)
    try:
        return open(open_unchanged(group.entries[0], source), "rb")
    finally:
        os.close(source)
