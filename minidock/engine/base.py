"""What every verb works on: one data root, its configuration and storage driver, and where messages go."""

from __future__ import annotations

from minidock.log import Log
from minidock.store import staging
from minidock.store.config import load_config
from minidock.store.layout import DataRoot


class EngineBase:
    """An engine without its verbs, which are functions of the other modules; ``Engine`` puts them together."""

    __slots__ = ("_ready", "config", "driver", "layers", "log", "may_fork", "root")

    def __init__(
        self,
        root: str | None = None,
        *,
        driver: str | None = None,
        layers: str | None = None,
        debug: bool = False,
        may_fork: bool = False,
    ) -> None:
        self.config = load_config()
        self.root = DataRoot(root or self.config.root)
        self.driver = driver or self.config.storage_driver
        self.layers = layers or self.config.layers
        self.log = Log(verbose=debug or self.config.debug)
        self.may_fork = may_fork
        self._ready = False

    def ready(self, *, sweep: bool = True) -> DataRoot:
        """The data root with all its folders made, and free of what killed commands left half-made; without ``sweep``
        that stays, for this engine's other verbs too.

        Raises HostError or StoreError where that cannot be.
        """
        if not self._ready:
            self.root.ensure()
            if sweep:
                self.sweep()
            self._ready = True
        return self.root

    def sweep(self) -> None:
        """Remove what processes that are dead now had half-made."""
        if staging.sweep(self.root):
            from minidock.runtime.step import remove_stale_cgroups

            # There may have been builds among them.
            remove_stale_cgroups()
