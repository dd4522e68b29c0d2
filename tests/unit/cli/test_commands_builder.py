"""``builder du`` and ``builder prune``, and ``build``'s flags about RUN, on an engine that only notes what is asked."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from minidock.engine.listings import CacheEntry, Pruned

DAY = 86400 * 10**9


@pytest.fixture
def entries(engine: Any) -> list[CacheEntry]:
    found = [
        CacheEntry("cachemount", "a" * 64, "cache mount '/root/.cache'", 5000, 1, 10**18, False, False),
        CacheEntry(
            "step", "b" * 64, "RUN " + "x" * 100 + "\x1b[31m", 3000, 0, 10**18 - DAY, False, True, "", "/caches/one\n"
        ),
        CacheEntry("cachemount", "ab" + "c" * 62, "cache mount 'go'", 200, 1, 10**18 - 2 * DAY, True, False),
    ]
    engine.results["builder_usage"] = found
    return found


@pytest.mark.usefixtures("entries")
class TestUsage:
    def test_table(self, run: Any) -> None:
        lines = run("builder", "du").out.splitlines()
        assert lines[0].split() == ["ID", "TYPE", "RECLAIMABLE", "SIZE", "LAST", "ACCESSED", "DESCRIPTION"]
        assert lines[1].startswith("aaaaaaaaaaaa   cachemount   true          5kB")
        assert lines[2].split()[:4] == ["bbbbbbbbbbbb", "step", "false", "3kB"]
        assert lines[1].endswith("cache mount '/root/.cache'")
        assert lines[2].endswith("x...")
        assert lines[-4:] == ["Shared:      3kB", "Private:     5.2kB", "Reclaimable: 5kB", "Total:       8.2kB"]

    def test_verbose_shows_all_and_drives_no_terminal(self, run: Any) -> None:
        out = run("builder", "du", "--verbose").out
        assert "b" * 64 in out
        assert "\x1b" not in out
        assert "x" * 100 in out
        first, second, third = out.split("\n\n")[:3]
        assert [line.split(":")[0] for line in first.splitlines()] == [
            *("ID", "Created at", "Mutable", "Reclaimable", "Shared", "Size", "Description", "Last used", "Type")
        ]
        assert "Reclaimable:  true\nShared:       false\nSize:         5kB\n" in first
        assert "Reclaimable:  false\nShared:       true\n" in second
        assert "Taken from:   /caches/one\\n\n" in second
        assert "Reclaimable:  false\nShared:       false\n" in third

    def test_templates_have_the_fields_of_buildx(self, run: Any) -> None:
        done = run("builder", "du", "--format", "{{.Type}} {{.Reclaimable}} {{.Shared}} {{.Size}} {{.Mutable}}")
        assert done.out.splitlines() == [
            "cachemount true false 5kB true",
            "step false true 3kB false",
            "cachemount false false 200B true",
        ]

    @pytest.mark.parametrize(
        ("filters", "ids"),
        [
            (("type=cachemount",), "aa ab"),
            (("type=step", "type=cachemount"), "aa bb ab"),
            (("id=ab",), "ab"),
            (("inuse=true",), "ab"),
            (("shared=false", "inuse=false"), "aa"),
            (("private=false",), "bb"),
            (("imported=true",), "bb"),
            (("imported=false",), "aa ab"),
            (("description=mount '[/g]",), "aa ab"),
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

    def test_by_size(self, run: Any, engine: Any) -> None:
        engine.results["builder_prune"] = Pruned((), 0)
        run("builder", "prune", "-f", "--max-used-space", "2k", "--min-free-space", "3k", "--reserved-space", "1k")
        bounds = {"keep_bytes": 1024, "max_used": 2048, "min_free": 3072}
        assert engine.calls == [("builder_prune", (), {"all": False, "ids": None, **bounds})]

    def test_it_asks_first(self, run: Any, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
        done = run("builder", "prune", "--max-used-space", "2k")
        assert (done.status, engine.calls) == (0, [])
        assert "Are you sure" in done.err

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
