"""RUN: a command in the image's root file system, in a container's sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.build.arguments import host_platform
from minidock.build.cache import Key, make_key
from minidock.dockerfile.instructions import SHELL_FORM
from minidock.errors import ContainerStartError, MinidockError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from minidock.build.state import StageState
    from minidock.build.work import StepWork
    from minidock.dockerfile.instructions import Run


def refusal(instruction: Run) -> str:
    """The flag or form that is not executed, or empty."""
    if instruction.mounts:
        return f"--mount={instruction.mounts[0]}"
    if instruction.devices:
        return f"--device={instruction.devices[0]}"
    if instruction.network == "host":
        return "--network=host"
    if instruction.security not in ("", "sandbox"):
        return f"--security={instruction.security}"
    return "a heredoc whose first line is #!" if instruction.script else ""


def apply(instruction: Run, stage: StageState) -> None:
    """Add the step: SHELL and the text, or the vector as it is."""
    args = instruction.args
    if instruction.form == SHELL_FORM:
        args = (*stage.shell, instruction.shell_text)
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
    )
    declared = [f"{name}={value}" for name, value in stage.declared.items()]
    words = [f"|{len(declared)}", *declared, *args] if declared else [*args]
    stage.add_line(f"RUN {' '.join(words)} # buildkit", instruction.location, step)


class RunStep:
    """Runs the command. Proxy variables reach it but are no part of the key."""

    __slots__ = ("args", "env", "network", "proxies", "title", "ulimits", "user", "workdir")

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
        ulimits: tuple[str, ...] = (),
    ) -> None:
        self.title = title
        self.args = args
        self.env = env
        self.proxies = proxies
        self.workdir = workdir
        self.user = user
        self.network = network
        self.ulimits = ulimits

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
            **({"ulimits": sorted(self.ulimits)} if self.ulimits else {}),
        )

    def perform(self, work: StepWork) -> Collection[str]:
        """Raises MinidockError if the command cannot be started or ends with another status than 0."""
        shown = " ".join(self.args)
        env = {**self.env, **self.proxies}
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
            )
        except ContainerStartError as error:
            raise MinidockError(f'cannot run "{shown}": {error.message}', hint=error.hint) from error
        if result.status:
            raise MinidockError(f'process "{shown}" did not complete successfully: exit code: {result.status}')
        return result.stubs
