"""The stores and drivers that verbs work on, made from an engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.containers.parts import Parts
from minidock.store.containers import ContainerStore
from minidock.volumes.volumes import Volumes

if TYPE_CHECKING:
    from minidock.drivers.interface import Driver
    from minidock.drivers.tarballs import Tars
    from minidock.engine.base import EngineBase
    from minidock.rootfs import Rootfs


def make_parts(engine: EngineBase, *, driver: str | None = None) -> Parts:
    """The stores of the engine's data root; with the name of a ``driver`` its root file systems too."""
    root = engine.ready()
    rootfs = None if driver is None else open_rootfs(engine, driver)
    return Parts(root, ContainerStore(root), Volumes(root), rootfs, engine.log)


def open_rootfs(engine: EngineBase, driver: str = "") -> Rootfs:
    """The root file systems of a storage driver, of the engine's own where none is named. Raises DriverError."""
    from minidock.rootfs import Rootfs
    from minidock.store.blobs import Blobs

    root = engine.ready()
    return Rootfs(root, make_driver(engine, driver), Blobs(root), engine.log)


def make_driver(engine: EngineBase, driver: str = "") -> Driver:
    """A storage driver by name, the engine's own where none is named. Raises DriverError."""
    from minidock.drivers.registry import open_driver

    root = engine.ready()
    return open_driver(driver or engine.driver, root.layers, root.tmp, tars=tars_of(engine))


def tars_of(engine: EngineBase) -> Tars:
    """Where the engine's layer tarballs lie, and which form layers are to have."""
    from minidock.drivers.tarballs import Tars

    root = engine.root
    return Tars(root.blobs, root.run, engine.layers, engine.config.loop_devices)
