"""``build --verify``: before a finished build is stored it is built once more, and has to come out the same.

What must not matter is another the second time: the clock by a second or more, the data root and with it every path,
the form of the layers and with it the order in which directories list their names, the number of jobs, the host's name,
the umask and the time zone. Nothing comes from a cache, and cache mounts begin empty.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock.build.builder import build as build_image
from minidock.build.export import Finished, stepping
from minidock.build.progress import QuietProgress
from minidock.drivers.form import TREE
from minidock.drivers.registry import open_driver
from minidock.drivers.tarballs import Tars
from minidock.engine.build_steps import StepRunner
from minidock.engine.differences import TIME, Difference, find_difference
from minidock.errors import MinidockError, NotReproducibleError, UsageError
from minidock.kernel import namespaces, process
from minidock.model.digest import digest_of
from minidock.model.oci import Descriptor, ImageConfig, Manifest
from minidock.rootfs import Rootfs
from minidock.store.blobs import Blobs
from minidock.store.files import remove_tree
from minidock.store.images import Image, Images
from minidock.store.layout import DataRoot

if TYPE_CHECKING:
    from collections.abc import Callable

    from minidock.build.request import BuildRequest
    from minidock.engine.base import EngineBase

_TITLE = "[internal] build again and compare"
_HOST_NAME = "another-host"
_UMASK = 0o077
# Fourteen hours ahead: another day, most of the time.
_TIME_ZONE = "EAST-14"
_TIME_HINT = "give --build-arg SOURCE_DATE_EPOCH=SECONDS: RUN has it in its environment, and later times are cut to it"
_CACHE_HINT = "the cache has the files with the times that they had before: build with --no-cache"
_HINT = "look for times, random numbers, and names in the order of a directory in what the step writes"


class Verifier:
    """Builds ``request`` once more when it is finished, and compares. ``export`` takes what is the same both times;
    ``pull`` is as the builder has it.

    Raises UsageError for a request that cannot be built twice; see also ``__call__``.
    """

    __slots__ = ("_engine", "_export", "_images", "_pull", "_request")

    def __init__(
        self,
        engine: EngineBase,
        request: BuildRequest,
        *,
        images: Images,
        pull: Callable[[str], Image],
        export: Callable[[Finished], Image],
    ) -> None:
        if request.context == "-":
            raise UsageError(
                "--verify reads the context twice, and standard input is there only once", hint="give a directory"
            )
        self._engine = engine
        self._request = request
        self._images = images
        self._pull = pull
        self._export = export

    def __call__(self, finished: Finished) -> Image:
        """Raises NotReproducibleError, which names the first difference, before anything has a name; BuildError where
        the second build fails, and whatever ``export`` raises."""
        with stepping(finished.progress, _TITLE) as step:
            path = f"{finished.staging.path}/again"
            try:
                second, blobs = self._build_again(path, finished)
                difference = find_difference(finished, second, (self._images.blobs, blobs))
            finally:
                remove_tree(path)
            if difference is not None:
                raise NotReproducibleError(_sentence(difference), hint=_hint(difference))
            number, digest = len(finished.config.diff_ids), digest_of(finished.config.encode())
            step.output(f"verified: {number} layers, digest {digest}\n".encode())
        return self._export(finished)

    def _build_again(self, path: str, finished: Finished) -> tuple[Finished, Blobs]:
        root = DataRoot(path, run=f"{path}/run")
        second = _Second(self._engine, self._request, self._images, self._pull, root)
        # Layers tell times to the second.
        time.sleep(1 - time.time() % 1)
        with process.spawn(second.work, flags=namespaces.CLONE_NEWUTS) as child:
            try:
                child.wait()
            except BaseException:
                with suppress(ProcessLookupError):
                    process.pidfd_send_signal(child.pidfd, signal.SIGINT)
                child.wait()
                raise
        return finished._replace(config=second.result()), Blobs(root)


class _Second(NamedTuple):
    """The second build, in a process of its own, whose data root is ``root``."""

    engine: EngineBase
    request: BuildRequest
    images: Images
    pull: Callable[[str], Image]
    root: DataRoot

    def work(self) -> None:
        """In the new process: build, and leave the result in the data root."""
        process.set_pdeathsig(signal.SIGKILL)
        os.umask(_UMASK)
        os.environ["TZ"] = _TIME_ZONE
        time.tzset()
        socket.sethostname(_HOST_NAME)
        try:
            value: dict[str, Any] = {"config": self._build().raw}
        except MinidockError as error:
            value = {"message": error.message, "hint": error.hint}
        except Exception as error:
            value = {"message": f"unexpected {type(error).__name__}: {error}", "hint": ""}
        with open(f"{self.root.path}.json", "x", encoding="ascii") as file:
            json.dump(value, file)

    def result(self) -> ImageConfig:
        """What the process has left. Raises MinidockError if the second build failed or was killed."""
        try:
            with open(f"{self.root.path}.json", encoding="ascii") as file:
                value = json.load(file)
        except FileNotFoundError:
            raise MinidockError("the process that built everything again was killed from outside") from None
        if "config" not in value:
            what = f"the build succeeded once, and failed when it was done again: {value['message']}"
            raise MinidockError(what, hint=value["hint"])
        return ImageConfig(value["config"])

    def _build(self) -> ImageConfig:
        engine, root = self.engine, self.root
        root.ensure()
        tars = Tars(root.blobs, root.run, TREE, engine.config.loop_devices)
        rootfs = Rootfs(root, open_driver(engine.driver, root.layers, root.tmp, tars=tars), Blobs(root), engine.log)
        found: list[Finished] = []

        def keep(finished: Finished) -> Image:
            found.append(finished)
            return Image("", "", (), 0, Manifest(Descriptor("", "", 0), ()), finished.config, 0)

        build_image(
            self.request._replace(
                tags=(),
                no_cache=True,
                cache_from=(),
                cache_to=(),
                keep_failed=False,
                jobs=1 if self.request.jobs > 1 else 2,
            ),
            root=root,
            images=_Borrowed(self.images.root, root),
            rootfs=rootfs,
            open_run=lambda: StepRunner(self.images.root, engine.log),
            pull=self.pull,
            progress=QuietProgress(lambda _: None),
            export=keep,
        )
        return found[0].config


class _Borrowed(Images):
    """The images of a data root, whose layers get a second name in another one as they are looked up."""

    __slots__ = ("_to",)

    def __init__(self, root: DataRoot, to: DataRoot) -> None:
        super().__init__(root)
        self._to = Blobs(to)

    def get(self, name_or_id: str) -> Image:
        """As ``Images.get``."""
        image = super().get(name_or_id)
        for digest in (*image.config.diff_ids, *(layer.digest for layer in image.manifest.layers)):
            with suppress(FileExistsError, FileNotFoundError):
                os.link(self.blobs.path(digest), self._to.path(digest))
        return image


def _sentence(found: Difference) -> str:
    begin = "the build is not reproducible: when it was done again,"
    if not found.step:
        return f"{begin} {found.path} of the configuration was {found.second} and not {found.first}"
    if found.field == "existence":
        return f"{begin} {found.path} was {found.second} and not {found.first}, after {found.step!r}"
    return f"{begin} {found.path} had the {found.field} {found.second} and not {found.first}, after {found.step!r}"


def _hint(found: Difference) -> str:
    if found.field != TIME:
        return _HINT
    return _CACHE_HINT if found.step.startswith(("COPY ", "ADD ")) else _TIME_HINT
