"""The configuration of the image that a finished stage is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.model.dating import later, to_rfc3339
from minidock.model.oci import History, ImageConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from minidock.build.request import BuildRequest
    from minidock.build.state import Line, StageState
    from minidock.build.tools import Outcome, StageResult


def image_config(
    states: Mapping[int, StageState],
    results: Mapping[int, StageResult],
    target: int,
    request: BuildRequest,
    *,
    epoch: int | None,
) -> ImageConfig:
    """The configuration of the stage ``target`` with its history.

    No clock has a part in it: each line has the time of the latest thing that went into the image so far, and so has
    the image. To begin with that is the base's own, and above ``scratch`` that of the first step; 1970 where there is
    none. Where ``epoch`` (SOURCE_DATE_EPOCH, in seconds) is given, that is the time of all that is made here.
    """
    state, labels = states[target], request.labels
    config = state.config.copy()
    if labels:
        config.config["Labels"] = {**(config.config.get("Labels") or {}), **dict(labels)}
    lines = _all_lines(state, states, results)
    if not lines and not labels and config.created:
        return config
    first = next((outcome.created for _, outcome in lines if outcome.created), to_rfc3339(0))
    created = to_rfc3339(epoch) if epoch is not None else config.created or first
    for line, outcome in lines:
        if epoch is None:
            created = later(outcome.created, created)
        config.add_layer(outcome.diff_id, History(created=created, created_by=line.created_by))
    config.raw["created"] = created
    return config


def _all_lines(
    state: StageState, states: Mapping[int, StageState], results: Mapping[int, StageResult]
) -> list[tuple[Line, Outcome]]:
    """The lines of the stages that ``state`` stands on, and its own, with what their steps made."""
    own = list(zip(state.lines, results[state.index].outcomes, strict=True))
    if state.base.stage < 0:
        return own
    return _all_lines(states[state.base.stage], states, results) + own
