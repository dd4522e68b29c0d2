"""What a storage driver is: layers beneath, one writable layer above, and the way between the two.

Layers are named by their diff IDs, lowest first. A driver is handed directories and *returns* mounts; it never mounts
for a container. A writable layer is a directory of the caller's, on the driver's file system, with whatever the driver
puts in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from contextlib import AbstractContextManager

    from minidock.drivers.compose import Composer
    from minidock.drivers.form import Form
    from minidock.drivers.indexer import Indexer
    from minidock.drivers.packed import Packed, Sealed
    from minidock.drivers.tar_format import Reader
    from minidock.drivers.verify import Flaw
    from minidock.model.dating import Dating
    from minidock.model.steps import RootMount


class Change(NamedTuple):
    """One line of ``diff``: ``kind`` is "A", "C" or "D", ``path`` absolute."""

    kind: str
    path: str


class Driver(Protocol):
    """One way to keep layers. Methods raise OSError from the kernel, and MinidockError subclasses as they say."""

    @property
    def name(self) -> str:
        """As ``--storage-driver`` and ``info`` say it."""

    def has(self, diff_ids: Sequence[str]) -> bool:
        """Whether the topmost of ``diff_ids``, above the others, is here and whole."""

    @property
    def form(self) -> Form:
        """How layers are kept, and why."""

    def missing(self, diff_ids: Sequence[str]) -> list[int]:
        """Which of the layers, counted from 1 for the lowest, have to be made before the others can be used."""

    def share(self, diff_ids: Sequence[str]) -> bool:
        """Have the layers, which are here, ready to be mounted by anybody; whether that took anything."""

    def rest(self, keep: Collection[str], *, seconds: float) -> None:
        """Let go of what ``share`` holds and nobody asked for so long, but for the layers whose names (as ``keys`` has
        them) are in ``keep``."""

    def indexer(self, diff_ids: Sequence[str] = ()) -> AbstractContextManager[Indexer | None]:
        """What takes the entries of a tar, to become the topmost of ``diff_ids`` without unpacking; without them, a
        layer above no matter what. None where the driver unpacks every layer."""

    def compose(self, diff_ids: Sequence[str], out: BinaryIO) -> AbstractContextManager[Composer | None]:
        """What writes a layer above ``diff_ids`` entry by entry; None where only a writable layer can be packed."""

    def publish(self, diff_ids: Sequence[str], index: Sealed, *, tar: str) -> None:
        """Let an index make the topmost of ``diff_ids``, whose tar lies at ``tar`` now and among the blobs later."""

    def unpack(self, diff_ids: Sequence[str], tar: Reader, staging_dir: str) -> None:
        """Make the topmost of ``diff_ids`` from its plain tar; the layers beneath it are here. Half-made things lie in
        ``staging_dir``, a private directory on the same file system. Raises ArchiveError."""

    def prepare(self, diff_ids: Sequence[str], writable: str) -> None:
        """Fill the empty directory ``writable`` with a fresh writable layer above the layers."""

    def mounts(self, diff_ids: Sequence[str], writable: str | None, *, durable: bool = False) -> RootMount:
        """What to mount as the root file system: read-only without ``writable``.

        A ``durable`` writable layer outlives its mount and the machine; another one is never waited for.
        """

    def pack(
        self,
        diff_ids: Sequence[str],
        writable: str,
        out: BinaryIO,
        *,
        stubs: Collection[str] = (),
        omit: bool = True,
        dating: Dating | None = None,
    ) -> Packed:
        """Write the tar of the layer that ``writable`` makes above ``diff_ids`` and leave ``writable`` as unpacking
        that tar would make it. The writable layer is mounted nowhere.

        ``stubs`` are absolute paths of mount points that were made for mounts: what is still empty of them is no part
        of the layer. ``omit`` false keeps what is the same beneath (a ``--link`` layer, made on a writable layer above
        no layers). ``dating`` says which times its entries get; None keeps them, to the second. Raises ArchiveError for
        what a layer cannot hold.
        """

    def adopt(self, diff_ids: Sequence[str], writable: str, packed: Packed, *, tar: str) -> None:
        """Let the writable layer, ``packed`` before to the file ``tar``, become the topmost of ``diff_ids``. Afterwards
        it is the caller's to remove, whether something is left of it or not."""

    def changes(self, diff_ids: Sequence[str], writable: str) -> Iterator[Change]:
        """What the writable layer changes; it may be in use. Stop early with ``close``."""

    def keys(self) -> list[str]:
        """The 64 hexadecimal digits that name each layer here, of a diff ID or a chain ID."""

    def remove(self, key: str) -> None:
        """Remove a layer that nothing uses; one that is gone already is fine."""

    def verify(self, diff_ids: Sequence[str], tar: Reader) -> list[Flaw]:
        """What is wrong with what is here of the topmost of ``diff_ids``; what is not here is not wrong. ``tar`` is the
        layer's plain tarball, known to be whole. Raises ArchiveError when that is no layer."""

    def discard(self, flaw: Flaw) -> None:
        """Remove what ``verify`` found, so that it is made again, unless somebody has done that meanwhile."""

    def usage(self, diff_ids: Sequence[str]) -> int:
        """Bytes on disk of the topmost of ``diff_ids``, 0 when it is not here."""

    def settle(self) -> None:
        """Put all layers on disk, so that they outlive a reboot; without it they are made again from their tars."""

    @staticmethod
    def probe(scratch_dir: str) -> str:
        """Try what the driver needs in the empty directory ``scratch_dir``, on the file system of its layers: "" when
        it works, else one phrase that says what is missing."""
