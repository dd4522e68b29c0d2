"""Golden folders: each positive case is a Dockerfile and the JSON of what it says, each negative one its error."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from minidock.dockerfile.parser import Dockerfile, parse
from minidock.errors import DockerfileError

GOLDEN = os.path.join(os.path.dirname(__file__), "golden")


def read(*names: str) -> str:
    with open(os.path.join(GOLDEN, *names), encoding="utf-8", newline="") as file:
        return file.read()


def cases(kind: str) -> list[str]:
    return sorted(os.listdir(os.path.join(GOLDEN, kind)))


def dump(value: object) -> Any:
    """JSON of an instruction: its class, and every field that is not empty."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        fields = {name: dump(field) for name, field in value._asdict().items() if field not in ("", (), False, None)}
        return {"": type(value).__name__, **fields}
    if isinstance(value, tuple):
        return [dump(element) for element in value]
    return value


def dump_file(dockerfile: Dockerfile) -> Any:
    return {name: dump(getattr(dockerfile, name)) for name in ("directives", "global_args", "stages", "warnings")}


def error_text(error: DockerfileError) -> str:
    return f"{error.excerpt}\n{error.message}\nhint: {error.hint}\nlines: {error.line}-{error.end_line}\n"


@pytest.mark.parametrize("case", cases("positive"))
def test_positive(case: str) -> None:
    found = dump_file(parse(read("positive", case, "Dockerfile")))
    assert found == json.loads(read("positive", case, "expected.json"))


@pytest.mark.parametrize("case", cases("negative"))
def test_negative(case: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(read("negative", case, "Dockerfile"))
    assert caught.value.filename == "Dockerfile"
    assert error_text(caught.value) == read("negative", case, "expected.txt")


def test_there_are_enough_cases() -> None:
    assert len(cases("positive")) >= 15
    assert len(cases("negative")) >= 30
