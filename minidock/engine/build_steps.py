"""What runs a build's RUN steps: the runtime with the default network, bound to one data root."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from minidock.store.staging import Staging

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from minidock.engine.sandbox import Sandbox
    from minidock.log import Log
    from minidock.model.run_mounts import Agent
    from minidock.model.steps import RootMount
    from minidock.runtime.context import Stdio
    from minidock.runtime.launch import Started
    from minidock.runtime.step import Keeper, StepResult
    from minidock.store.layout import DataRoot


class StepRunner:
    """Runs commands in root file systems, one after the other, in the default sandbox.

    A context. A build whose steps are all cached costs it nothing: what runs steps is loaded and started for the first.
    Its staging directory holds the generated files and the mount point, and its lock is what the steps' network lease
    hangs on, so that a killed build's address is free at once.
    """

    __slots__ = ("_keeper", "_log", "_open", "_root")

    def __init__(self, root: DataRoot, log: Log) -> None:
        self._root = root
        self._log = log
        self._open = ExitStack()
        self._keeper: Keeper | None = None

    def __enter__(self) -> StepRunner:
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def start(self) -> None:
        """Start what runs steps, if it does not run yet: it then has nothing that is opened from now on."""
        if self._keeper is None:
            self._keeper = self._start()

    def __call__(
        self,
        *,
        root: RootMount,
        args: tuple[str, ...],
        env: tuple[str, ...],
        workdir: str,
        user: str,
        network: str,
        ulimits: tuple[str, ...],
        on_output: Callable[[bytes], None],
        meanwhile: Callable[[], None],
        mounts: Sequence[dict[str, Any]] = (),
        agents: Sequence[Agent] = (),
        insecure: bool = False,
        hosts: Sequence[tuple[str, str]] = (),
        shm_size: int = 0,
        terminal: bool = False,
        devices: Mapping[str, Any] | None = None,
    ) -> StepResult:
        """Run one command to its end; see ``runtime.step.Keeper.run`` for what it raises, NetworkError besides."""
        self.start()
        assert self._keeper is not None
        request = {
            "root": root._asdict(),
            "args": args,
            "env": env,
            "workdir": workdir,
            "user": user,
            "network": network,
            "ulimits": ulimits,
            "mounts": mounts,
            "agents": [agent._asdict() for agent in agents],
            "insecure": insecure,
            "hosts": hosts,
            "shm_size": shm_size,
            "terminal": terminal,
            "devices": devices or {},
        }
        return self._keeper.run(request, on_output=on_output, meanwhile=meanwhile)

    def _start(self) -> Keeper:
        from minidock.runtime import step

        step.remove_stale_cgroups()
        staging = self._open.enter_context(Staging(self._root, "steps"))
        os.mkdir(f"{staging.path}/rootfs", 0o755)
        cgroup = step.cgroup_name()

        def sandbox() -> Sandbox:
            # In the keeper: the builder itself has no use for what this loads.
            from minidock.engine.sandbox import Sandbox

            return Sandbox(self._root, staging.path, cgroup=cgroup, log=self._log)

        def attended(begin: Callable[[Stdio], Started]) -> Started:
            from minidock.engine.pump import attend

            return attend(begin, stdin=0, stdout=2)

        return self._open.enter_context(step.Keeper(sandbox, self._log, attend=attended))
