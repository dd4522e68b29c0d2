"""Which record a step is compared with, and what is said of each kind of difference."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from minidock.build.cache import BuildCache, CacheRecord, Key, make_key
from minidock.build.explaining import NEW, UNUSED, Explainer
from minidock.store.layout import DataRoot

PLACE = {"project": "p", "stage": "s", "number": 2, "title": "RUN x", "base": ["busybox", "sha256:b"], "before": ""}
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


class Cache:
    """A cache with records of steps, each used later than those before."""

    def __init__(self, root: DataRoot) -> None:
        self.root = root
        self._cache = BuildCache(root)
        self._time = 0

    def add(self, below: tuple[str, ...] = (), about: dict[str, Any] | None = None, **inputs: Any) -> Key:
        key = step(below, about, **inputs)
        self._cache.save(key, CacheRecord(None, "then"))
        self._time += 1
        os.utime(f"{self.root.cache}/build/{key.digest[7:]}.json", (self._time, self._time))
        return key

    def reasons(self, key: Key, *, titles: tuple[str, ...] = ("RUN x",), missed: tuple[str, ...] = ()) -> list[str]:
        key = key._replace(about={**key.about, "own": len(titles)})
        return Explainer(self.root).reasons(key, titles, missed=missed)


def step(below: tuple[str, ...] = (), about: dict[str, Any] | None = None, **inputs: Any) -> Key:
    return make_key(below, **{"instruction": "RUN", **inputs})._replace(about={**PLACE, **(about or {})})


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    root = DataRoot(str(tmp_path / "root"), run=str(tmp_path / "run"))
    root.ensure()
    return Cache(root)


class TestPrecedent:
    def test_nothing_like_it(self, cache: Cache) -> None:
        assert cache.reasons(step(user="a")) == [NEW]
        cache.add(about={"title": "RUN y", "number": 7}, user="a")
        cache.add(about={"title": "RUN x"}, instruction="WORKDIR", user="a")
        cache.add(about={"title": "RUN y", "project": "q"}, user="a")
        assert cache.reasons(step(user="b")) == [NEW]

    def test_the_same_words_elsewhere_are_better_than_nothing(self, cache: Cache) -> None:
        cache.add(about={"project": "q", "number": 9, "stage": ""}, user="a")
        assert cache.reasons(step(user="b")) == ["the user was 'a', is 'b'"]
        cache.add(about={"number": 9}, user="c")
        cache.add(about={"project": "q"}, user="d")
        assert cache.reasons(step(user="b")) == ["the user was 'c', is 'b'"], "of the same project"

    def test_the_most_alike_and_of_these_the_latest(self, cache: Cache) -> None:
        cache.add(user="a", network="none")
        cache.add(user="c", network="host")
        assert cache.reasons(step(user="b", network="none")) == ["the user was 'a', is 'b'"]
        cache.add(user="d", network="none")
        assert cache.reasons(step(user="b", network="none")) == ["the user was 'd', is 'b'"]

    def test_what_was_at_its_place_if_it_did_not_only_move(self, cache: Cache) -> None:
        cache.add(about={"title": "RUN old"}, args=["sh", "-c", "old"])
        changed = step(about={"title": "RUN new"}, args=["sh", "-c", "new"])
        assert cache.reasons(changed, titles=("RUN new",)) == ["the command was 'old', is 'new'"]
        assert cache.reasons(changed, titles=("RUN new", "RUN old")) == [NEW]

    def test_an_add_that_was_a_copy(self, cache: Cache) -> None:
        cache.add(about={"title": "COPY a /"}, instruction="COPY", unpack=False)
        assert cache.reasons(step(about={"title": "ADD a /"}, instruction="ADD", unpack=None)) == [
            "the instruction was 'COPY', is 'ADD'"
        ]

    def test_damaged_records_and_those_of_old_are_passed_over(self, cache: Cache) -> None:
        key = cache.add(user="a")
        path = Path(cache.root.cache) / "build"
        (path / "damaged.json").write_text("{")
        (path / f"{'0' * 64}.json").write_text('{"diff_id": 1, "created": "", "inputs": {"instruction": "RUN"}}')
        (path / f"{'1' * 64}.json").write_text('{"inputs": 1, "about": 1}')
        assert cache.reasons(step(user="b")) == ["the user was 'a', is 'b'"]
        assert cache.reasons(key) == ["its layer is not in the store any more"]

    def test_without_the_cache(self, cache: Cache) -> None:
        assert Explainer(cache.root).reasons(step(), (), missed=(), anew=True) == [UNUSED]


class TestBelow:
    def test_a_step_before_it(self, cache: Cache) -> None:
        cache.add((A,))
        assert cache.reasons(step((B,)), missed=("[s 1/2] COPY a /",)) == ["below it, [s 1/2] COPY a / is made anew"]

    def test_the_base(self, cache: Cache) -> None:
        cache.add((A,))
        other = step((B,), {"base": ["debian", "sha256:" + "d" * 64]})
        assert cache.reasons(other) == ["the base was busybox (sha256:b), is debian (sha256:dddddddddddd)"]
        assert cache.reasons(step((B,), {"base": ["scratch", ""]})) == ["the base was busybox (sha256:b), is scratch"]

    def test_lines_that_are_gone_or_new(self, cache: Cache) -> None:
        first = cache.add(about={"title": "RUN first"})
        second = cache.add((A,), {"title": "RUN second", "before": first.digest})
        cache.add((A, B), {"before": second.digest})
        now = step((B,), {"before": first.digest})
        assert cache.reasons(now, titles=("RUN first", "RUN x")) == ["below it, RUN second is gone"]
        assert cache.reasons(now, titles=("RUN first", "RUN third", "RUN second", "RUN x")) == [
            "below it, RUN third is new"
        ]
        assert cache.reasons(now, titles=("RUN second", "RUN first", "RUN x")) == [
            "below it, the steps come in another order, or made other layers"
        ]

    def test_records_that_go_round_in_a_ring_end(self, cache: Cache) -> None:
        first = cache.add((A,))
        path = Path(cache.root.cache) / "build" / f"{first.digest[7:]}.json"
        path.write_text(path.read_text().replace('"before": ""', f'"before": "{first.digest}"'))
        assert cache.reasons(step((B,)))[0].startswith("below it, RUN x is gone")


class TestInputs:
    @pytest.mark.parametrize(
        ("then", "now", "reasons"),
        [
            ({"env": ["A=1"]}, {"env": ["A=1", "B=2=3"]}, ["ENV B is new: '2=3'"]),
            ({"env": ["A=1", "B=2"]}, {"env": []}, ["ENV A is gone, was '1'", "ENV B is gone, was '2'"]),
            ({"args": ["a", "b"]}, {"args": ["a"]}, ["the command was 'a b', is 'a'"]),
            ({"args": ["sh", "a\nb"]}, {"args": ["sh", "a"]}, ["line 2 of the command was 'b', is ''"]),
            ({"args": ["sh", "-c", "a"]}, {"args": ["sh", "a"]}, ["""the shell was ["sh", "-c"], is ["sh"]"""]),
            ({"chmod": None}, {"chmod": 0o644}, ["--chmod was not given, is 0644"]),
            ({"chmod": "u+x"}, {"chmod": None}, ["--chmod was 'u+x', is not given"]),
            ({}, {"link": True}, ["--link was not given, is true"]),
            ({"epoch": 1}, {"epoch": 2}, ["SOURCE_DATE_EPOCH was 1, is 2"]),
            ({"epoch": 1, "env": ["E=1"]}, {"epoch": 2, "env": ["E=2"]}, ["ENV E was '1', is '2'"]),
            ({"devices": []}, {"devices": [["a/b=c", True]]}, ["""--device was [], is [["a/b=c", true]]"""]),
            ({}, {"unheard": 1}, ["unheard was not given, is 1"]),
            ({"heredocs": [["a", A]]}, {"heredocs": []}, ["the heredoc a is gone"]),
            ({"heredocs": []}, {"heredocs": [["a", A]]}, ["the heredoc a is new"]),
            ({"user": "x" * 99}, {"user": ""}, [f"the user was '{'x' * 71}…', is ''"]),
            ({"source": [A], "paths": ["a"]}, {"files": []}, ["what it copies was not kept the last time"]),
        ],
    )
    def test_one_difference(self, cache: Cache, then: Any, now: Any, reasons: list[str]) -> None:
        cache.add(**then)
        assert cache.reasons(step(**now)) == reasons

    def test_arguments_are_told_from_variables(self, cache: Cache) -> None:
        cache.add(about={"arguments": ["A", "C"]}, env=["A=1", "B=1", "C=1"])
        assert cache.reasons(step(about={"arguments": ["A"]}, env=["A=2", "B=2"])) == [
            "ARG A was '1', is '2'",
            "ENV B was '1', is '2'",
            "ARG C is gone, was '1'",
        ]

    def test_mounts(self, cache: Cache) -> None:
        cache.add(
            mounts=[
                {"type": "bind", "target": "/a", "layers": A},
                {"type": "cache", "target": "/b", "id": "x"},
                {"type": "secret", "target": "", "env": "E"},
                {"type": "script", "name": "/s", "content": A},
                {"type": "bind", "target": "/f", "files": "0" * 64},
            ]
        )
        now = step(
            mounts=[
                {"type": "bind", "target": "/a", "layers": B},
                {"type": "cache", "target": "/b", "id": "y"},
                {"type": "script", "name": "/s", "content": B},
                {"type": "tmpfs", "target": "/t"},
                {"type": "bind", "target": "/f", "files": "1" * 64},
            ]
        )
        assert cache.reasons(now) == [
            "what the mount /a shows changed",
            "id of the mount /b was 'x', is 'y'",
            "what the mount /s shows changed",
            "the mount /t is new",
            "the mount /f: the files of the source changed",
            "the mount E is gone",
        ]

    def test_sources_of_elsewhere(self, cache: Cache) -> None:
        cache.add(
            remote=[["http", "f", A], ["git", "a" * 40, "", False, True], ["http", "g", A], ["files"], ["http", "h", A]]
        )
        now = step(
            remote=[["http", "f", B], ["git", "b" * 40, "", False, True], ["http", "x", A], ["http", "h", A]],
        )
        assert cache.reasons(now) == [
            f"what the source 1 holds was sha256:{'a' * 12}, is sha256:{'b' * 12}",
            f"the commit of the source 2 was {'a' * 12}, is {'b' * 12}",
            f"""the source 3 was ["g", "sha256:{"a" * 57}…, is ["x", "sha256:{"a" * 57}…""",
            "the source 4 is another",
            "the source 5 is gone",
        ]

    def test_sources_come_and_go(self, cache: Cache) -> None:
        cache.add(files=[["a", False, "0" * 64], ["b", False, "0" * 64], ["b", True, "0" * 64]])
        now = step(files=[["b", False, "0" * 64], ["c", False, "0" * 64]])
        assert cache.reasons(now) == ["the source c is new", "the source a is gone", "the source b is gone"]

    def test_of_many_the_first_are_told(self, cache: Cache) -> None:
        cache.add(env=[f"A{n:02}=1" for n in range(50)])
        found = cache.reasons(step(env=[f"A{n:02}=2" for n in range(50)]))
        assert (len(found), found[-1]) == (21, "and 30 more")

    def test_a_key_that_is_made_otherwise(self, cache: Cache) -> None:
        key = cache.add(user="a")
        path = Path(cache.root.cache) / "build"
        (path / f"{key.digest[7:]}.json").rename(path / f"{'0' * 64}.json")
        assert cache.reasons(key) == ["its key is made in another way than the last time"]
