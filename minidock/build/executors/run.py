"""RUN: a command in the image's root file system, in a container's sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.build.arguments import host_platform
from minidock.build.cache import Key, make_key
from minidock.build.failures import advice
from minidock.dockerfile.instructions import SHELL_FORM
from minidock.errors import ContainerStartError, MinidockError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from minidock.build.mounting import Made, Mounting
    from minidock.build.request import RunSettings
    from minidock.build.state import StageState
    from minidock.build.work import StepWork
    from minidock.dockerfile.instructions import Run

_CACHE_NAMESPACE = "BUILDKIT_CACHE_MOUNT_NS"
# Where a heredoc that is a program lies, as in BuildKit.
_SCRIPTS = "/dev/pipes"


def refusal(instruction: Run) -> str:
    """The flag that is not executed, or empty."""
    return f"--device={instruction.devices[0]}" if instruction.devices else ""


def apply(instruction: Run, stage: StageState) -> None:
    """Add the step: SHELL and the text, or the vector as it is. Raises MinidockError for what was not allowed, and for
    mounts that make no sense."""
    args = instruction.args
    if instruction.form == SHELL_FORM:
        script = instruction.script
        args = (*stage.shell, f"{_SCRIPTS}/{script.name}" if script else instruction.shell_text)
    _check_allowed(instruction, stage.settings)
    network = instruction.network if instruction.network not in ("", "default") else stage.network
    step = RunStep(
        title=instruction.location.text,
        args=args,
        env=dict(stage.env),
        proxies=stage.arguments.proxies(stage.env),
        workdir=stage.workdir,
        user=stage.user,
        network=network,
        ulimits=stage.ulimits,
        settings=stage.settings,
        mounting=_mounting(instruction, stage),
        insecure=instruction.security == "insecure",
    )
    declared = [f"{name}={value}" for name, value in stage.declared.items()]
    words = [f"|{len(declared)}", *declared, *args] if declared else [*args]
    stage.add_line(f"RUN {' '.join(words)} # buildkit", instruction.location, step)


def _check_allowed(instruction: Run, settings: RunSettings) -> None:
    asked = (("network.host", "network", instruction.network), ("security.insecure", "security", instruction.security))
    for entitlement, flag, value in asked:
        if value == entitlement.partition(".")[2] and entitlement not in settings.allowed:
            raise MinidockError(
                f"{entitlement} is not allowed: RUN --{flag}={value} asks for it",
                hint=f"if you trust this Dockerfile, build with --allow {entitlement}",
            )


def _mounting(instruction: Run, stage: StageState) -> Mounting | None:
    script = instruction.script
    if not (instruction.mounts or stage.settings.volumes or script):
        return None
    from minidock.build.mounting import Mounting
    from minidock.dockerfile.run_mounts import read_mount

    return Mounting(
        [read_mount(text) for text in instruction.mounts],
        workdir=stage.workdir,
        settings=stage.settings,
        find_source=stage.find_source,
        namespace=stage.arguments.given.get(_CACHE_NAMESPACE, ""),
        script=(f"{_SCRIPTS}/{script.name}", script.content.encode()) if script else None,
    )


class RunStep:
    """Runs the command. Proxy variables reach it but are no part of the key."""

    __slots__ = (
        "args",
        "env",
        "insecure",
        "mounting",
        "network",
        "proxies",
        "settings",
        "title",
        "ulimits",
        "user",
        "workdir",
    )

    def __init__(
        self,
        *,
        title: str,
        args: tuple[str, ...],
        env: dict[str, str],
        proxies: dict[str, str],
        workdir: str,
        user: str,
        network: str,
        settings: RunSettings,
        ulimits: tuple[str, ...] = (),
        mounting: Mounting | None = None,
        insecure: bool = False,
    ) -> None:
        self.title = title
        self.args = args
        self.env = env
        self.proxies = proxies
        self.workdir = workdir
        self.user = user
        self.network = network
        self.ulimits = ulimits
        self.settings = settings
        self.mounting = mounting
        self.insecure = insecure

    def keys(self, work: StepWork) -> Iterator[Key]:
        yield make_key(
            work.below,
            instruction="RUN",
            platform=host_platform(),
            args=list(self.args),
            env=sorted(f"{name}={value}" for name, value in self.env.items()),
            workdir=self.workdir,
            user=self.user,
            network=self.network,
            **self._further_inputs(work),
        )

    def _further_inputs(self, work: StepWork) -> dict[str, Any]:
        """What few steps have, so that the keys of the others do not change. Addresses of hosts are no part of it."""
        found: dict[str, Any] = {
            "ulimits": sorted(self.ulimits),
            "hosts": [name for name, _ in self.settings.hosts],
            "shm_size": self.settings.shm_size,
            "security": "insecure" if self.insecure else "",
            "mounts": self.mounting.inputs(work) if self.mounting is not None else [],
        }
        return {name: value for name, value in found.items() if value}

    def perform(self, work: StepWork) -> Collection[str]:
        """Raises MinidockError if the command cannot be started or ends with another status than 0."""
        if self.mounting is None:
            return self._run(work, None)
        with self.mounting.made(work) as made:
            return self._run(work, made)

    def _run(self, work: StepWork, made: Made | None) -> Collection[str]:
        shown = " ".join(self.args)
        env = {**self.env, **self.proxies}
        further: dict[str, Any] = {"hosts": self.settings.hosts, "shm_size": self.settings.shm_size}
        if made is not None:
            further |= {"mounts": made.mounts, "agents": made.agents}
            env |= made.env
        try:
            result = work.run(
                root=work.mounts(),
                args=self.args,
                env=tuple(f"{name}={value}" for name, value in env.items()),
                workdir=self.workdir,
                user=self.user,
                network=self.network,
                ulimits=self.ulimits,
                on_output=work.progress.output,
                meanwhile=work.meanwhile,
                insecure=self.insecure,
                **further,
            )
        except ContainerStartError as error:
            raise MinidockError(f'cannot run "{shown}": {error.message}', hint=error.hint) from error
        if result.status:
            raise MinidockError(
                f'process "{shown}" did not complete successfully: exit code: {result.status}',
                hint=advice(result.status),
            )
        return result.stubs
