"""Descriptors made by a thread: what goes wrong there is raised here."""

from __future__ import annotations

import _thread
import errno

import pytest

from minidock.kernel import descriptors


def test_no_more_threads_is_the_systems_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    with pytest.raises(OSError, match="no thread can be started") as caught:
        descriptors.from_thread(list)
    assert caught.value.errno == errno.EAGAIN
