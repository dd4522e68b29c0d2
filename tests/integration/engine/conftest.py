from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidock.engine.engine import Engine
from minidock.kernel.pinned import Pinned


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine on a data root of its own, with the configuration's defaults."""
    monkeypatch.setenv("MINIDOCK_CONFIG", "/dev/null")
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    engine = Engine(str(tmp_path / "root"))
    engine.ready()
    yield engine
    pinned = Pinned(f"{engine.root.run}/layers")
    with pinned.lock():
        pinned.unpin()
    shutil.rmtree(engine.root.run, ignore_errors=True)
