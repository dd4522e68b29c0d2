"""``builder du`` and ``builder prune`` over what builds really left."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DOCKERFILE = """FROM busybox AS one
RUN head -c 300000 /dev/zero > /big && echo one >> /big && echo 1 > /other
FROM busybox
COPY --from=one /big /big
RUN echo 2 > /2
"""


@pytest.fixture
def built(minidock: Any, context: Callable[..., Path]) -> Any:
    minidock.build(context(DOCKERFILE), "-t", "app", "--network", "none")
    return minidock


def entries(minidock: Any, *flags: str) -> list[dict[str, Any]]:
    text = minidock.out("builder", "du", "--verbose", "--format", "json", *flags)
    return [json.loads(line) for line in text.splitlines()]


def blobs(minidock: Any) -> dict[str, int]:
    folder = minidock.root / "images/blobs/sha256"
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def test_layers_that_images_have_are_not_reclaimable(built: Any) -> None:
    found = entries(built)
    assert [entry["Description"].split()[0] for entry in found if entry["Reclaimable"]] == ["RUN"]
    shared = [entry for entry in found if entry["Shared"]]
    assert len(shared) == 3, "a COPY is known by its stage and by its files"
    assert sorted(entry["Size"] == "0B" for entry in shared) == [False, False, True], "its layer is counted once"
    lines = built.out("builder", "du").splitlines()
    assert lines[-1].split()[1] != lines[-2].split()[1]
    (private,) = entries(built, "--filter", "private=true")
    assert lines[-2] == f"Reclaimable: {private['Size']}"
    assert lines[-3] == f"Private:     {private['Size']}"


def test_prune_frees_what_is_reclaimable(built: Any) -> None:
    (private,) = entries(built, "--filter", "private=true")
    before = blobs(built)
    told = built.out("builder", "prune", "-f").splitlines()
    assert told == [private["ID"], f"Total reclaimed space: {private['Size']}"]
    (gone,) = before.keys() - blobs(built).keys()
    assert before[gone] > 300_000
    assert len(entries(built)) == 3
    assert built.out("run", "--rm", "app", "wc", "-c", "/big") == "300004 /big"


@pytest.mark.parametrize(
    ("flags", "left"),
    [
        (("--max-used-space", "1m"), 4),
        (("--max-used-space", "200k"), 3),
        (("--max-used-space", "200k", "--reserved-space", "1m"), 4),
        (("--keep-storage", "1m"), 4),
        (("--min-free-space", "1"), 4),
        (("--min-free-space", "1000t"), 3),
        (("--filter", "until=1h"), 4),
        (("--filter", "until=1ms"), 3),
        (("-a",), 0),
    ],
)
def test_prune_by_space_and_age(built: Any, flags: tuple[str, ...], left: int) -> None:
    built("builder", "prune", "-f", *flags)
    assert len(entries(built)) == left


def test_the_longest_unused_goes_first(minidock: Any, context: Callable[..., Path]) -> None:
    text = "".join(f"FROM busybox AS s{number}\nRUN head -c 100000 /dev/urandom > /{number}\n" for number in range(4))
    copies = "".join(f"COPY --from=s{number} /bin/busybox /{number}\n" for number in range(4))
    minidock.build(context(f"{text}FROM scratch\n{copies}"), "--network", "none", "--jobs", "1")
    for entry in entries(minidock, "--filter", "private=true"):
        number = int(entry["Description"][-1])
        os.utime(minidock.root / "cache/build" / f"{entry['ID']}.json", (number, number))
    minidock("builder", "prune", "-f", "--max-used-space", "250k")
    left = entries(minidock, "--filter", "private=true")
    assert [entry["Description"][-1] for entry in left] == ["3", "2"]


def test_it_asks(built: Any) -> None:
    assert built("builder", "prune", stdin="no\n").stderr.startswith("WARNING! This removes the build cache")
    assert len(entries(built)) == 4
    built("builder", "prune", stdin="y\n")
    assert len(entries(built)) == 3
