"""``pull``: an image from a registry into the store, each layer in one pass."""

from __future__ import annotations

import hashlib
import os
import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from minidock.build.arguments import host_platform
from minidock.drivers.compression import Plain
from minidock.engine.parts import open_rootfs
from minidock.engine.transfers import Event, StoppedError, event_of, side_by_side
from minidock.errors import ArchiveError, CorruptObjectError, NoSuchImageError, RegistryError
from minidock.model.platforms import parse_platform
from minidock.model.reference import DEFAULT_TAG, parse_reference
from minidock.registry.credentials import CredentialFiles
from minidock.registry.download import DamagedError, Downloads
from minidock.registry.places import Settings, places
from minidock.registry.repository import Repository
from minidock.registry.resolve import PLAIN_LAYERS, resolve
from minidock.registry.retry import Patience
from minidock.registry.session import Session
from minidock.store.images import Images
from minidock.store.staging import Staging
from minidock.store.wire import WireForm, WireForms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from minidock.drivers.tar_format import Reader
    from minidock.engine.base import EngineBase
    from minidock.model.oci import Descriptor
    from minidock.model.platforms import Platform
    from minidock.model.reference import Reference
    from minidock.registry.download import Download
    from minidock.registry.resolve import Resolved
    from minidock.rootfs import Rootfs

_BLOCK = 1 << 18
# What of a mirror's is passed over: that it has something else, or nothing, or does not work.
_MIRRORS = (RegistryError, CorruptObjectError, ArchiveError, NoSuchImageError)
_MIRROR_TRIES = 2


class Pulled(NamedTuple):
    """An image that was pulled: its ``id``, the full ``name`` that was asked for, the ``digest`` that this means in
    the registry; ``fresh`` says whether anything had to be fetched or renamed, ``fetched`` how many bytes of layers
    came."""

    id: str
    name: str
    digest: str
    fresh: bool
    fetched: int = 0


def pull(
    engine: EngineBase,
    name: str,
    *,
    platform: str = "",
    all_tags: bool = False,
    tell: Callable[[Event], None] = lambda _: None,
    patience: Patience | None = None,
) -> list[Pulled]:
    """Pull an image, or with ``all_tags`` every one that the repository has a tag for.

    ``platform`` is this machine's unless given. Nothing is stored under a name before all of it is there and checked;
    what has come of layers when it fails serves the next pull. Raises RegistryError, NoSuchImageError for a platform
    that there is not, InvalidReferenceError, UsageError, StoreError.
    """
    reference = parse_reference(name)
    if all_tags and (reference.tag or reference.digest):
        raise RegistryError(f"{name} names one image, and --all-tags asks for all", hint="leave out the tag")
    own = host_platform()
    wanted = parse_platform(platform or own, host=own)
    puller = _Puller(engine, reference, wanted, tell, patience or Patience())
    return puller.pull_all() if all_tags else [puller.pull(reference.tagged())]


class _Puller:
    """Pulls from one repository."""

    def __init__(
        self,
        engine: EngineBase,
        reference: Reference,
        platform: Platform,
        tell: Callable[[Event], None],
        patience: Patience,
    ) -> None:
        self._engine = engine
        self._reference = reference
        self._platform = platform
        self._tell = tell
        self._patience = patience
        self._root = engine.ready()
        self._images = Images(self._root)
        self._rootfs = open_rootfs(engine)
        self._credentials = CredentialFiles(os.environ)
        self._downloads = Downloads(self._root, patience)
        self._downloads.sweep()
        self._wire = WireForms(self._root)

    def pull_all(self) -> list[Pulled]:
        with ExitStack() as stack:
            repository = self._open(stack, mirrors=False)[0]
            tags = repository.tags()
            if not tags:
                raise RegistryError(f"{repository.name} has no tags")
            return [self._pull_from(repository, self._reference._replace(tag=tag)) for tag in tags]

    def pull(self, reference: Reference) -> Pulled:
        """From the first server that has it: a mirror that fails is passed over."""
        with ExitStack() as stack:
            *mirrors, last = self._open(stack)
            for repository in mirrors:
                try:
                    return self._pull_from(repository, reference)
                except _MIRRORS as error:
                    self._engine.log.debug(f"registry: the mirror {repository.session.place.host}: {error.message}")
            return self._pull_from(last, reference)

    def _open(self, stack: ExitStack, *, mirrors: bool = True) -> list[Repository]:
        settings = registry_settings(self._engine)
        found = places(self._reference.domain, settings)
        return [
            Repository(
                stack.enter_context(
                    Session(
                        place,
                        self._reference.path,
                        actions="pull",
                        # A mirror is another registry than the one that the credentials are for.
                        credentials=partial(
                            self._credentials.find, place.host if place.mirror else self._reference.domain
                        ),
                        certificates=settings.certificates,
                        patience=self._patience._replace(tries=_MIRROR_TRIES) if place.mirror else self._patience,
                        debug=self._engine.log.debug,
                    )
                ),
                self._reference.familiar_repository,
                self._reference.path,
            )
            for place in found
            if mirrors or not place.mirror
        ]

    def _pull_from(self, repository: Repository, reference: Reference) -> Pulled:
        asked = reference.digest or reference.tag or DEFAULT_TAG
        image = resolve(repository, asked, self._platform)
        if reference.digest and image.digest != reference.digest:
            raise RegistryError(f"cannot pull {repository.name}: it is not what the digest says")
        # What a digest asks for need not be what the tag beside it means (docker leaves the tag alone, too).
        name = "" if reference.digest else reference.full()
        with Staging(self._root, "pull") as staging:
            diff_ids = image.config.diff_ids
            staging.lean_on({*diff_ids, *(layer.digest for layer in image.manifest.layers)})
            fetched = _Layers(self, repository, image, staging).fetch()
            repo_digest = f"{reference.repository}@{image.digest}"
            stored, fresh = self._images.add_pulled(
                image.served.data,
                image.served.descriptor,
                image.config_data,
                [*diff_ids, *(layer.digest for layer in image.manifest.layers)],
                names=[name] if name else [],
                repo_digests=[repo_digest],
            )
            for layer, diff_id in zip(image.manifest.layers, diff_ids, strict=True):
                # A push to another repository of the registry need not send them.
                form = WireForm(layer.media_type, layer.digest, layer.size, "")
                self._wire.note(diff_id, form, reference.repository)
        return Pulled(stored, reference.full(), image.digest, fresh, fetched)

    @property
    def tools(self) -> tuple[Images, Rootfs, Downloads, Callable[[Event], None]]:
        return self._images, self._rootfs, self._downloads, self._tell


class _Layers:
    """The layers of one image on their way: several at once, in threads, which end before anything else is done."""

    def __init__(self, puller: _Puller, repository: Repository, image: Resolved, staging: Staging) -> None:
        self._images, self._rootfs, self._downloads, tell = puller.tools
        self._repository = repository
        self._image = image
        self._staging = staging
        self._lock = threading.Lock()
        self._stopped = False
        self._tell_one = tell
        self._running: set[Download] = set()
        self._pairs: set[tuple[str, str]] | None = None

    def fetch(self) -> int:
        """Have every layer, plain and as the manifest names it; how many bytes came. Raises the first error."""
        pairs = dict(zip(self._image.manifest.layers, self._image.config.diff_ids, strict=True))
        for layer in pairs:
            self._tell(layer, "Pulling fs layer")
        return sum(side_by_side([partial(self._fetch, layer, diff_id) for layer, diff_id in pairs.items()], self._stop))

    def _stop(self) -> None:
        """Have every thread end soon, also one that waits for bytes."""
        self._stopped = True
        with self._lock:
            for download in self._running:
                download.abort()

    def _fetch(self, layer: Descriptor, diff_id: str) -> int:
        if self._is_there(layer, diff_id):
            return 0
        told: list[str] = []
        with self._downloads.claim(layer, lambda: self._wait(layer, told)):
            if self._is_there(layer, diff_id):
                return 0
            fetched, again = self._download(layer, diff_id, may_fail=True)
            if again:
                fetched += self._download(layer, diff_id)[0]
        self._tell(layer, "Pull complete")
        return fetched

    def _is_there(self, layer: Descriptor, diff_id: str) -> bool:
        blobs = self._rootfs.blobs
        if not blobs.has(layer.digest) or not blobs.has(diff_id):
            return False
        if layer.digest != diff_id and (layer.digest, diff_id) not in self._known_pairs():
            # Both are here, and nobody has seen yet that they are the same layer.
            with self._named(), blobs.open(layer.digest) as file:
                self._check_pair(file, diff_id)
        self._tell(layer, "Already exists")
        return True

    def _known_pairs(self) -> set[tuple[str, str]]:
        """The layers' digests and diff IDs of which images that are here have shown that they belong together."""
        with self._lock:
            if self._pairs is None:
                self._pairs = {
                    (layer.digest, diff_id)
                    for image in self._images.list()
                    for layer, diff_id in zip(image.manifest.layers, image.config.diff_ids, strict=False)
                }
            return self._pairs

    def _download(self, layer: Descriptor, diff_id: str, *, may_fail: bool = False) -> tuple[int, bool]:
        """Have a layer that is claimed: how many bytes came, and whether to try again at once: ``may_fail`` says that
        what lay here of an earlier try may be what is damaged."""
        with self._downloads.open(self._repository, layer, lambda done: self._progress(layer, done)) as download:
            with self._lock:
                self._running.add(download)
            try:
                self._store(download, diff_id)
                if layer.media_type in PLAIN_LAYERS:
                    download.discard()
                else:
                    self._rootfs.blobs.adopt(download.path, layer.digest)
            except DamagedError:
                if not may_fail or not download.patched:
                    raise
                return download.fetched, True
            finally:
                with self._lock:
                    self._running.discard(download)
            return download.fetched, False

    def _store(self, download: Download, diff_id: str) -> None:
        """Read a layer to its end, and have it plain among the blobs."""
        with self._named():
            try:
                if self._rootfs.blobs.has(diff_id):
                    self._check_pair(download, diff_id)
                else:
                    self._rootfs.import_layer(download, self._staging, diff_id=diff_id)
            except (ArchiveError, CorruptObjectError):
                # What came wrong, or lay here wrong, says so here; else the image is to blame.
                download.drain()
                download.discard()
                raise
        download.drain()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say of a layer that is wrong whose it is."""
        try:
            yield
        except (ArchiveError, CorruptObjectError) as error:
            raise type(error)(f"cannot pull {self._repository.name}: {error.message}", hint=error.hint) from error

    def _check_pair(self, stream: Reader, diff_id: str) -> None:
        """Raise CorruptObjectError where a layer's stream does not unpack to what the configuration says."""
        plain, found = Plain(stream), hashlib.sha256()
        while data := plain.read(_BLOCK):
            found.update(data)
        if f"sha256:{found.hexdigest()}" != diff_id:
            raise CorruptObjectError(
                f"a layer unpacks to sha256:{found.hexdigest()}, and the configuration says {diff_id}"
            )

    def _wait(self, layer: Descriptor, told: list[str]) -> None:
        if self._stopped:
            raise StoppedError
        if not told:
            told.append("Waiting")
            self._tell(layer, "Waiting")

    def _progress(self, layer: Descriptor, done: int) -> None:
        if self._stopped:
            raise StoppedError
        self._tell(layer, "Downloading", done)

    def _tell(self, layer: Descriptor, state: str, done: int = 0) -> None:
        with self._lock:
            self._tell_one(event_of(layer.digest, state, done, layer.size))


def registry_settings(engine: EngineBase) -> Settings:
    """What the configuration says of registries."""
    config = engine.config
    return Settings(
        default=config.default_registry,
        mirrors=config.registry_mirrors,
        insecure=tuple(config.insecure_registries),
        certificates=tuple(config.registry_certificates),
    )
