"""The step of COPY and ADD: which files, under which key, and how they get into the root file system."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.build.cache import Key, make_key
from minidock.build.copy_flags import CopyFlags, shown_flags
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
)
from minidock.build.selection import content_digest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from minidock.build.parents import ParentsSource
    from minidock.build.selection import Selection
    from minidock.build.state import StageState
    from minidock.build.tree import SourceTree
    from minidock.build.work import Source, StepWork
    from minidock.build.writer import Look
    from minidock.dockerfile.instructions import Add, Copy, Heredoc

# Bytes of small files that a step holds from the reading for its key to the copy.
_HOLD = 96 * 1024 * 1024
_INSTEAD = "copy it as it is with COPY"


def add_copy(word: str, instruction: Copy | Add, stage: StageState, source: Source, *, unpack: bool | None) -> None:
    """Add the line and step of a COPY or ADD. ``unpack`` is False for never, None for archives, True for always.

    Raises MinidockError for a destination or flag that makes no sense.
    """
    step = CopyStep(
        title=instruction.location.text,
        word=word,
        instruction=instruction,
        destination=absolute(stage.workdir, instruction.destination),
        source=source,
        unpack=unpack,
        epoch=stage.arguments.epoch,
    )
    names = [*instruction.sources, *(f"<<{heredoc.name}" for heredoc in instruction.heredocs)]
    shown = " ".join([word, *shown_flags(instruction), *names, instruction.destination])
    stage.add_line(f"{shown} # buildkit", instruction.location, step)


def _with_parents(sources: Iterable[str]) -> dict[str, ParentsSource]:
    from minidock.build.parents import ParentsSource

    return {source: ParentsSource(source) for source in sources}


class CopyStep:
    """Copies what the sources select to ``destination`` (absolute; an end slash says that it is a directory)."""

    __slots__ = (
        "_flags",
        "_parents",
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
        epoch: int | None = None,
    ) -> None:
        self.title = title
        self.word = word
        self.sources: tuple[str, ...] = instruction.sources
        self.heredocs: tuple[Heredoc, ...] = instruction.heredocs
        self.destination = destination
        self.source = source
        self.unpack = unpack
        self._flags = CopyFlags(instruction, epoch)
        self._parents = _with_parents(self.sources) if self._flags.parents else {}
        self._selected: list[Selection] | None = None
        self._check_count(len(self.sources))

    def keys(self, work: StepWork) -> Iterator[Key]:
        """By the layers that hold the sources, where it is layers; then by the files themselves."""
        layers, below = work.source_layers(self.source), self._flags.below(work)
        common = self._flags.key_inputs(work, self.word, self.destination, unpack=self.unpack)
        if layers is not None:
            yield make_key(below, **common, source=list(layers), paths=list(self.sources))
        selected = self._select(work)
        hold = _HOLD // max(len(selected), 1)
        files = [[printable(s.name), s.is_directory, content_digest(s, hold=hold)] for s in selected]
        yield make_key(below, **common, files=files)._replace(copied=tuple(selected))

    def perform(self, work: StepWork) -> Collection[str]:
        selected = self._select(work)
        self._flags.begin(work, selected)
        archives = [s for s in selected if is_unpacked(s, unpack=self.unpack, instead=_INSTEAD)]
        if not archives and compose(work, self.destination, self._look, selections=selected, heredocs=self.heredocs):
            return ()
        with work.open_root() as root:
            look = self._look(root)
            for selection in selected:
                if selection in archives:
                    put_unpacked(selection, root, self.destination, look, work, excluded=self._flags.excluded)
                else:
                    put(selection, root, self.destination, look)
            put_heredocs(self.heredocs, root, self.destination, look)
        return ()

    def _look(self, root: int) -> Look:
        return self._flags.look(root)

    def _select(self, work: StepWork) -> list[Selection]:
        if self._selected is None:
            tree = work.open_source(self.source)
            self._selected = [found for source in self.sources for found in self._selections(tree, source)]
            self._check_count(len(self._selected))
            work.at_end(self._forget)
        return self._selected

    def _selections(self, tree: SourceTree, source: str) -> list[Selection]:
        if not self._flags.parents:
            return selections(tree, source, self._flags.excluded)
        from minidock.build.parents import selections_with_parents

        return selections_with_parents(tree, self._parents[source], self._flags.excluded)

    def _check_count(self, files: int) -> None:
        # What keeps its directories can only go into a directory.
        files = 0 if self._flags.parents else files
        check_count(self.word, files + len(self.heredocs), self.destination)

    def _forget(self) -> None:
        for selection in self._selected or ():
            selection.held.clear()
        self._selected = None
