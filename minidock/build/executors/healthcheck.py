"""HEALTHCHECK: stored in the image's configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minidock.build.state import StageState
    from minidock.dockerfile.instructions import Healthcheck


def apply(instruction: Healthcheck, stage: StageState) -> None:
    """Store the check; what is zero is left out and means the default."""
    fields = (
        ("Interval", instruction.interval),
        ("Timeout", instruction.timeout),
        ("StartPeriod", instruction.start_period),
        ("StartInterval", instruction.start_interval),
        ("Retries", instruction.retries),
    )
    check: dict[str, Any] = {"Test": list(instruction.test)}
    check.update((name, value) for name, value in fields if value)
    stage.config.config["Healthcheck"] = check
    stage.add_line(instruction.location.text, instruction.location)
