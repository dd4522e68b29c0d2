"""``build --plan``: what a build would do, with the data root left exactly as it is.

What has to be put somewhere, a context of elsewhere above all, goes below the data root's directory in ``/run``, which
is memory: it is gone when the forecast is made, what a killed one left with the next, and all of it with a reboot.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from minidock.build.forecast import forecast as forecast_build
from minidock.drivers.registry import is_tried, open_driver
from minidock.engine.base import EngineBase
from minidock.engine.building import make_progress, make_request, without_outputs
from minidock.engine.launcher import call
from minidock.engine.parts import open_rootfs, tars_of
from minidock.errors import NoSuchImageError
from minidock.model.forecast import StepForecast
from minidock.rootfs import Rootfs
from minidock.store.blobs import Blobs
from minidock.store.images import Images
from minidock.store.layout import DataRoot
from minidock.store.staging import Staging, sweep

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# What has no meaning for a build that is not done.
_WITHOUT_EFFECT = ("before_shell", "on_error", "verify")


def plan(
    engine: EngineBase, context: str, options: Mapping[str, Any], *, progress: int | None
) -> tuple[StepForecast, ...]:
    """The forecast of a build with these options. Warnings are told on the descriptor ``progress``."""
    if not engine.may_fork:
        plain = {**options, "progress": None if progress is None else 2}
        for name in ("labels", "build_args"):
            if hasattr(plain.get(name), "items"):
                plain[name] = dict(plain[name])
        steps = call(engine, "plan", [context], plain, stdio=(0 if context == "-" else None, None, progress))
        return tuple(StepForecast(*step)._replace(why=tuple(step[-1])) for step in steps)
    wanted = {name: value for name, value in options.items() if name not in _WITHOUT_EFFECT}
    request = make_request(context, **without_outputs(wanted))
    told = make_progress(progress, quiet=True)
    if request.pull:
        told.warning("--plan asks no registry: it goes by the images that are here")
        request = request._replace(pull=False)
    with _scratch(engine.root) as scratch:
        if not os.path.exists(f"{engine.root.path}/version"):
            # Where there is no data root yet, none is made.
            engine = _engine_at(scratch, engine)
        root = engine.ready(sweep=False)
        return forecast_build(
            request,
            root=root,
            scratch=scratch,
            images=Images(root),
            rootfs=_open_rootfs(engine, scratch),
            pull=_refuse,
            progress=told,
        )


def _refuse(name: str) -> NoReturn:
    raise NoSuchImageError(
        f"there is no image {name!r} on this host, and a plan fetches none",
        hint="build without --plan, or see `minidock images` for what is here",
    )


@contextmanager
def _scratch(root: DataRoot) -> Iterator[DataRoot]:
    """A data root that is gone when the context ends."""
    plans = DataRoot(f"{root.run}/plans", run=f"{root.run}/plans/run")
    os.makedirs(plans.tmp, 0o700, exist_ok=True)
    sweep(plans)
    with Staging(plans, "plan") as staging:
        scratch = DataRoot(f"{staging.path}/root", run=f"{staging.path}/run")
        for path in (scratch.tmp, os.path.dirname(scratch.collection_lock), scratch.cache, scratch.layers):
            os.makedirs(path, 0o700)
        yield scratch


def _engine_at(root: DataRoot, engine: EngineBase) -> EngineBase:
    found = EngineBase(root.path, driver=engine.driver, layers=engine.layers, debug=engine.log.verbose, may_fork=True)
    found.root = root
    return found


def _open_rootfs(engine: EngineBase, scratch: DataRoot) -> Rootfs:
    """The engine's root file systems; as long as its driver was not tried out in its data root, those of another, which
    has no layer ready."""
    root = engine.root
    if is_tried(engine.driver, root.layers, root.tmp, tars=tars_of(engine)):
        return open_rootfs(engine)
    return Rootfs(root, open_driver("vfs", scratch.layers, scratch.tmp), Blobs(root), engine.log)
