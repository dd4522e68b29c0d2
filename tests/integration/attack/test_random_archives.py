"""Random hostile archives through every way that takes archives apart, and random honest ones beside GNU tar."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidock.drivers import trees
from minidock.drivers.tar_reader import TarReader
from minidock.drivers.unpack import unpack_layer
from tests.conformance.test_layer_tree_equals_unpacked import on_disk
from tests.integration.attack import forger
from tests.integration.attack.forger import directory, file, hard_link, header, named, pax, symlink

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES, LONG_EXAMPLES = 200, 20_000
PARTS = (
    *(b"a", b"b", b"l", b"l", b"d", b"..", b".", b"", b".wh.a", b".wh.", b".wh..wh..opq", b"\xff\n", b"n" * 256),
    *(b"../outside", b"secret", b"private"),
)
KEYS = (
    *(b"path", b"linkpath", b"size", b"uid", b"mtime", b"comment"),
    *(b"SCHILY.xattr." + name for name in (b"user.k", b"trusted.overlay.opaque", b"security.capability")),
    *(
        b"GNU.sparse." + name
        for name in (b"major", b"minor", b"size", b"map", b"name", b"realsize", b"offset", b"numbytes")
    ),
)
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


def examples(config: pytest.Config, count: int = EXAMPLES) -> settings:
    number = LONG_EXAMPLES if config.getoption("--long-races") else count
    return settings(max_examples=number, deadline=None, database=None, suppress_health_check=CHECKS)


class Worker:
    """A process of ``unpack_worker``; it ends when it needs too much memory or time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.slowest = 0.0

    def take(self, lower: bytes, upper: bytes, place: bytes) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        lengths = struct.pack("<III", len(lower), len(upper), len(place))
        start = time.monotonic()
        with suppress(BrokenPipeError):
            self._process.stdin.write(lengths + lower + upper + place)
            self._process.stdin.flush()
        answer = self._process.stdout.readline().decode()
        self.slowest = max(self.slowest, time.monotonic() - start)
        assert answer, f"the worker ended with {self._process.wait()}"
        assert not answer.startswith("WRONG"), answer
        return answer.strip()


def worker_command(folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.integration.attack.unpack_worker", str(folder)]


@contextmanager
def worker(folder: Path) -> Iterator[Worker]:
    folder.mkdir()
    with subprocess.Popen(worker_command(folder), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        working = Worker(process)
        yield working
        # Shown by pytest -rP.
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        print(f"the slowest took {working.slowest:.2f} s;", next(line for line in status if line.startswith("VmHWM")))
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0


def hostile(outside: bytes) -> st.SearchStrategy[bytes]:
    """Archives that want to write to ``outside``, of entries, extended headers and noise; some damaged."""
    parts = st.sampled_from([*PARTS, outside, outside[1:]])
    names = st.one_of(
        st.lists(st.sampled_from([b"a", b"b", b"l", b"d", b"secret", b"private"]), min_size=1, max_size=3).map(
            b"/".join
        ),
        st.lists(parts, min_size=1, max_size=5).map(b"/".join),
    )
    targets = st.one_of(
        names, st.sampled_from([b"/", b"..", b"../../../..", outside, b"../outside", b"/proc/self/cwd"])
    )
    fields = st.sampled_from(
        ["mode", "uid", "gid", "size", "mtime", "kind", "magic", "major", "minor", "prefix", "checksum"]
    )
    numbers = st.one_of(
        st.integers(-(1 << 63), (1 << 63) - 1).map(lambda number: forger.base256(number, 12)),
        st.binary(max_size=12),
        st.integers(0, 4096).map(lambda number: forger.octal(number, 12)),
    )
    keys = st.sampled_from(KEYS)
    values = st.one_of(names, st.binary(max_size=30), st.integers(-5, 1 << 40).map(lambda number: b"%d" % number))
    records = st.lists(st.tuples(keys, values), max_size=4)
    entry = st.one_of(
        names.map(lambda name: named(name, directory(b"x"))),
        st.tuples(names, st.binary(max_size=40)).map(lambda pair: named(pair[0], file(b"x", pair[1]))),
        st.tuples(names, targets).map(lambda pair: named(pair[0], symlink(b"x", pair[1]))),
        st.tuples(names, targets).map(lambda pair: named(pair[0], symlink(b"x", pair[1]))),
        st.tuples(names, targets).map(
            lambda pair: pax({b"path": pair[0], b"linkpath": pair[1]}) + hard_link(b"x", b"x")
        ),
        st.tuples(names, st.integers(0, 12), st.integers(0, 12)).map(
            lambda triple: named(triple[0], forger.device(b"x", triple[1], triple[2]))
        ),
        names.map(lambda name: named(name, header(b"x", forger.FIFO))),
        st.tuples(records, st.sampled_from([forger.PAX, forger.PAX, forger.PAX_GLOBAL])).map(
            lambda pair: pax(pair[0], kind=pair[1])
        ),
        st.tuples(st.sampled_from([forger.LONG_NAME, forger.LONG_LINK]), names).map(
            lambda pair: forger.extension(pair[0], pair[1] + b"\0")
        ),
        st.tuples(names, st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 600)), max_size=6)).map(
            lambda pair: forger.old_sparse(pair[0][:100], 9000, pair[1]) + bytes(512)
        ),
        st.tuples(fields, numbers).map(
            lambda pair: header(b"x", raw={pair[0]: pair[1][:1] if pair[0] == "kind" else pair[1][:8]})
        ),
    )
    honest = st.sampled_from([directory(b"a"), symlink(b"l", outside), symlink(b"d", b"../outside"), file(b"b", b"x")])
    # Most entries of an archive are none that end it.
    body = st.lists(st.one_of(honest, entry, entry), max_size=12).map(b"".join)
    return st.builds(
        damaged, body, st.one_of(st.none(), st.none(), st.tuples(st.integers(0), st.binary(max_size=3), st.booleans()))
    )


def damaged(body: bytes, damage: tuple[int, bytes, bool] | None) -> bytes:
    if damage is None or not body:
        return body + forger.END
    place, data, cut = damage
    place %= len(body)
    return body[:place] if cut else body[:place] + data + body[place + len(data) :] + forger.END


def test_random_hostile_archives(tmp_path: Path, sentinel: Any, pytestconfig: pytest.Config) -> None:
    """Nothing outside changes, nothing takes more than 256 MiB or 10 seconds, and both forms of a layer agree."""
    seen: Counter[str] = Counter()
    outside = os.fsencode(tmp_path / "work/outside")
    archives = hostile(outside)

    with worker(tmp_path / "work") as working:

        @examples(pytestconfig)
        @given(lower=archives, upper=archives, place=st.sampled_from([b"", b"a", b"l", b"d/x", b"../outside", outside]))
        def attack(lower: bytes, upper: bytes, place: bytes) -> None:
            seen.update(working.take(lower, upper, place).split())

        attack()
    print(f"{seen}")
    # It is a test of what is taken as much as of what is refused.
    assert min(seen["equal"], seen["refused"], seen["added"], seen["sealed"]) > EXAMPLES // 30, seen


def test_the_worker_notices_what_it_should(tmp_path: Path) -> None:
    """Its bounds are bounds: what needs more than them ends it."""
    (tmp_path / "work").mkdir()
    command = worker_command(tmp_path / "work")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, bufsize=0, cwd=ROOT, **pipes)
    working = Worker(process)
    assert working.take(forger.END, forger.END, b"") == "equal equal sealed added"
    with pytest.raises(AssertionError, match="the worker ended with 1"):
        working.take(forger.END, bytes(400 << 20), b"")
    process.communicate()


NAMES = st.text("abcdü -", min_size=1, max_size=8).filter(lambda name: name.strip(". ") == name).map(str.encode)


@st.composite
def honest(draw: Any) -> bytes:
    """An archive of a tree, its parents first, no path twice."""
    parts, folders, files, used = [directory(b"./")], [b""], [], {b""}
    for _ in range(draw(st.integers(0, 12))):
        path = draw(st.sampled_from(folders)) + draw(NAMES)
        if path in used:
            continue
        used.add(path)
        mode = draw(st.sampled_from([0o644, 0o755, 0o4711, 0o2775, 0o1777, 0o600]))
        kind = draw(st.sampled_from(["file", "file", "directory", "symlink", "link", "fifo", "sparse"]))
        if kind == "directory":
            parts.append(named(path, header(b"x", forger.DIRECTORY, mode=mode, uid=3, gid=4, mtime=1_000_000)))
            folders.append(path + b"/")
        elif kind == "symlink":
            parts.append(named(path, symlink(b"x", draw(st.sampled_from([b"a", b"../b", b"/etc", b"t" * 200])))))
        elif kind == "link" and files:
            parts.append(pax({b"path": path, b"linkpath": draw(st.sampled_from(files))}) + hard_link(b"x", b"x"))
        elif kind == "fifo":
            parts.append(named(path, header(b"x", forger.FIFO, mode=mode)))
        elif kind == "sparse":
            runs = [(number * 4096, 512) for number in range(draw(st.integers(0, 30)))] + [(1 << 18, 0)]
            data = bytes(range(256)) * 2 * (len(runs) - 1)
            parts.append(forger.old_sparse(b"sparse%d" % len(parts), 1 << 18, runs) + data)
        else:
            data = draw(st.binary(max_size=1100))
            parts.append(
                named(path, header(b"x", size=len(data), mode=mode, uid=1, gid=2, mtime=5) + forger.padded(data))
            )
            files.append(path)
    return b"".join(parts) + forger.END


def test_gnu_tar_agrees_on_honest_archives(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    count = 0

    @examples(pytestconfig, 60)
    @given(archive=honest())
    def compare(archive: bytes) -> None:
        nonlocal count
        count += 1
        theirs, ours = tmp_path / f"tar{count}", tmp_path / f"ours{count}"
        theirs.mkdir()
        ours.mkdir()
        command = ["tar", "-C", theirs, "--numeric-owner", "--same-owner", "--delay-directory-restore", "-xpf", "-"]
        subprocess.run(command, input=archive, check=True, stderr=subprocess.PIPE)
        with trees.opened(str(ours)) as fd:
            unpack_layer(TarReader(io.BytesIO(archive)), fd, None)
        assert on_disk(str(ours)) == on_disk(str(theirs))
        subprocess.run(["rm", "-rf", theirs, ours], check=True)

    compare()
