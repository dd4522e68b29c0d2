"""Each bound of the unpacker matters: with it taken down, an archive of rows 28 to 31 and 36 to 38 costs what it likes.

As in test_defences_unpack.py, by the engine's own functions in a child of the test.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import zstandard

from minidock.drivers import (
    beneath,
    compression,
    tar_fields,
    tar_format,
    tar_reader,
    tar_sparse,
    trees,
)
from minidock.drivers.tar_reader import TarReader
from minidock.store.staging import Staging
from tests.integration.attack import forger
from tests.integration.attack.bench import Bench, entries
from tests.integration.attack.forger import directory, file, header, named, pax, symlink
from tests.integration.attack.tools import apart, engine_apart

MEMORY = 256 << 20


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def with_limits(**changed: int) -> Callable[[], None]:
    """A patch: the reader's limits with these changed."""

    def patch() -> None:
        tar_reader.Limits = lambda: tar_format.Limits(**changed)  # type: ignore[misc,assignment]

    return patch


# Rows 28 to 31: what costs too much


def test_row_28_without_a_bound_on_digits_a_record_is_a_crash() -> None:
    archive = forger.extension(forger.PAX, b"0" * 100_000 + b"11 path=a\n") + file(b"x")

    def patch() -> None:
        tar_fields._MAX_DIGITS = 1 << 30

    assert apart(lambda: entries(archive)).startswith("ArchiveError: a pax header")
    # The standard library's own limit on the digits of a number.
    assert apart(lambda: entries(archive), patch).startswith("ValueError")


def test_row_28_without_the_grammar_of_numbers_a_size_is_negative() -> None:
    archive = header(b"x", raw={"size": b"-0000001000\0"}) + file(b"y")

    def patch() -> None:
        tar_fields.number = lambda field, **_: int(field.strip(b" \0") or b"0", 8)

    def sizes() -> None:
        patch()
        TarReader._open = lambda *_: None  # type: ignore[method-assign]

    assert "invalid size" in apart(lambda: entries(archive))
    assert "negative size" in apart(lambda: entries(archive), patch)
    assert "Error" not in apart(lambda: entries(archive), sizes)


def test_row_28_without_the_checksum_noise_is_an_entry() -> None:
    archive = header(b"x", raw={"checksum": b"0000001\0"})

    def patch() -> None:
        tar_fields.verify_checksum = lambda _: None

    assert "wrong checksum" in apart(lambda: entries(archive))
    assert apart(lambda: entries(archive), patch) == "1"


def runs(count: int) -> bytes:
    """A sparse file of so many runs, told in a map of records and all there."""
    text = b",".join(b"%d,1" % (2 * number) for number in range(count))
    records = [(b"GNU.sparse.size", b"%d" % (2 * count)), (b"GNU.sparse.map", text)]
    return pax(records) + file(b"x", bytes(count))


def test_row_28_without_a_bound_on_runs_a_map_has_any_number() -> None:
    archive = runs((1 << 16) + 1)
    assert "more than '65536' runs" in apart(lambda: entries(archive))
    assert apart(lambda: entries(archive), with_limits(segments=1 << 40)) == "1"


@pytest.mark.parametrize("pairs", [[(0, 512), (256, 512)], [(4096, 512), (0, 512)], [(1 << 20, 512)]])
def test_row_28_without_the_check_of_runs_they_overlap(pairs: list[tuple[int, int]]) -> None:
    archive = forger.old_sparse(b"x", 1 << 20, pairs) + bytes(512 * len(pairs))

    def patch() -> None:
        tar_sparse.check = lambda pairs, _: tuple(pairs)

    assert "malformed map" in apart(lambda: entries(archive))
    assert apart(lambda: entries(archive), patch) == "1"


def test_row_28_without_a_bound_on_entries_there_is_any_number() -> None:
    archive = file(b"x") * 20
    assert "more than 10 entries" in apart(lambda: entries(archive), with_limits(entries=10))
    assert apart(lambda: entries(archive)) == "20"


class Zeros(io.RawIOBase):
    """A header, and then zeros for ever."""

    def __init__(self, head: bytes) -> None:
        self._head = head

    def read(self, size: int = -1, /) -> bytes:
        data, self._head = self._head[:size], self._head[size:]
        return data or bytes(size)


def test_row_29_without_a_cap_an_extended_header_fills_the_memory() -> None:
    def use() -> str:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        return str(next(iter(TarReader(Zeros(forger.extension(forger.PAX, b"", claimed=8 << 30))))))

    assert "claims 8589934592 bytes" in apart(use)
    assert apart(use, with_limits(extension=1 << 40)).startswith("MemoryError")


def test_row_30_without_a_ratio_a_bomb_is_unpacked() -> None:
    bomb = gzip.compress(file(b"zeros", bytes(32 << 20)) + forger.END)

    def little() -> None:
        compression._FREE = 1 << 20

    def patch() -> None:
        little()
        compression._RATIO = 1 << 60

    assert "times its size" in apart(lambda: entries(bomb, b""), little)
    assert apart(lambda: entries(bomb, b""), patch) == "1"


def test_row_30_without_a_limit_xz_takes_what_memory_it_likes() -> None:
    greedy = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    bomb = lzma.compress(file(b"x") + forger.END, filters=greedy)

    def patch() -> None:
        compression._XZ_MEMORY = 1 << 40

    assert "Memory usage limit" in apart(lambda: entries(bomb, b""))
    assert apart(lambda: entries(bomb, b""), patch) == "1"


def test_row_30_without_a_limit_zstandard_takes_what_memory_it_likes() -> None:
    greedy = zstandard.ZstdCompressionParameters(window_log=28)
    writer = zstandard.ZstdCompressor(compression_params=greedy).compressobj()
    bomb = writer.compress(file(b"x") + forger.END) + writer.flush()

    def patch() -> None:
        compression._ZSTD_WINDOW = 1 << 31

    assert "too much memory" in apart(lambda: entries(bomb, b""))
    assert apart(lambda: entries(bomb, b""), patch) == "1"


def test_row_31_without_a_cap_on_sizes_the_file_system_is_asked(bench: Bench) -> None:
    """The last defence is the kernel's: no file is so large."""
    records = [(b"GNU.sparse.size", b"%d" % ((1 << 63) - 1)), (b"GNU.sparse.map", b"")]
    parts = (pax(records) + file(b"x"),)
    assert "a sparse file of" in apart(partial(bench.tree, *parts))
    assert "File too large" in apart(partial(bench.tree, *parts), with_limits(total=1 << 63))


def test_row_31_without_the_check_of_lengths_the_kernel_is_asked(bench: Bench) -> None:
    def patch() -> None:
        tar_format._fits = lambda _: True

    for name in (b"n" * 256, b"n" * 5000):
        parts = (named(name, file(b"x")),)
        for form in (bench.tree, bench.index):
            assert "is too long" in apart(partial(form, *parts))
        assert "File name too long" in apart(partial(bench.tree, *parts), patch)
        # The index's own writer refuses what no kernel shows.
        assert "InexpressibleError" in apart(partial(bench.index, *parts), patch)


def test_row_31_a_tree_that_is_removed_level_by_level_is_too_deep(bench: Bench) -> None:
    def naive(top: int) -> None:
        for name in os.listdir(top):
            fd = os.open(name, trees.OPEN_DIR, dir_fd=top)
            naive(fd)
            os.close(fd)
            os.rmdir(name, dir_fd=top)

    def patch() -> None:
        trees.clear = naive

    def use() -> str:
        with trees.opened(str(bench.folder)) as fd:
            trees.remove("layer", fd)
        return "removed"

    assert apart(lambda: bench.tree(named(b"d/" * 1900, directory(b"x")))) == "d"
    assert apart(use, patch).startswith(("RecursionError", "OSError: [Errno 24]"))
    assert apart(use) == "removed"


def test_rows_34_and_37_without_its_modes_the_data_root_is_everybodys(minidock: Any, tmp_path: Path) -> None:
    """The setuid programs of images, and what is half unpacked, lie below directories that nobody else may search."""
    stage = minidock.root / "tmp/stage"
    programs = [stage / "program", minidock.root / "layers/program"]
    stage.mkdir(0o700)
    for path in programs:
        path.write_bytes(Path("/bin/true").read_bytes())
        path.chmod(0o4755)
    for parent in minidock.root.parents:
        if parent.stat().st_uid == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    program = (
        "import os, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(*(path for path in sys.argv[1:] if os.access(path, os.X_OK)), sep='\\n')\n"
    )

    def reached() -> list[str]:
        command = [sys.executable, "-I", "-c", program, *map(str, programs)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert reached() == []
    minidock.root.chmod(0o711)
    assert reached() == [], "each directory keeps them out by itself"
    for folder in (stage, stage.parent, minidock.root / "layers"):
        folder.chmod(0o711)
    assert reached() == [str(path) for path in programs]


# Rows 36 and 38: time, and what is no archive


def test_row_36_without_a_bound_links_lead_a_long_way(bench: Bench) -> None:
    chain = [
        symlink(b"l%d" % number, b"d/../" * 700 + (b"l%d" % (number + 1) if number < 35 else b"e"))
        for number in range(36)
    ]
    parts = (directory(b"d"), directory(b"e"), *chain, file(b"l0/x"))

    def patch() -> None:
        beneath._DETOURS = 1 << 60

    for form in (bench.tree, bench.index):
        assert "for too long" in apart(partial(form, *parts))
        assert "e l0" in apart(partial(form, *parts), patch)


def test_row_36_without_a_bound_links_lead_in_a_circle(bench: Bench) -> None:
    parts = (symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/x"))

    def patch() -> None:
        beneath._MAX_LINKS = beneath._DETOURS = 1 << 60

    for form in (bench.tree, bench.index):
        assert "too many symbolic links" in apart(partial(form, *parts))
        assert apart(partial(form, *parts), patch, seconds=2) == "killed"


def test_row_36_without_a_bound_global_records_are_every_entrys(bench: Bench) -> None:
    """Comments are not even kept: behind that stands the bound on what is."""
    comments = pax([(b"comment.%d" % number, b"") for number in range(200)], kind=forger.PAX_GLOBAL)
    attributes = pax([(b"SCHILY.xattr.user.%d" % number, b"") for number in range(200)], kind=forger.PAX_GLOBAL)

    def kept() -> None:
        tar_reader._meant = lambda records: records

    def patch() -> None:
        tar_reader._MAX_GLOBAL = 1 << 60

    assert apart(lambda: entries(comments + file(b"x"))) == "1"
    assert "too many global" in apart(lambda: entries(comments + file(b"x")), kept)
    assert "too many global" in apart(lambda: entries(attributes + file(b"x")))
    assert apart(lambda: entries(attributes + file(b"x")), patch) == "1"


@pytest.mark.parametrize("opener", ["_gzip", "_bzip2", "_xz", "_zstd"])
def test_row_38_without_their_names_a_librarys_errors_are_a_crash(opener: str) -> None:
    magic = {"_gzip": b"\x1f\x8b\x08\0", "_bzip2": b"BZh9", "_xz": b"\xfd7zXZ\0", "_zstd": b"\x28\xb5\x2f\xfd"}[opener]
    before = getattr(compression, opener)

    def patch() -> None:
        setattr(compression, opener, lambda source: (before(source)[0], (NotImplementedError,)))

    noise = magic + bytes(range(256)) * 20
    assert "compression is damaged" in apart(lambda: entries(noise, b""))
    assert not apart(lambda: entries(noise, b""), patch).startswith("ArchiveError")


def test_row_38_without_the_stagings_end_what_is_half_made_stays(minidock: Any, tmp_path: Path) -> None:
    noise = tmp_path / "noise"
    noise.write_bytes(b"\x1f\x8b\x08\0" + bytes(5000))

    def patch() -> None:
        Staging.__exit__ = lambda *_: None  # type: ignore[method-assign,assignment]

    for change, left in ((bool, 0), (patch, 1)):
        answer = engine_apart(minidock.root, lambda engine: engine.import_image(str(noise)), change)
        assert answer.startswith("ArchiveError")
        assert len(os.listdir(minidock.root / "tmp")) == left
    # What a killed maker leaves is the next one's to take away.
    minidock("import", noise, status=1)
    assert os.listdir(minidock.root / "tmp") == []
