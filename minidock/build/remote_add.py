"""The step of an ADD that has sources which are not of this host, perhaps beside others that are.

Its key holds what was fetched: the digest of a file's content, the commit of a git repository. A file's is known
without asking where ``--checksum`` says it; a repository that has not moved is not fetched again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from minidock.build.cache import Key, make_key
from minidock.build.copy_flags import CopyFlags
from minidock.build.direct import compose
from minidock.build.putting import (
    absolute,
    check_count,
    is_unpacked,
    printable,
    put,
    put_heredocs,
    put_unpacked,
    selections,
    whole,
)
from minidock.build.selection import Selection, content_digest
from minidock.build.sources.fetcher import UNNAMED
from minidock.build.sources.remote import GitSource, HttpSource, check_commit, redacted
from minidock.build.tree import DIRECTORY_FLAGS, SourceTree
from minidock.build.work import Source
from minidock.build.writer import Look, is_directory_name
from minidock.errors import MinidockError
from minidock.model.digest import is_digest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import Any

    from minidock.build.work import StepWork
    from minidock.dockerfile.instructions import Add, Heredoc

# Bytes of small files that are held from their reading to the copy.
_HOLD = 32 << 20
_INSTEAD = "add it without --unpack"
Operand = str | GitSource | HttpSource


class _Part(NamedTuple):
    """A selection, and whether it is an archive that is unpacked."""

    selection: Selection
    unpack: bool


class RemoteAdd:
    """Fetches the sources and copies them to ``destination`` (absolute; an end slash says that it is a directory)."""

    __slots__ = (
        "_checksum",
        "_flags",
        "_keep_git_dir",
        "_operands",
        "_unpack",
        "destination",
        "heredocs",
        "title",
    )

    def __init__(
        self, instruction: Add, operands: Sequence[Operand], workdir: str, *, epoch: int | None = None
    ) -> None:
        """``operands`` are the sources, read. Raises MinidockError for flags that make no sense."""
        self.title = redacted(instruction.location.text)
        self.destination = absolute(workdir, instruction.destination)
        self.heredocs: tuple[Heredoc, ...] = instruction.heredocs
        self._operands = tuple(operands)
        self._flags = CopyFlags(instruction, epoch)
        self._unpack = instruction.unpack
        self._keep_git_dir = instruction.keep_git_dir
        self._checksum = _checksum(instruction.checksum, self._operands, len(self.heredocs))
        check_count("ADD", len(self._operands) + len(self.heredocs), self.destination)
        for operand in self._operands:
            if isinstance(operand, HttpSource) and not operand.name and is_directory_name(self.destination):
                raise MinidockError(
                    f"the URL {operand.shown} has no file name to be called by in {self.destination}",
                    hint="give a destination without an end slash",
                )

    def keys(self, work: StepWork) -> Iterator[Key]:
        yield make_key(
            self._flags.below(work),
            **self._flags.key_inputs(work, "ADD", self.destination, unpack=self._unpack),
            remote=[self._identity(operand, work) for operand in self._operands],
        )

    def perform(self, work: StepWork) -> Collection[str]:
        parts = [part for operand in self._operands for part in self._parts(operand, work)]
        check_count("ADD", len(parts) + len(self.heredocs), self.destination)
        selected = [part.selection for part in parts]
        self._flags.begin(work, selected)
        if not any(part.unpack for part in parts) and compose(
            work, self.destination, self._look, selections=selected, heredocs=self.heredocs
        ):
            return ()
        with work.open_root() as root:
            look = self._look(root)
            for part in parts:
                if part.unpack:
                    put_unpacked(part.selection, root, self.destination, look, work, excluded=self._flags.excluded)
                else:
                    put(part.selection, root, self.destination, look)
            put_heredocs(self.heredocs, root, self.destination, look)
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
        found = selections(work.open_source(Source()), operand, self._flags.excluded)
        return ["files", *([printable(s.name), s.is_directory, content_digest(s)] for s in found)]

    def _parts(self, operand: Operand, work: StepWork) -> Iterator[_Part]:
        tell = work.progress.output
        if isinstance(operand, GitSource):
            fd = work.fetcher.tree(operand, tell, keep=self._keeps(operand))
            work.at_end(lambda: os.close(fd))
            tree = SourceTree(fd, name=operand.shown, keep_owner=False)
            yield _Part(whole(tree, excluded=self._flags.excluded, hold=_HOLD), False)
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
            selection = whole(SourceTree(fd, name=operand.shown, keep_owner=False), name, name, hold=_HOLD)
            yield _Part(selection, is_unpacked(selection, unpack=bool(self._unpack), instead=_INSTEAD))
        else:
            for selection in selections(work.open_source(Source()), operand, self._flags.excluded):
                content_digest(selection)
                yield _Part(selection, is_unpacked(selection, unpack=self._unpack, instead=_INSTEAD))

    def _keeps(self, source: GitSource) -> bool:
        return self._keep_git_dir or bool(source.keep_git_dir)

    def _look(self, root: int) -> Look:
        return self._flags.look(root)


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
