"""minidock: a container engine for one Linux host, without a daemon."""

from __future__ import annotations

# typing itself costs a detached monitor, which needs nothing else of it, 1.6 MB.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minidock.engine.engine import Engine

__all__ = ["Engine", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Engine":
        from minidock.engine.engine import Engine

        return Engine
    raise AttributeError(f"module 'minidock' has no attribute {name!r}")
