"""The verbs that look for damage, in images or in a whole data root, and tell what can be done about it.

Nothing that is damaged ends a look: it is told, and the look goes on. The collection lock is held shared meanwhile, so
that what is missing is missing and was not just removed.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from minidock.engine.findings import CheckResult, Problem, Unneeded, Verdict
from minidock.engine.images import cached_layers, drivers_in_use
from minidock.engine.layer_checks import LayerChecks
from minidock.errors import CorruptObjectError, InvalidReferenceError, MinidockError, NoSuchContainerError
from minidock.model.digest import Chain, hex_of, is_digest
from minidock.model.reference import parse_reference
from minidock.store import locks, staging
from minidock.store.blobs import Blobs
from minidock.store.cache_mounts import CacheMounts
from minidock.store.checking import Checking, lost_entries
from minidock.store.collector import Live, mark
from minidock.store.containers import ContainerStore
from minidock.store.images import Images
from minidock.store.index import read_index

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from minidock.drivers.interface import Driver
    from minidock.engine.base import EngineBase
    from minidock.model.container import Record
    from minidock.store.images import Entries
    from minidock.store.layout import DataRoot

_EMPTY_INDEX = '{"schemaVersion": 2, "manifests": []}'
_NO_NEED = "no image and no container needs it"


def verify(engine: EngineBase, names: Sequence[str] = ()) -> list[Verdict]:
    """Look at the images of these names or IDs, at all when there are none. Raises NoSuchImageError and
    InvalidReferenceError before anything is read, CorruptObjectError for a damaged index."""
    root = engine.ready()
    with locks.shared(root.collection_lock):
        images = Images(root)
        index = read_index(root)
        by_id = images.by_id(index)
        chosen = [images.find(index, name).id for name in names] or list(by_id)
        checking = Checking(images.blobs)
        layers = LayerChecks(engine, checking, drivers_in_use(engine))
        return [_verdict(checking, layers, image_id, by_id[image_id]) for image_id in chosen]


def _verdict(checking: Checking, layers: LayerChecks, image_id: str, entries: Entries) -> Verdict:
    checked = checking.image(image_id, entries)
    problems = [Problem(fault.what, _remove_image(image_id)) for fault in checked.faults]
    problems += layers.chain(checked.diff_ids)
    return Verdict(image_id, _names(entries), tuple(problems))


def check(engine: EngineBase, *, repair: bool = False) -> CheckResult:
    """Look at the index, every image, container, blob and layer, and at what is half-made.

    With ``repair`` what is damaged and can be made again is removed, and what nobody can use. Raises HostError and
    StoreError where the data root cannot be used at all.
    """
    engine.ready(sweep=False)
    return _Check(engine, repair=repair).result()


class _Needs:
    """Who needs a blob that is missing or damaged (``what``, a clause): images by ID, and containers' names."""

    __slots__ = ("containers", "images", "what")

    def __init__(self, what: str) -> None:
        self.what = what
        self.images: dict[str, str] = {}
        self.containers: list[str] = []

    def remedy(self) -> str:
        """What to do so that nothing needs it any more: then it goes, and can be made again."""
        who = [f"container {name}" for name in self.containers] + [f"image {name}" for name in self.images.values()]
        commands = [f"`minidock rm {' '.join(self.containers)}`"] if self.containers else []
        if self.images:
            commands.append(f"`minidock rmi -f {' '.join(map(_short, self.images))}`")
        again = ", then make the image again" if self.images else ""
        return f"needed by {', '.join(who)}: remove that with {' and '.join(commands)}{again}"


class _Check:
    """One look at a data root."""

    __slots__ = ("_blobs", "_checking", "_engine", "_needs", "_problems", "_repair", "_root")

    def __init__(self, engine: EngineBase, *, repair: bool) -> None:
        self._engine = engine
        self._root = engine.root
        self._repair = repair
        self._blobs = Blobs(engine.root)
        self._checking = Checking(self._blobs)
        self._needs: dict[str, _Needs] = {}
        self._problems: list[Problem] = []

    def result(self) -> CheckResult:
        half_made = staging.abandoned(self._root)
        with locks.shared(self._root.collection_lock):
            images = self._images()
            records = list(self._records())
            chains = [self._image(image_id, entries) for image_id, entries in images.items()]
            chains += [self._container(record) for record in records]
            there = [digest for digest in self._blobs.all() if self._checking.blob(digest) != "is missing"]
            cached = {digest for digest in cached_layers(self._root) if self._blobs.has(digest)}
            drivers = drivers_in_use(self._engine)
            flawed = self._layers(drivers, chains, cached, records)
            live = self._live()
            unneeded = Unneeded() if live is None else self._unneeded(live, cached, there, drivers)
        self._bad_blobs(live)
        self._problems += flawed
        self._cache_mounts()
        self._half_made(half_made)
        return CheckResult(tuple(self._problems), len(images), len(records), len(there), self._checking.size, unneeded)

    def _images(self) -> dict[str, Entries]:
        """The entries of each image, none where the index is damaged."""
        try:
            index = read_index(self._root)
        except MinidockError as error:
            remedy = f"put back a copy of it, or write {_EMPTY_INDEX} to it and make the images again"
            self._problems.append(Problem(error.message, remedy))
            return {}
        if lost := lost_entries(index):
            what = f"{self._root.index} has {lost} entries that name no manifest"
            self._problems.append(Problem(what, "they go when an image is next made, named or removed"))
        return Images(self._root).by_id(index)

    def _image(self, image_id: str, entries: Entries) -> tuple[str, ...]:
        """Look at an image; returns its layers."""
        name = ", ".join(_names(entries)) or _short(image_id)
        checked = self._checking.image(image_id, entries)
        for fault in checked.faults:
            if fault.blob:
                self._needs.setdefault(fault.blob, _Needs(fault.what)).images[image_id] = name
            else:
                self._problems.append(Problem(f"the image {name} is damaged: {fault.what}", _remove_image(image_id)))
        return checked.diff_ids

    def _records(self) -> Iterator[Record]:
        """The containers' records that can be read. A container that vanishes meanwhile is none."""
        store = ContainerStore(self._root)
        for container_id in store.ids():
            try:
                record = store.load(container_id)
                yield record
                store.state(container_id)
            except NoSuchContainerError:
                continue
            except CorruptObjectError as error:
                what = f"the container {_short(container_id)} is damaged: {error.message}"
                self._problems.append(Problem(what, f"remove it with `minidock rm {_short(container_id)}`"))

    def _container(self, record: Record) -> tuple[str, ...]:
        """Look at what a container was made from; returns its layers."""
        diff_ids = tuple(digest for digest in record.diff_ids if is_digest(digest))
        for digest in dict.fromkeys((record.image_id, *diff_ids)):
            phrase = self._checking.blob(digest) if is_digest(digest) else ""
            if phrase:
                what = f"the {'configuration' if digest == record.image_id else 'layer'} {digest} {phrase}"
                self._needs.setdefault(digest, _Needs(what)).containers.append(record.name)
        return diff_ids

    def _layers(
        self, drivers: Sequence[Driver], chains: list[tuple[str, ...]], cached: set[str], records: Iterable[Record]
    ) -> list[Problem]:
        """Look at the layers of images and containers, and at those that only the build cache has."""
        busy = _in_use(self._root, records)
        layers = LayerChecks(self._engine, self._checking, drivers, busy=busy, repair=self._repair)
        alone = [(digest,) for digest in sorted(cached.difference(*chains))]
        return list(dict.fromkeys(problem for chain in chains + alone for problem in layers.chain(chain)))

    def _live(self) -> Live | None:
        """What images and containers need, None where the index does not tell."""
        try:
            return mark(self._root)
        except MinidockError:
            return None

    def _unneeded(self, live: Live, cached: set[str], there: Iterable[str], drivers: Iterable[Driver]) -> Unneeded:
        bad = self._checking.bad_blobs()
        blobs = [digest for digest in there if digest not in bad and digest not in live.blobs | cached]
        keys = set().union(*(driver.keys() for driver in drivers))
        layers = {f"sha256:{key}" for key in keys} - live.layers - cached
        return Unneeded(len(blobs), sum(map(self._blobs.size, blobs)), len(layers))

    def _bad_blobs(self, live: Live | None) -> None:
        """Tell of each blob that is missing or damaged; one that nothing needs can be removed."""
        for digest, phrase in self._checking.bad_blobs().items():
            needs = self._needs.get(digest)
            if needs is not None:
                self._problems.append(Problem(needs.what, needs.remedy()))
            elif live is None or digest in live.blobs:
                self._problems.append(Problem(f"the blob {digest} {phrase}"))
            elif self._repair and self._remove(digest):
                self._problems.append(Problem(f"the blob {digest} {phrase}", f"{_NO_NEED}: it is removed", True))
            else:
                remedy = f"{_NO_NEED}: `minidock system check --repair` removes it"
                self._problems.append(Problem(f"the blob {digest} {phrase}", remedy))

    def _remove(self, digest: str) -> bool:
        """Remove a damaged blob unless something needs it by now; whether it is gone."""
        with suppress(MinidockError, OSError), locks.exclusive(self._root.collection_lock):
            if digest not in mark(self._root).blobs:
                self._blobs.remove(digest)
                # What is mounted of it would be used on.
                for driver in drivers_in_use(self._engine):
                    driver.remove(digest.removeprefix("sha256:"))
                return True
        return False

    def _cache_mounts(self) -> None:
        """Tell of the directories of cache mounts that are not what they should be: their content can be made again."""
        mounts = CacheMounts(self._root)
        for cache in mounts.list():
            if cache.problem:
                what = f"the cache mount {mounts.directory}/{cache.name} is damaged: {cache.problem}"
                gone = False
                if self._repair:
                    with suppress(OSError):
                        gone = mounts.remove(cache.name)
                remedy = "it cannot be removed" if self._repair else "`minidock system check --repair` removes it"
                self._problems.append(Problem(what, "it is removed" if gone else remedy, gone))

    def _half_made(self, before: set[str]) -> None:
        """Tell of what nobody held at the beginning and nobody holds now: the maker of a new thing holds it by now."""
        names = left = before & staging.abandoned(self._root)
        if self._repair:
            staging.sweep(self._root)
            left = staging.abandoned(self._root)
        for name in sorted(names):
            what = f"{self._root.tmp}/{name} was left half-made by a command that was killed"
            gone = name not in left
            remedy = "it cannot be removed" if self._repair else "the next command removes it"
            self._problems.append(Problem(what, "it is removed" if gone else remedy, gone))


def _in_use(root: DataRoot, records: Iterable[Record]) -> set[str]:
    """The names, as drivers have them, of the layers of running containers."""
    keys: set[str] = set()
    for record in records:
        with suppress(OSError, InvalidReferenceError):
            if locks.is_held(root.container_lock(record.id)):
                chain = Chain(record.diff_ids)
                keys.update(map(hex_of, record.diff_ids))
                keys.update(hex_of(chain.id(count)) for count in range(1, len(record.diff_ids) + 1))
    return keys


def _remove_image(image_id: str) -> str:
    return f"remove the image with `minidock rmi -f {_short(image_id)}` and make it again"


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _names(entries: Entries) -> tuple[str, ...]:
    """The familiar names of an image, sorted; those of other programs that are no references as they are."""
    found = set()
    for entry in entries:
        if entry.name:
            try:
                found.add(parse_reference(entry.name).familiar())
            except InvalidReferenceError:
                found.add(entry.name)
    return tuple(sorted(found))
