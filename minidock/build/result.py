"""The configuration of the image that a finished stage is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.build.cache import CacheRecord, make_key, now
from minidock.model.oci import History, ImageConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from minidock.build.cache import BuildCache
    from minidock.build.request import BuildRequest
    from minidock.build.state import Line, StageState
    from minidock.build.tools import Outcome, StageResult


def image_config(
    states: Mapping[int, StageState],
    results: Mapping[int, StageResult],
    target: int,
    cache: BuildCache,
    request: BuildRequest,
) -> ImageConfig:
    """The configuration of the stage ``target`` with its history.

    Times are those at which the steps ran first, so that a build which is all cached gives the same image: a line
    without a step has the time of the step before it, or of the first one; an image without any step, of its first
    build.
    """
    state, labels = states[target], request.labels
    config = state.config.copy()
    if labels:
        config.config["Labels"] = {**(config.config.get("Labels") or {}), **dict(labels)}
    lines = _all_lines(state, states, results)
    if not lines and not labels and config.created:
        return config
    created = next((outcome.created for _, outcome in lines if outcome.created), "")
    if not created:
        created = _first_built(config, lines, cache, no_cache=request.no_cache)
    for line, outcome in lines:
        created = outcome.created or created
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


def _first_built(
    config: ImageConfig, lines: Sequence[tuple[Line, Outcome]], cache: BuildCache, *, no_cache: bool
) -> str:
    shown = {name: value for name, value in config.raw.items() if name != "created"}
    key = make_key((), instruction="image", config=shown, history=[line.created_by for line, _ in lines])
    record = None if no_cache else cache.find(key)
    if record is None:
        record = CacheRecord(None, now())
        cache.save(key, record)
    return record.created
