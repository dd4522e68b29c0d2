"""What ``builder prune`` takes, by age, size and layers."""

from __future__ import annotations

import pytest

from minidock.engine import building
from minidock.engine.builder_cache import _counted_once, room, superfluous
from minidock.engine.listings import CacheEntry
from minidock.engine.options import CacheOptions


def entry(name: str, size: int, used: int, layer: str = "", *, shared: bool = False) -> CacheEntry:
    return CacheEntry("step", name, "", size, 0, used, False, shared, layer)


ENTRIES = [
    entry("new", 50, 9, "L1"),
    entry("mount", 30, 8),
    entry("base", 1000, 7, "L2", shared=True),
    entry("old", 0, 6, "L1"),
    entry("older", 20, 5, "L3"),
    entry("oldest", 0, 4, "L3"),
]


def gone(bound: int | None, *kept: str, all: bool = False) -> list[str]:  # noqa: A002
    wanted = {one.id: one.id not in kept and (all or not one.shared) for one in ENTRIES}
    return [one.id for one in superfluous(ENTRIES, wanted, bound)]


def test_without_a_bound_all_that_is_wanted_goes() -> None:
    assert gone(None) == ["new", "mount", "old", "older", "oldest"]
    assert gone(None, "mount", "older") == ["new", "old", "oldest"]
    assert "base" in gone(None, all=True)


@pytest.mark.parametrize(
    ("bound", "names"),
    [
        (1000, []),
        (100, []),
        (99, ["older", "oldest"]),
        (80, ["older", "oldest"]),
        (79, ["mount", "older", "oldest"]),
        (49, ["new", "mount", "old", "older", "oldest"]),
        (0, ["new", "mount", "old", "older", "oldest"]),
        (-5, ["new", "mount", "old", "older", "oldest"]),
    ],
)
def test_the_longest_unused_goes_until_the_rest_fits(bound: int, names: list[str]) -> None:
    """A layer stays with all its records or goes with all; those that images have cost nothing."""
    assert gone(bound) == names


def test_a_layer_of_which_a_record_stays_is_counted() -> None:
    assert gone(50, "old") == ["mount", "older", "oldest"]
    assert gone(80, "old") == ["older", "oldest"]
    assert gone(40, "old") == ["mount", "older", "oldest"], "more than may go does not"


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"keep_bytes": 40}, 40),
        ({"max_used": 40}, 40),
        ({"max_used": 40, "keep_bytes": 60}, 60),
        ({"min_free": 10}, 100),
        ({"min_free": 50}, 70),
        ({"min_free": 500}, 0),
        ({"min_free": 500, "keep_bytes": 5}, 5),
        ({"min_free": 50, "max_used": 30}, 30),
        ({"min_free": 50, "max_used": 90}, 70),
    ],
)
def test_room(bounds: dict[str, int], expected: int) -> None:
    """With 100 bytes of cache and 20 free on the disk."""
    assert room(100, 20, **{"keep_bytes": 0, "max_used": 0, "min_free": 0, **bounds}) == expected


def test_the_latest_used_of_a_layer_has_its_size() -> None:
    entries = [entry("a", 50, 9, "L"), entry("b", 7, 8), entry("c", 50, 7, "L"), entry("d", 7, 6)]
    assert [one.size for one in _counted_once(entries)] == [50, 7, 0, 7]


def test_options_of_the_exchange_are_told_from_the_others() -> None:
    assert {*building._CACHE_OPTIONS} == CacheOptions.__annotations__.keys()
    options = {"cache_from": ["app"], "no_cache_filter": ("a,b",), "squash": True}
    found = building._exchange(options)
    assert found["no_cache_filter"] == ("a", "b")
    assert found["cache_from"][0].place == "app"
    assert options == {"squash": True}
    assert building._exchange({"cache_to": ()}) == {}
