"""The step of COPY and ADD: which files, under which key, and how they get into the root file system."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from minidock.build.cache import Key, make_key
from minidock.build.direct import compose
from minidock.build.putting import (
    absolute,
    check_count,
    is_unpacked,
    look_in,
    printable,
    put,
    put_heredocs,
    put_unpacked,
    selections,
)
from minidock.build.selection import content_digest
from minidock.errors import MinidockError
from minidock.model.digest import digest_of
from minidock.model.users import parse_user

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from minidock.build.selection import Selection
    from minidock.build.state import StageState
    from minidock.build.work import Source, StepWork
    from minidock.build.writer import Look
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
        destination=absolute(stage.workdir, instruction.destination),
        source=source,
        unpack=unpack,
    )
    flags = [
        f"--{name}={value}" for name, value in (("chown", instruction.chown), ("chmod", instruction.chmod)) if value
    ]
    names = [*instruction.sources, *(heredoc.name for heredoc in instruction.heredocs)]
    shown = " ".join([word, *flags, *names, instruction.destination])
    stage.add_line(f"{shown} # buildkit", instruction.location, step)


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
        check_count(word, len(self.sources) + len(self.heredocs), destination)

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
        files = [[printable(s.name), s.is_directory, content_digest(s, hold=hold)] for s in selected]
        yield make_key(work.below, **common, files=files)

    def perform(self, work: StepWork) -> Collection[str]:
        selected = self._select(work)
        archives = [s for s in selected if is_unpacked(s, unpack=self.unpack, instead=_INSTEAD)]
        if not archives and compose(work, self.destination, self._look, selections=selected, heredocs=self.heredocs):
            return ()
        with work.open_root() as root:
            look = self._look(root)
            for selection in selected:
                if selection in archives:
                    put_unpacked(selection, root, self.destination, look, work)
                else:
                    put(selection, root, self.destination, look)
            put_heredocs(self.heredocs, root, self.destination, look)
        return ()

    def _look(self, root: int) -> Look:
        return look_in(root, owner=self._owner, mode=self._mode)

    def _select(self, work: StepWork) -> list[Selection]:
        if self._selected is None:
            tree = work.open_source(self.source)
            self._selected = [found for source in self.sources for found in selections(tree, source)]
            check_count(self.word, len(self._selected) + len(self.heredocs), self.destination)
            work.at_end(self._forget)
        return self._selected

    def _forget(self) -> None:
        self._selected = None
