"""``builder du`` and ``builder prune``, and ``build``'s flags about RUN, on an engine that only notes what is asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from minidock.engine.listings import CacheEntry, Pruned

DAY = 86400 * 10**9


@pytest.fixture
def entries(engine: Any) -> list[CacheEntry]:
    found = [
        CacheEntry("cachemount", "a" * 64, "cache mount '/root/.cache'", 5000, 1, 10**18, False, False),
        CacheEntry("step", "b" * 64, "RUN " + "x" * 100 + "\x1b[31m", 3000, 0, 10**18 - DAY, False, True),
        CacheEntry("cachemount", "ab" + "c" * 62, "cache mount 'go'", 200, 1, 10**18 - 2 * DAY, True, False),
    ]
    engine.results["builder_usage"] = found
    return found


@pytest.mark.usefixtures("entries")
class TestUsage:
    def test_table(self, run: Any) -> None:
        lines = run("builder", "du").out.splitlines()
        assert lines[0].split() == ["ID", "TYPE", "SIZE", "LAST", "USED", "DESCRIPTION"]
        assert lines[1].startswith("aaaaaaaaaaaa   cachemount   5kB")
        assert lines[1].endswith("cache mount '/root/.cache'")
        assert lines[2].endswith("x...")
        assert lines[-2:] == ["Reclaimable: 5kB", "Total:       8.2kB"]

    def test_verbose_shows_all_and_drives_no_terminal(self, run: Any) -> None:
        out = run("builder", "du", "--verbose").out
        assert "b" * 64 in out
        assert "\x1b" not in out
        assert "x" * 100 in out

    @pytest.mark.parametrize(
        ("filters", "ids"),
        [
            (("type=cachemount",), "aa ab"),
            (("type=step", "type=cachemount"), "aa bb ab"),
            (("id=ab",), "ab"),
            (("inuse=true",), "ab"),
            (("shared=false", "inuse=false"), "aa"),
            (("until=1000000000",), "bb ab"),
        ],
    )
    def test_filters(self, run: Any, filters: tuple[str, ...], ids: str) -> None:
        flags = [word for text in filters for word in ("--filter", text)]
        lines = run("builder", "du", "--format", "json", *flags).out.splitlines()
        assert [json.loads(line)["ID"][:2] for line in lines] == ids.split()

    def test_a_filter_that_there_is_not(self, run: Any) -> None:
        done = run("builder", "du", "--filter", "x=1")
        assert done.status == 125
        assert "invalid filter 'x=1'" in done.err


@pytest.mark.usefixtures("entries")
class TestPrune:
    def test_all_of_it(self, run: Any, engine: Any) -> None:
        engine.results["builder_prune"] = Pruned(("a" * 64,), 5000)
        assert run("builder", "prune", "-f").out == f"{'a' * 64}\nTotal reclaimed space: 5kB\n"
        assert engine.calls == [("builder_prune", (), {"all": False, "ids": None, "keep_bytes": 0})]

    def test_a_part(self, run: Any, engine: Any) -> None:
        engine.results["builder_prune"] = Pruned((), 0)
        run("builder", "prune", "-a", "-f", "--filter", "type=cachemount", "--keep-storage", "1k")
        ids = ["a" * 64, "ab" + "c" * 62]
        assert engine.calls[1] == ("builder_prune", (), {"all": True, "ids": ids, "keep_bytes": 1024})


def test_flags_of_build(run: Any, engine: Any) -> None:
    engine.results["build"] = "sha256:b"
    done = run(
        *("build", "--add-host", "a:1.1.1.1", "--allow", "network.host", "--network", "none", "--secret", "id=s"),
        *("--shm-size", "1m", "--ssh", "default", "-v", "/a:/b", "--volume", "/c:/d", "ctx"),
    )
    assert done.status == 0
    given = engine.calls[0][2]
    expected = {
        "add_hosts": ("a:1.1.1.1",),
        "allow": ("network.host",),
        "network": "none",
        "secrets": ("id=s",),
        "shm_size": 1 << 20,
        "ssh": ("default",),
        "volumes": ("/a:/b", "/c:/d"),
    }
    assert {name: given[name] for name in expected} == expected
