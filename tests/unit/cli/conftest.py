"""The command line on an engine that only notes what it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from minidock.cli import main, session


class FakeEngine:
    """Every verb notes its call in ``calls`` and gives what ``results`` holds for it; an exception is raised."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.results: dict[str, Any] = {}
        self.made_with: dict[str, Any] = {}

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append((verb, arguments, options))
            result = self.results.get(verb)
            if callable(result):
                result = result(*arguments, **options)
            if isinstance(result, BaseException):
                raise result
            return result

        return call


class Ran:
    """A finished command line."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()

    def make(values: dict[str, Any]) -> FakeEngine:
        fake.made_with = values
        return fake

    monkeypatch.setattr(session, "make_engine", make)
    return fake


@pytest.fixture
def run(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command line on the fake engine: ``run("ps", "-a")``."""

    def call(*line: str) -> Ran:
        capsys.readouterr()
        status = main.run_line(line)
        streams = capsys.readouterr()
        return Ran(status, streams.out, streams.err)

    return call
