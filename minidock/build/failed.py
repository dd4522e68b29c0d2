"""What a step that fails leaves: kept as an image that no name means, and looked at in a shell where that is asked for.

What is kept of a RUN are the layers that it stood on and what it had written; of any other step the layers alone, as it
writes nothing before it is done. The configuration is as the step saw it, with the stage's shell as the command. Of a
RUN that had a secret nothing is kept that it wrote, since that may be the secret.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from minidock.build.executors.run import RunStep
from minidock.build.failures import build_error
from minidock.errors import CommandFailedError, MinidockError
from minidock.model.image_steps import image_before
from minidock.model.oci import History, ImageConfig
from minidock.store.failed_steps import FailedSteps

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from minidock.build.state import Line, StageState
    from minidock.build.step_work import Work
    from minidock.build.tools import Outcome, StageResult, Tools
    from minidock.errors import BuildError
    from minidock.model.oci import Descriptor

_SEEN = ("Env", "User", "WorkingDir", "Shell")
_SHELL = ["/bin/sh"]
_WHERE = "look around where it failed"
_WITHOUT = ", without what it wrote, since it had a secret"
_HOW = "minidock run -it --rm FAILED"


class Stage(NamedTuple):
    """How far a stage has come: its layers and the outcomes of its lines so far, with the ``results`` of the stages
    before it."""

    state: StageState
    layers: Sequence[Descriptor]
    outcomes: Sequence[Outcome]
    results: Mapping[int, StageResult]


def leave(
    error: MinidockError | OSError,
    tools: Tools,
    line: Line,
    work: Work,
    *,
    stage: Stage,
) -> BuildError:
    """Tell that the step of ``line`` has failed, and see to what it leaves. ``work`` is the step's, ``stage`` how far
    its stage has come.

    Returns the failure with its place, and with the name under which what was left can be run, if it is kept.
    """
    failure = build_error(tools.text, line.location, error)
    work.progress.error(failure.message)
    run = line.step if isinstance(line.step, RunStep) and isinstance(error, CommandFailedError) else None
    stubs: set[str] = set(error.stubs) if isinstance(error, CommandFailedError) else set()
    if run is not None and tools.before_shell is not None:
        tools.before_shell(failure)
        try:
            stubs.update(run.open_shell(work))
        except MinidockError as refused:
            _add_hint(failure, f"no shell could be opened: {refused.message}")
    if tools.keep_failed:
        secret = run is not None and run.mounting is not None and run.mounting.has_secret
        # It is a help, and no part of the build: what hinders it (a full disk) is not what the build failed of.
        with suppress(MinidockError, OSError):
            failure.kept = _keep(tools, line, work, stage, stubs if run is not None and not secret else None)
        if failure.kept:
            _add_hint(failure, f"{_WHERE}{_WITHOUT if secret else ''}: {_HOW}")
    return failure


def _add_hint(failure: BuildError, text: str) -> None:
    failure.hint = f"{failure.hint}\n{text}" if failure.hint else text


def _keep(tools: Tools, line: Line, work: Work, stage: Stage, stubs: Collection[str] | None) -> str:
    """Keep it; its name, empty where there is nothing. What the step wrote is left out where ``stubs`` is None. Raises
    MinidockError, OSError."""
    layer = work.commit(stubs) if stubs is not None else None
    layers = [*stage.layers, *([layer] if layer is not None else [])]
    if not layers:
        return ""
    config = _config(stage, line, layer.digest if layer is not None else None)
    # The record comes after the layers.
    tools.pending.finish()
    return FailedSteps(tools.staging.root).add(config, layers).name


def _config(stage: Stage, line: Line, diff_id: str | None) -> ImageConfig:
    """The configuration as the step saw it, with the history up to it."""
    state = stage.state
    whole = state.config.copy()
    created = state.base.created
    for told, outcome in _lines(state, stage.outcomes, stage.results):
        created = outcome.created or created
        whole.add_layer(outcome.diff_id, History(created=created, created_by=told.created_by))
    whole.add_layer(diff_id, History(created=created, created_by=line.created_by, comment="failed"))
    later = state.lines[len(stage.outcomes) + 1 :]
    for told in later:
        whole.add_layer(None, History(created_by=told.created_by))
    config = image_before(whole, len(later))
    seen = {name: config.config[name] for name in _SEEN if config.config.get(name)}
    step = line.step
    if isinstance(step, RunStep):
        seen["Env"] = [f"{name}={value}" for name, value in step.env.items()]
        seen |= {"WorkingDir": step.workdir, "User": step.user}
    config.raw["config"] = {**seen, "Cmd": (seen.get("Shell") or _SHELL)[:1]}
    if created:
        config.raw["created"] = created
    return config


def _lines(
    state: StageState, outcomes: Sequence[Outcome], results: Mapping[int, StageResult]
) -> list[tuple[Line, Outcome]]:
    """The lines of the stages beneath, and the stage's own that are done, with what their steps made."""
    own = list(zip(state.lines, outcomes, strict=False))
    if state.parent is None:
        return own
    return _lines(state.parent, results[state.parent.index].outcomes, results) + own
