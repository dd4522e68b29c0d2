"""RUN: a command in the image's root file system, in a container's sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.build.arguments import host_platform
from minidock.build.cache import Key, dated, make_key
from minidock.build.failures import advice
from minidock.dockerfile.instructions import SHELL_FORM
from minidock.errors import CommandFailedError, ContainerStartError, MinidockError
from minidock.model.build_flags import DEVICE
from minidock.model.dating import EPOCH_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from minidock.build.mounting import Made, Mounting
    from minidock.build.request import RunSettings
    from minidock.build.state import StageState
    from minidock.build.work import StepWork
    from minidock.dockerfile.instructions import Run
    from minidock.model.cdi import Wanted

_CACHE_NAMESPACE = "BUILDKIT_CACHE_MOUNT_NS"
# Where a heredoc that is a program lies, as in BuildKit.
_SCRIPTS = "/dev/pipes"
# How much of a command's output an error carries.
_TAIL = 4096


def apply(instruction: Run, stage: StageState) -> None:
    """Add the step: SHELL and the text, or the vector as it is. Raises MinidockError for what was not allowed, and for
    mounts that make no sense."""
    args = instruction.args
    if instruction.form == SHELL_FORM:
        script = instruction.script
        args = (*stage.shell, f"{_SCRIPTS}/{script.name}" if script else instruction.shell_text)
    _check_allowed(instruction, stage.settings)
    network = instruction.network if instruction.network not in ("", "default") else stage.network
    epoch = stage.arguments.epoch
    step = RunStep(
        title=instruction.location.text,
        args=args,
        env=dict(stage.env) if epoch is None else {EPOCH_VARIABLE: str(epoch), **stage.env},
        proxies=stage.arguments.proxies(stage.env),
        workdir=stage.workdir,
        user=stage.user,
        network=network,
        ulimits=stage.ulimits,
        settings=stage.settings,
        mounting=_mounting(instruction, stage),
        insecure=instruction.security == "insecure",
        devices=_devices(instruction, stage.settings),
        epoch=epoch,
        platform=stage.platform,
        shell=stage.shell[0],
        declared=[name for name, value in stage.declared.items() if stage.env.get(name) == value],
    )
    # As docker's builder has it: what the command sees, an ENV of the name included, and nothing as an empty value.
    declared = [f"{name}={stage.env.get(name, '')}" for name in stage.declared]
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


def _devices(instruction: Run, settings: RunSettings) -> tuple[Wanted, ...]:
    """The devices that are asked for, all of them allowed."""
    if not instruction.devices:
        return ()
    from minidock.model.cdi import parse_wanted

    found = tuple(map(parse_wanted, instruction.devices))
    for wish in found:
        if not {DEVICE, f"{DEVICE}={wish.text()}", f"{DEVICE}={wish.kind}=*"} & {*settings.allowed}:
            raise MinidockError(
                f"{DEVICE} is not allowed: RUN --device={wish.text()} asks for it",
                hint=f"if you trust this Dockerfile, build with --allow {DEVICE}={wish.text()}, or --allow {DEVICE}",
            )
    return found


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
    """Runs the command. Proxy variables reach it but are no part of the key. ``epoch`` is SOURCE_DATE_EPOCH.
    ``shell`` is the program that runs the stage's shell form, ``declared`` the names of variables that are arguments.
    """

    __slots__ = (
        "args",
        "declared",
        "devices",
        "env",
        "epoch",
        "insecure",
        "mounting",
        "network",
        "platform",
        "proxies",
        "settings",
        "shell",
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
        devices: tuple[Wanted, ...] = (),
        epoch: int | None = None,
        platform: str = "",
        declared: Sequence[str] = (),
        shell: str = "/bin/sh",
    ) -> None:
        self.shell = shell
        self.epoch = epoch
        self.platform = platform or host_platform()
        self.declared = list(declared)
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
        self.devices = devices

    def keys(self, work: StepWork) -> Iterator[Key]:
        key = make_key(
            work.below,
            instruction="RUN",
            platform=self.platform,
            args=list(self.args),
            env=sorted(f"{name}={value}" for name, value in self.env.items()),
            workdir=self.workdir,
            user=self.user,
            network=self.network,
            **self._further_inputs(work),
        )
        copied = self.mounting.copied(work) if self.mounting is not None else ()
        yield key._replace(about={"arguments": self.declared}, copied=copied)

    def _further_inputs(self, work: StepWork) -> dict[str, Any]:
        """What few steps have, so that the keys of the others do not change. Addresses of hosts are no part of it."""
        found: dict[str, Any] = {
            "ulimits": sorted(self.ulimits),
            "hosts": [name for name, _ in self.settings.hosts],
            "shm_size": self.settings.shm_size,
            "security": "insecure" if self.insecure else "",
            "devices": [[wish.text(), wish.required] for wish in self.devices],
            "mounts": self.mounting.inputs(work) if self.mounting is not None else [],
        }
        return {name: value for name, value in found.items() if value} | dated(self.epoch)

    def perform(self, work: StepWork) -> Collection[str]:
        """Raises MinidockError if the command cannot be started or ends with another status than 0."""
        if self.platform != host_platform():
            from minidock.runtime.emulation import check_runs

            check_runs(self.platform)
        work.cut_times(self.epoch)
        if self.mounting is None:
            return self._run(work, None)
        with self.mounting.made(work) as made:
            return self._run(work, made)

    def open_shell(self, work: StepWork) -> Collection[str]:
        """Run the shell on the terminal, with all that the command had; the mount points that were made for that.
        Raises MinidockError if it cannot be started."""
        if self.mounting is None:
            return self._on_terminal(work, None)
        with self.mounting.made(work) as made:
            return self._on_terminal(work, made)

    def _on_terminal(self, work: StepWork, made: Made | None) -> Collection[str]:
        given = self._surroundings(work, made)
        return work.run(args=(self.shell,), on_output=work.progress.output, terminal=True, **given).stubs

    def _run(self, work: StepWork, made: Made | None) -> Collection[str]:
        shown = " ".join(self.args)
        tail = _Tail(work.progress.output)
        try:
            result = work.run(args=self.args, on_output=tail.output, **self._surroundings(work, made))
        except ContainerStartError as error:
            raise MinidockError(f'cannot run "{shown}": {error.message}', hint=error.hint) from error
        if result.status:
            raise CommandFailedError(
                f'process "{shown}" did not complete successfully: exit code: {result.status}',
                status=result.status,
                output=tail.text(),
                stubs=result.stubs,
                hint=advice(result.status),
            )
        return result.stubs

    def _surroundings(self, work: StepWork, made: Made | None) -> dict[str, Any]:
        """What a command of this step has, as ``work.run`` takes it."""
        env = {**self.env, **self.proxies}
        further: dict[str, Any] = {"hosts": self.settings.hosts, "shm_size": self.settings.shm_size}
        if made is not None:
            further |= {"mounts": made.mounts, "agents": made.agents}
            env |= made.env
        if self.devices:
            from minidock.runtime.cdi import find_devices

            given = find_devices(self.devices)
            work.progress.output("".join(f"{sentence}\n" for sentence in given.told).encode())
            further["mounts"] = [*further.get("mounts", ()), *given.mounts]
            further["devices"] = {"nodes": given.nodes, "rules": given.rules, "groups": given.groups}
            env |= dict(text.partition("=")[::2] for text in given.env)
        return {
            "root": work.mounts(),
            "env": tuple(f"{name}={value}" for name, value in env.items()),
            "workdir": self.workdir,
            "user": self.user,
            "network": self.network,
            "ulimits": self.ulimits,
            "meanwhile": work.meanwhile,
            "insecure": self.insecure,
            **further,
        }


class _Tail:
    """Passes output on and remembers the last of it."""

    __slots__ = ("_data", "_pass_on")

    def __init__(self, pass_on: Callable[[bytes], object]) -> None:
        self._pass_on = pass_on
        self._data = b""

    def output(self, data: bytes) -> None:
        self._data = (self._data + data)[-_TAIL:]
        self._pass_on(data)

    def text(self) -> str:
        """As text, from the first whole line on where something is left out."""
        whole = self._data if len(self._data) < _TAIL else self._data.partition(b"\n")[2] or self._data
        return whole.decode("utf-8", "backslashreplace")
