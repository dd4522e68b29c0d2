"""What is pending after a step: an interruption loses nothing of it, an error is not tried again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minidock.build.cache import CacheRecord, make_key
from minidock.build.pending import Pending
from minidock.errors import StoreError

KEY, RECORD = make_key(()), CacheRecord(None, "")


class Shelf:
    """Blobs and cache in one, which raise ``trouble`` at the first call."""

    def __init__(self, trouble: BaseException) -> None:
        self.trouble: BaseException | None = trouble
        self.done: list[Any] = []

    def adopt_all(self, layers: list[tuple[str, str]]) -> None:
        for path, digest in layers:
            Path(path).unlink()
            self.done.append(digest)
        trouble, self.trouble = self.trouble, None
        if trouble is not None:
            raise trouble

    def save(self, key: Any, _: Any) -> None:
        self.done.append(key)


def use(shelf: Shelf, tmp_path: Path) -> None:
    """A step's end that is broken off, as a build's is."""
    (tmp_path / "layer").write_text("")
    with Pending(shelf, shelf) as pending:  # type: ignore[arg-type]
        pending.add_layer(str(tmp_path / "layer"), "digest")
        pending.add_record(KEY, RECORD)
        pending.add_end(lambda: shelf.done.append("end"))
        pending.finish()


def test_an_interruption_loses_nothing(tmp_path: Path) -> None:
    shelf = Shelf(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        use(shelf, tmp_path)
    assert shelf.done == ["digest", KEY, "end"]


def test_an_error_ends_the_claims_and_is_not_tried_again(tmp_path: Path) -> None:
    shelf = Shelf(StoreError("full"))
    with pytest.raises(StoreError):
        use(shelf, tmp_path)
    assert shelf.done == ["digest", "end"]
