"""A finished build on its way out: what whoever exports it is handed, and the way into the store."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from minidock.build.failures import message_of
from minidock.errors import MinidockError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from minidock.build.progress import Progress, StepProgress
    from minidock.build.state import StageState
    from minidock.dockerfile.excerpt import Source
    from minidock.model.oci import Descriptor, ImageConfig
    from minidock.store.images import Image, Images
    from minidock.store.staging import Staging


class Inputs(NamedTuple):
    """What a build has read: its Dockerfile, and the images that it stands on or copies from, by the text that names
    each."""

    dockerfile: Source
    images: tuple[tuple[str, Image], ...] = ()


class Finished(NamedTuple):
    """The image that a build has come to, which no name means yet: ``layers`` as a manifest has them, lowest first,
    ``names`` the full references that it is to have. ``staging`` keeps the layers in the store meanwhile. The lowest
    ``inherited`` layers are those of the image that the target stands on; ``annotations`` are its manifest's."""

    config: ImageConfig
    layers: tuple[Descriptor, ...]
    names: tuple[str, ...]
    staging: Staging
    progress: Progress
    inherited: int = 0
    inputs: Inputs | None = None
    annotations: tuple[tuple[str, str], ...] = ()


def inherited_layers(states: Mapping[int, StageState], target: int) -> int:
    """How many layers come from the image that a stage, or the stages beneath it, stand on."""
    state = states[target]
    while state.base.stage >= 0:
        state = states[state.base.stage]
    return len(state.base.diff_ids)


def store_image(
    finished: Finished,
    images: Images,
    *,
    names: Sequence[str] = (),
    annotations: tuple[tuple[str, str], ...] = (),
) -> Image:
    """Put the image into the store under its names and ``names``. Raises StoreError."""
    every = list(dict.fromkeys([*finished.names, *names]))
    with stepping(finished.progress, "exporting to image") as step:
        annotations = (*finished.annotations, *annotations)
        image = images.commit(finished.config, finished.layers, names=every, annotations=annotations)
        lines = [f"writing image {image.id}", *(f"naming to {name}" for name in every)]
        step.output("".join(f"{line}\n" for line in lines).encode())
    return image


@contextmanager
def stepping(progress: Progress, title: str) -> Iterator[StepProgress]:
    """A step that ends with the context: done, failed, or canceled."""
    step = progress.step(title)
    try:
        yield step
    except (MinidockError, OSError) as error:
        step.error(message_of(error))
        raise
    except BaseException:
        step.canceled()
        raise
    step.done()
