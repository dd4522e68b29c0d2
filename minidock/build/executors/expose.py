"""EXPOSE: the ports that the image's program listens on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minidock.build.state import StageState
    from minidock.dockerfile.instructions import Expose


def apply(instruction: Expose, stage: StageState) -> None:
    """Add the ports to those that are there."""
    ports = dict(stage.config.config.get("ExposedPorts") or {})
    ports.update((port, {}) for port in instruction.ports)
    stage.config.config["ExposedPorts"] = {port: ports[port] for port in sorted(ports)}
    stage.add_line(f"EXPOSE [{' '.join(instruction.ports)}]", instruction.location)
