"""What a step has at hand when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from minidock.build.cache import Key
    from minidock.build.context_parts import ContextPart
    from minidock.build.progress import StepProgress
    from minidock.build.selection import Selection
    from minidock.build.sources.fetcher import Fetcher
    from minidock.build.tree import SourceTree
    from minidock.model.dating import Dating
    from minidock.model.run_mounts import Agent
    from minidock.model.steps import RootMount
    from minidock.store.staging import Staging


class RunResult(Protocol):
    """How a command ended: its exit status, and the mount points that the runtime made in its root."""

    @property
    def status(self) -> int: ...

    @property
    def stubs(self) -> tuple[str, ...]: ...


class RunStep(Protocol):
    """Runs one command in a root file system, in the sandbox of a container, to its end."""

    def start(self) -> None:
        """Start what runs the commands, if it does not run yet: it then has nothing that is opened from now on."""

    def __call__(
        self,
        *,
        root: RootMount,
        args: tuple[str, ...],
        env: tuple[str, ...],
        workdir: str,
        user: str,
        network: str,
        ulimits: tuple[str, ...],
        on_output: Callable[[bytes], None],
        meanwhile: Callable[[], None],
        mounts: Sequence[dict[str, Any]] = (),
        agents: Sequence[Agent] = (),
        insecure: bool = False,
        hosts: Sequence[tuple[str, str]] = (),
        shm_size: int = 0,
        terminal: bool = False,
        devices: Mapping[str, Any] | None = None,
    ) -> RunResult:
        """With ``terminal`` the command has a terminal, which is joined to the one that descriptors 0 and 2 of this
        process are; else it has no input, and its output goes to ``on_output``. ``mounts`` are as
        ``model.spec.step_spec`` has them; ``agents`` are reached at sockets inside; ``hosts`` are further names with
        addresses; ``devices`` are nodes, rules and groups, as ``runtime.cdi`` gives them. ``meanwhile`` is called once,
        while the command starts; an exception of it ends the command.

        Raises ContainerStartError if the command cannot be started.
        """


class Source(NamedTuple):
    """Where a COPY takes its files from: a stage of this build, an image's layers, the files of a named context
    (``context``), or the build's own (none of these)."""

    stage: int = -1
    image: tuple[str, ...] | None = None
    name: str = "the build context"
    context: str = ""


class LayerWriter(Protocol):
    """A layer that is written as a tar straight away, above the layers that a step stands on.

    Entries come depth first, the names of a directory sorted bytewise, each directory (the root is the empty path)
    before its content. ``mode`` is st_mode with its type, ``mtime`` whole seconds. Methods raise ArchiveError for what
    a layer cannot hold, StoreError, OSError.
    """

    @property
    def view(self) -> int:
        """The merged tree of the layers beneath, read-only, as a directory descriptor."""

    def add(
        self,
        path: str,
        *,
        mode: int,
        uid: int,
        gid: int,
        mtime: int,
        target: str = "",
        rdev: int = 0,
        xattrs: Mapping[str, bytes] = ...,
        link_to: str = "",
    ) -> None:
        """Write anything but a regular file; with ``link_to`` another name of one that was written before."""

    def add_file(
        self,
        path: str,
        *,
        mode: int,
        uid: int,
        gid: int,
        mtime: int,
        size: int,
        xattrs: Mapping[str, bytes] = ...,
        source: int | bytes | memoryview,
    ) -> None:
        """Write a regular file of ``size`` bytes, read from a descriptor or given as they are."""


class StepWork(Protocol):
    """The surroundings of one step; the solver's."""

    @property
    def below(self) -> tuple[str, ...]:
        """The diff IDs that the step stands on, lowest first."""

    @property
    def dating(self) -> Dating:
        """The times of what the step's layer holds, as ``date`` or ``cut_times`` has set them."""

    def date(self, epoch: int | None, newest: int | None) -> None:
        """Let nothing in the layer have the time of the build, in a step that gives all that it copies a time of its
        own. Instead it is ``epoch`` (SOURCE_DATE_EPOCH), or without one the time of the latest thing that is copied,
        ``newest``, or where nothing is, that of what the step stands on. All in seconds."""

    def cut_times(self, epoch: int | None) -> None:
        """Cut times of the layer that are later than ``epoch`` to it."""

    @property
    def progress(self) -> StepProgress: ...

    @property
    def run(self) -> RunStep: ...

    @property
    def fetcher(self) -> Fetcher:
        """What fetches sources that are not of this host."""

    @property
    def staging(self) -> Staging:
        """The build's own directory, which stays until the build ends."""

    @property
    def context_parts(self) -> dict[tuple[Source, str], ContextPart]:
        """What RUN steps of this build mount of contexts, by source and path; they add to it."""

    def layer_of(self, selection: Selection, destination: str, key: Key) -> str | None:
        """The diff ID of a layer that holds a selection, whose digest is known, and nothing else; the cache knows it by
        ``key``. None where the storage driver makes no layers of files. Raises MinidockError, OSError."""

    def mount_source(self, source: Source, *, writable: bool) -> RootMount:
        """The tree of a stage or image, to be mounted by the runtime; what is written to a ``writable`` one is thrown
        away when the step ends."""

    def meanwhile(self) -> None:
        """What steps before this one have left to be done while a command runs."""

    def mounts(self) -> RootMount:
        """The writable root file system, to be mounted by the runtime."""

    def open_below(self) -> AbstractContextManager[int]:
        """The merged tree of the layers that the step stands on, to be read only, as a directory descriptor."""

    def stand_alone(self) -> None:
        """Let the step stand on no layers at all from now on: what its layer holds is the same above any others
        (``--link``), and nothing of it is left out because it is beneath already."""

    def open_root(self) -> AbstractContextManager[int]:
        """The writable root file system as a directory descriptor."""

    def compose(self) -> AbstractContextManager[LayerWriter | None]:
        """Write the step's layer directly, instead of changing its root file system; None where the storage driver does
        not allow it. An exception that ends the context leaves everything as it was."""

    def open_source(self, source: Source) -> SourceTree:
        """The tree that a source is, to be read only; it stays open until the step ends."""

    def source_layers(self, source: Source) -> tuple[str, ...] | None:
        """The diff IDs of a stage or image; None for the context, which has none."""

    def extract(self, archive: BinaryIO, root: int, directory: str, *, mtime: int | None = None) -> None:
        """Unpack a plain tar stream into a directory of an open root, never outside of it. ``directory`` is relative
        and real; ``mtime``, in seconds, is for directories that the archive lacks. Raises ArchiveError, OSError."""

    def at_end(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the step ends, however it does."""

    def scratch_path(self) -> str:
        """A new private directory, which is gone when the step ends."""

    def scratch(self) -> int:
        """A new private directory as a descriptor; both are gone when the step ends."""
