"""Images that a build stands on or copies from, each looked up once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.errors import MinidockError, NoSuchImageError
from minidock.model.digest import is_digest
from minidock.model.reference import is_derived, parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidock.build.progress import Progress
    from minidock.store.images import Image, Images
    from minidock.store.staging import Staging


class Bases:
    """The images of one build by the text that names them. ``always_pull`` asks for each anew; one that is nowhere else
    but on this host is then taken from here, and the user is told."""

    __slots__ = ("_always_pull", "_found", "_images", "_progress", "_pull", "_staging")

    def __init__(
        self,
        images: Images,
        pull: Callable[[str], Image],
        *,
        progress: Progress,
        staging: Staging,
        always_pull: bool,
    ) -> None:
        self._images = images
        self._pull = pull
        self._progress = progress
        self._staging = staging
        self._always_pull = always_pull
        self._found: dict[str, Image] = {}

    def get(self, name: str) -> Image:
        """The image that ``name`` (a reference, ID or digest) means; pulled if the store has none.

        What it needs stays in the store until the build ends. Raises NoSuchImageError and whatever the pull raises.
        """
        if name not in self._found:
            step = self._progress.step(f"[internal] load metadata for {_full(name)}")
            try:
                image = self._load(name)
            except MinidockError as error:
                step.error(error.message)
                raise
            self._staging.lean_on([*(layer.digest for layer in image.manifest.layers), *image.config.diff_ids])
            self._found[name] = image
            step.done()
        return self._found[name]

    @property
    def found(self) -> tuple[tuple[str, Image], ...]:
        """The images that were asked for, by their names."""
        return tuple(self._found.items())

    def _load(self, name: str) -> Image:
        if is_derived(name):
            return self._images.get(name)
        if self._always_pull and not is_digest(name):
            try:
                return self._pull(name)
            except NoSuchImageError as missing:
                return self._own(name, missing)
        try:
            return self._images.get(name)
        except NoSuchImageError:
            return self._pull(name)

    def _own(self, name: str, missing: NoSuchImageError) -> Image:
        """The image of this host, where no other could be had. Raises ``missing`` where there is none here, either."""
        try:
            image = self._images.get(name)
        except NoSuchImageError:
            raise missing from None
        self._progress.warning(f"--pull: {name} cannot be pulled, the one on this host is used")
        return image


def _full(name: str) -> str:
    try:
        return parse_reference(name).tagged().full()
    except MinidockError:
        return name
