"""The named contexts of a build (``--build-context``): each is opened when it is first needed.

A name wins over an image of that name and over a stage of that name, which is then not built (docker buildx build,
"--build-context"). ``Dispatcher`` turns a name into a ``Source``; whoever has one opens it as ``StepWork.open_source``
does, whatever it is.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from minidock.build.context import Context
from minidock.build.opening import ended, open_context, open_git, open_http
from minidock.build.sources.fetcher import Fetcher
from minidock.build.tree import SourceTree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minidock.build.bases import Bases
    from minidock.build.progress import Progress
    from minidock.build.request import BuildRequest
    from minidock.build.sources.named import Where
    from minidock.dockerfile.parser import Dockerfile
    from minidock.rootfs import Rootfs
    from minidock.store.images import Image, Images
    from minidock.store.staging import Staging


@contextmanager
def open_contexts(
    request: BuildRequest, named: dict[str, Where], *, rootfs: Rootfs, staging: Staging, progress: Progress
) -> Iterator[Contexts]:
    """Open the context of ``request``, and be ready to open the ``named`` ones. Raises as ``open_context``."""
    fetcher = Fetcher(staging)
    with (
        open_context(request, fetcher=fetcher, rootfs=rootfs, progress=progress) as main,
        Contexts(main, named, fetcher=fetcher, rootfs=rootfs, staging=staging, progress=progress) as contexts,
    ):
        yield contexts


class Contexts:
    """The contexts of one build: ``main``, which it borrows, and those that were given a name. A context manager."""

    __slots__ = ("_images", "_open", "_progress", "_rootfs", "_staging", "_where", "fetcher", "main")

    def __init__(
        self,
        main: Context,
        named: dict[str, Where],
        *,
        fetcher: Fetcher,
        rootfs: Rootfs,
        staging: Staging,
        progress: Progress,
    ) -> None:
        self.main = main
        self.fetcher = fetcher
        self._where = named
        self._rootfs = rootfs
        self._staging = staging
        self._progress = progress
        self._open: dict[str, Context] = {}
        self._images: dict[tuple[str, str], Image] = {}

    def __enter__(self) -> Contexts:
        return self

    def __exit__(self, *_: object) -> None:
        for context in self._open.values():
            context.__exit__()
        self._open.clear()

    def find(self, name: str) -> str:
        """The name of the context that FROM or --from means by ``name``; empty if it means none."""
        if not self._where:
            return ""
        from minidock.build.sources.named import context_name

        key = context_name(name)
        return key if key in self._where else ""

    def is_files(self, name: str) -> bool:
        """Whether a context is files, and no image."""
        from minidock.build.sources.named import DIRECTORY, URL

        return self._where[name].kind in (DIRECTORY, URL)

    def image(self, name: str, bases: Bases | Images, *, platform: str) -> Image | None:
        """The image that a context is, None where it is files. What it needs stays in the store until the build ends.
        ``platform`` chooses, where an OCI layout has it for several.

        Raises MinidockError.
        """
        from minidock.build.sources.named import IMAGE, LAYOUT

        where = self._where[name]
        if where.kind == IMAGE:
            return bases.get(where.value)
        if where.kind != LAYOUT:
            return None
        key = name, platform
        if key not in self._images:
            from minidock.build.sources.layout import load_image, parse_place

            with ended(self._progress.step(f"[context {name}] {where.text}")):
                self._images[key] = load_image(
                    parse_place(where.value), platform=platform, rootfs=self._rootfs, staging=self._staging
                )
        return self._images[key]

    def load(self, name: str) -> None:
        """Have the files of a context here. Raises MinidockError, UsageError."""
        if name in self._open:
            return
        from minidock.build.sources.named import DIRECTORY
        from minidock.build.sources.remote import GitSource, parse_remote, redacted

        where = self._where[name]
        if where.kind == DIRECTORY:
            self._open[name] = Context(where.value)
            return
        source = parse_remote(where.value)
        assert source is not None
        step = self._progress.step(f"[context {name}] {redacted(where.text)}")
        with ended(step):
            if isinstance(source, GitSource):
                self._open[name] = open_git(source, fetcher=self.fetcher, step=step)
            else:
                self._open[name] = open_http(source, fetcher=self.fetcher, rootfs=self._rootfs, step=step)

    def tree(self, name: str) -> SourceTree:
        """The files of a context, the build's own for the empty name. It stays open until the build ends.

        Raises as ``load``.
        """
        if not name:
            return SourceTree(self.main.fd, name="the build context", keep_owner=False, rules=self.main.rules)
        self.load(name)
        return SourceTree(self._open[name].fd, name=f"the context {name}", keep_owner=False)


def without_replaced(dockerfile: Dockerfile, contexts: Contexts) -> Dockerfile:
    """The file as it is built: a stage that bears the name of a named context is that context, and whoever names it
    means the context."""
    stages = tuple(
        stage._replace(origin=stage.origin._replace(base=stage.name, name="", platform=""), instructions=())
        if stage.name and contexts.find(stage.name)
        else stage
        for stage in dockerfile.stages
    )
    return dockerfile._replace(stages=stages)
