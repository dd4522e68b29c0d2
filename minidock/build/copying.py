"""The step of COPY and ADD: which files, under which key, and how they get into the root file system."""

from __future__ import annotations

import os
import posixpath
import re
from typing import TYPE_CHECKING, Any

from minidock.build.accounts import owner_in
from minidock.build.cache import Key, make_key
from minidock.build.direct import compose
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
from minidock.model.digest import digest_of
from minidock.model.users import parse_user
from minidock.rootfs import is_archive

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import BinaryIO

    from minidock.build.state import StageState
    from minidock.build.work import Source, StepWork
    from minidock.dockerfile.instructions import Add, Copy, Heredoc

# Bytes of small files that a step holds from the reading for its key to the copy.
_HOLD = 96 * 1024 * 1024
_INSTEAD = "copy it as it is with COPY"
_OCTAL = re.compile(r"0?[0-7]{1,4}|0o[0-7]{1,4}")


def add_copy(word: str, instruction: Copy | Add, stage: StageState, source: Source, *, unpack: bool | None) -> None:
    """Add the line and step of a COPY or ADD. ``unpack`` is False for never, None for archives, True for always.

    Raises MinidockError for a destination or mode that makes no sense.
    """
    step = CopyStep(
        title=instruction.location.text,
        word=word,
        instruction=instruction,
        destination=_absolute(stage.workdir, instruction.destination),
        source=source,
        unpack=unpack,
    )
    flags = [
        f"--{name}={value}" for name, value in (("chown", instruction.chown), ("chmod", instruction.chmod)) if value
    ]
    names = [*instruction.sources, *(heredoc.name for heredoc in instruction.heredocs)]
    shown = " ".join([word, *flags, *names, instruction.destination])
    stage.add_line(f"{shown} # buildkit", instruction.location, step)


def _absolute(workdir: str, destination: str) -> str:
    path = "/" + posixpath.normpath(posixpath.join(workdir, destination)).lstrip("/")
    return path + "/" if is_directory_name(destination) and path != "/" else path


def octal_mode(text: str) -> int:
    """The mode that ``--chmod`` gives. Raises MinidockError for anything but octal digits up to 7777."""
    if not _OCTAL.fullmatch(text) or int(text.removeprefix("0o"), 8) > 0o7777:
        symbolic = any(char.isalpha() for char in text)
        raise MinidockError(
            f"--chmod={text} is symbolic, and only octal modes are executed yet"
            if symbolic
            else f"invalid mode {text!r} of --chmod",
            hint="write an octal mode from 0 to 7777, such as --chmod=755",
        )
    return int(text.removeprefix("0o"), 8)


class CopyStep:
    """Copies what the sources select to ``destination`` (absolute; an end slash says that it is a directory)."""

    __slots__ = (
        "_mode",
        "_owner",
        "_selected",
        "destination",
        "heredocs",
        "source",
        "sources",
        "title",
        "unpack",
        "word",
    )

    def __init__(
        self,
        *,
        title: str,
        word: str,
        instruction: Copy | Add,
        destination: str,
        source: Source,
        unpack: bool | None,
    ) -> None:
        self.title = title
        self.word = word
        self.sources: tuple[str, ...] = instruction.sources
        self.heredocs: tuple[Heredoc, ...] = instruction.heredocs
        self.destination = destination
        self.source = source
        self.unpack = unpack
        self._owner = instruction.chown
        self._mode = octal_mode(instruction.chmod) if instruction.chmod else None
        self._selected: list[Selection] | None = None
        if self._owner:
            parse_user(self._owner)
        self._check_count(len(self.sources) + len(self.heredocs))

    def keys(self, work: StepWork) -> Iterator[Key]:
        """By the layers that hold the sources, where it is layers; then by the files themselves."""
        layers = work.source_layers(self.source)
        heredocs = [[heredoc.name, digest_of(heredoc.body.encode())] for heredoc in self.heredocs]
        common: dict[str, Any] = {
            "instruction": self.word,
            "destination": self.destination,
            "chown": self._owner,
            "chmod": self._mode,
            "unpack": self.unpack,
            "heredocs": heredocs,
        }
        if layers is not None:
            yield make_key(work.below, **common, source=list(layers), paths=list(self.sources))
        selected = self._select(work)
        hold = _HOLD // max(len(selected), 1)
        files = [[_printable(s.name), s.is_directory, content_digest(s, hold=hold)] for s in selected]
        yield make_key(work.below, **common, files=files)

    def perform(self, work: StepWork) -> Collection[str]:
        selections = self._select(work)
        archives = [selection for selection in selections if self._is_archive(selection)]
        if not archives and compose(work, self.destination, self._look, selections=selections, heredocs=self.heredocs):
            return ()
        with work.open_root() as root:
            look = self._look(root)
            for selection in selections:
                if selection in archives:
                    self._unpack(selection, root, look, work)
                else:
                    self._copy(selection, root, look)
            for heredoc in self.heredocs:
                self._write_heredoc(heredoc, root, look)
        return ()

    def _look(self, root: int) -> Look:
        return Look(owner_in(root, self._owner) if self._owner else None, self._mode)

    def _select(self, work: StepWork) -> list[Selection]:
        if self._selected is None:
            tree = work.open_source(self.source)
            self._selected = [found for source in self.sources for found in _selections(tree, source)]
            self._check_count(len(self._selected) + len(self.heredocs))
            work.at_end(self._forget)
        return self._selected

    def _forget(self) -> None:
        self._selected = None

    def _check_count(self, count: int) -> None:
        if count > 1 and not is_directory_name(self.destination):
            raise MinidockError(
                f"{self.word} of more than one source needs a directory as destination, not {self.destination}",
                hint=f"end it with a slash: {self.destination}/",
            )

    def _copy(self, selection: Selection, root: int, look: Look) -> None:
        target = open_target(root, self.destination, "" if selection.is_directory else selection.name, look)
        try:
            Writer(selection, target, look).write()
        finally:
            os.close(target.fd)

    def _is_archive(self, selection: Selection) -> bool:
        """Whether a selection is an archive that this step unpacks. Raises ArchiveError for one that it can't."""
        if self.unpack is False or selection.is_directory:
            return False
        with _open_file(selection) as archive:
            if is_archive(archive):
                return True
        if self.unpack:
            raise ArchiveError(f"{selection.name} is not a tar archive", hint=_INSTEAD)
        return False

    def _unpack(self, selection: Selection, root: int, look: Look, work: StepWork) -> None:
        with _open_file(selection) as archive:
            if look == Look():
                directory = destination_path(root, self.destination)
                os.close(make_directories(root, directory, look))
                work.extract(archive, root, directory)
            else:
                self._copy(_extracted(archive, work), root, look)

    def _write_heredoc(self, heredoc: Heredoc, root: int, look: Look) -> None:
        target = open_target(root, self.destination, heredoc.name, look)
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


def _printable(name: str) -> str:
    """A file's name as JSON can hold it, whatever its bytes are; different names stay different."""
    return os.fsencode(name).decode("latin-1")


def _selections(tree: SourceTree, source: str) -> Sequence[Selection]:
    """What one source selects. Raises MinidockError if it is no pattern and nothing is there."""
    found: list[Selection] = []
    for path in named_paths(tree, source):
        name = os.path.basename(path)
        try:
            selection = select(tree, real_path(tree.fd, path), name)
        except (FileNotFoundError, NotADirectoryError):
            selection = None
        if selection is not None:
            found.append(selection)
    if not found and not is_pattern(source):
        raise MinidockError(f"{source!r} is not found in {tree.name}", hint=_why_missing(tree, source))
    return found


def _extracted(archive: BinaryIO, work: StepWork) -> Selection:
    """An archive unpacked aside, to be copied from there with another owner or mode."""
    scratch = work.scratch()
    work.extract(archive, scratch, "")
    selection = select(SourceTree(scratch, name="the archive", keep_owner=True), "", "")
    assert selection is not None
    content_digest(selection)
    return selection


def _why_missing(tree: SourceTree, source: str) -> str:
    if tree.rules is None:
        return ""
    try:
        real_path(tree.fd, source)
    except OSError:
        return "a source is relative to the build context, and links do not lead out of it"
    return "it is there, but .dockerignore leaves it out"
