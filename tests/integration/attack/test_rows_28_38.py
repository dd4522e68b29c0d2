"""Rows 28 to 38 of SECURITY.md, section 2: archives that cost too much, lie in their headers, or carry what no image
may bring, by the command's own ways and in both forms of layers."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.attack import forger
from tests.integration.attack.archives import MEMORY, SECONDS, Archives, root_tree
from tests.integration.attack.forger import (
    PAX,
    PAX_GLOBAL,
    base256,
    device,
    directory,
    extension,
    file,
    hard_link,
    header,
    named,
    old_sparse,
    padded,
    pax,
    record,
    symlink,
    with_xattrs,
)

FORMS = ("tarball", "tree")
CAP_NET_RAW = 13


@pytest.fixture
def layers() -> str:
    """The form of most tests, which end before there is a layer; what makes one is tested in both."""
    return "auto"


@pytest.fixture(params=["import", "add"])
def archives(request: pytest.FixtureRequest, minidock: Any, tmp_path: Path) -> Iterator[Archives]:
    with Archives(minidock, tmp_path, request.param) as archives:
        yield archives


@pytest.fixture
def imports(minidock: Any, tmp_path: Path) -> Iterator[Archives]:
    with Archives(minidock, tmp_path) as archives:
        yield archives


def sparse_pax(*pairs: tuple[bytes, bytes], data: bytes = b"") -> bytes:
    return pax([(b"GNU.sparse." + key, value) for key, value in pairs]) + file(b"sparse", data)


def row_28() -> dict[str, bytes]:
    """Headers that made other readers loop, fail or run for minutes."""
    million = 1_000_000
    many = [(number * 1024, 1) for number in range(70_000)]
    return {
        "digits without end": extension(PAX, b"1" * million),
        "blanks without end": extension(PAX, b" " * million),
        "a length of a million digits": extension(PAX, b"0" * million + b"11 path=a\n") + file(b"x"),
        "a number like a regular expression's nightmare": header(b"x", raw={"size": b"0_0_0_0_0_0\0"}),
        "a negative size": header(b"x", raw={"size": base256(-512, 12)}) + file(b"y"),
        "a negative offset": header(b"x", raw={"size": b"-0000001000\0"}) + file(b"y"),
        "a size beyond all": header(b"x", raw={"size": base256((1 << 87) - 1, 12)}),
        "a map of ten million runs": sparse_pax(
            (b"major", b"1"), (b"minor", b"0"), (b"realsize", b"9"), data=b"10000000\n" + b"0\n" * 5000
        ),
        "a map of a million numbers": sparse_pax((b"size", b"9"), (b"map", b"0,0," * 200_000 + b"0,0")),
        "runs in a hundred thousand records": sparse_pax(
            (b"size", b"9"), *((b"offset", b"0"), (b"numbytes", b"0")) * 15_000, (b"offset", b"0")
        ),
        "a chain of old maps": old_sparse(b"x", 1 << 30, many),
        "runs that overlap": old_sparse(b"x", 1 << 20, [(0, 512), (256, 512)]) + bytes(1024),
        "nothing but extended headers": pax({b"path": b"x"}) * 2000,
    }


def test_row_28_malformed_headers_cost_nothing(imports: Archives) -> None:
    for archive in row_28().values():
        imports.refuse("cannot import", archive)


def test_row_28_streams_that_end_early(archives: Archives) -> None:
    whole = root_tree() + pax({b"path": b"n" * 600}) + header(b"x", size=1 << 20) + bytes(1 << 20) + forger.END
    for length in (len(whole) - (1 << 20), len(whole) - (1 << 20) - 1024 - 700, 513, 100):
        # Less than a header is no archive: ADD copies it as any other file.
        if archives.way == "import" or length > 512:
            archives.refuse("the tar stream", whole[:length], closed=False)


def test_row_29_what_an_extended_header_claims(archives: Archives) -> None:
    for kind in (PAX, PAX_GLOBAL, forger.LONG_NAME, forger.LONG_LINK):
        for claimed in ((8 << 30), (1 << 20) + 1, -1):
            archives.refuse("extended header", extension(kind, b"", claimed=claimed), closed=False)


def test_row_30_a_bomb_is_stopped(imports: Archives, tmp_path: Path) -> None:
    """64 GiB from a file of a few megabytes: refused at 1 GiB, which no archive of that size honestly holds."""
    first = gzip.compress(header(b"zeros", raw={"size": base256(64 << 30, 12)}))
    zeros = gzip.compress(bytes(64 << 20))
    bomb = tmp_path / "bomb"
    bomb.write_bytes(first + zeros * 20)
    done = imports.limited(MEMORY, "import", str(bomb), "bomb")
    assert done.returncode == 1
    assert "times its size" in done.stderr
    assert b"bomb" not in (imports.minidock.root / "images/index.json").read_bytes()


def test_row_30_a_dictionary_of_memory(archives: Archives) -> None:
    """xz lets an archive ask for 4 GiB of memory, which what it unpacks to then fills."""
    greedy = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    bomb = lzma.compress(root_tree() + header(b"zeros", size=600 << 20), filters=greedy)
    if archives.way == "import":
        archives.refuse("Memory usage limit", bomb, closed=False)
    else:
        # What cannot be read as an archive is added as the file that it is.
        image = archives.take(bomb, to="/bomb")
        assert archives.sh(image, "head -c 5 /bomb | wc -c; ls -d /zeros 2>&1 | wc -l") == "5\n1"


def test_row_30_nested_and_foreign_compression(imports: Archives) -> None:
    honest = root_tree() + forger.END
    imports.refuse("not a tar archive", gzip.compress(gzip.compress(honest)), closed=False)
    imports.refuse("not a tar archive", bz2.compress(lzma.compress(honest)), closed=False)
    imports.refuse("compression is damaged", b"\x28\xb5\x2f\xfd" + os.urandom(4096), closed=False)


def test_row_31_sizes_and_names_beyond_the_kernels(archives: Archives) -> None:
    archives.refuse("", header(b"x", raw={"size": base256(1 << 63, 12)}))
    archives.refuse("sparse file", sparse_pax((b"size", b"%d" % ((1 << 63) - 1)), (b"map", b"")))
    archives.refuse("too long", named(b"n" * 5000, file(b"x")))
    archives.refuse("too long", extension(forger.LONG_NAME, b"n" * 5000 + b"\0") + file(b"x"))
    archives.refuse("too long", named(b"n" * 256, file(b"x")))
    archives.refuse("too long", named(b"d/" * 10_000, directory(b"x")))
    archives.refuse("target", pax({b"linkpath": b"t" * 5000}) + symlink(b"s", b"x"))


@pytest.mark.parametrize("layers", FORMS)
def test_row_31_what_is_only_large_works_and_goes_again(imports: Archives, layers: str) -> None:
    deep = b"d/" * 1900
    image = imports.take(
        named(deep, directory(b"x")),
        named(deep + b"f", file(b"x", b"found")),
        *(named(b"a/" * 500 + b"%d" % number, file(b"x")) for number in range(50)),
        sparse_pax((b"size", b"%d" % (1 << 40)), (b"map", b"1048576,3"), data=b"abc"),
        symlink(b"s", b"t/" * 2000),
    )
    script = f"stat -c %s /sparse; cd {deep[:1900].decode()} && cat {deep[1900:].decode()}f"
    assert imports.sh(image, script) == f"{1 << 40}\nfound"
    imports.minidock("rmi", image)
    keys = sorted(os.listdir(imports.minidock.root / "layers/overlay2"))
    assert all(len(os.listdir(imports.minidock.root / "layers/overlay2" / key)) < 3 for key in keys)


@pytest.mark.parametrize("layers", FORMS)
def test_row_32_overrides_count_and_are_checked_afterwards(imports: Archives, layers: str, sentinel: Any) -> None:
    hidden = file(b"hidden", b"evil")
    image = imports.take(
        pax({b"path": b"ok"}) + file(b"../evil", b"fine\n"),
        pax([(b"path", b"../first"), (b"path", b"last")]) + file(b"x", b"last\n"),
        pax({b"linkpath": b"ok"}) + hard_link(b"h", b"../../etc/passwd"),
        pax({b"uid": b"4294967294", b"gid": b"7", b"size": b"3"})
        + header(b"owned", uid=0o7777, size=9)
        + padded(b"abc"),
        pax({b"size": b"%d" % len(hidden)}) + header(b"blob", size=0) + hidden,
        extension(forger.LONG_NAME, b"gnu-name\0") + pax({b"path": b"pax-name"}) + file(b"x"),
        pax({b"GNU.sparse.name": b"sparse-name", b"GNU.sparse.size": b"5", b"GNU.sparse.map": b"0,3", b"path": b"y"})
        + file(b"x", b"abc"),
        pax({b"path": b"new\nline"}) + file(b"x", b"nl\n"),
    )
    script = (
        "cat /ok /last /h; stat -c '%u %g %s' /owned; ls -d /hidden /gnu-name /y; stat -c %s /sparse-name /blob; "
        "ls -d /pax-name; cat '/new\nline'"
    )
    assert imports.sh(image, f"({script}) 2>/dev/null") == (
        f"fine\nlast\nfine\n4294967294 7 3\n5\n{len(hidden)}\n/pax-name\nnl"
    )
    for records in (
        {b"path": b"../../x"},
        {b"path": b"a\0b"},
        {b"GNU.sparse.name": b"../x", b"GNU.sparse.size": b"0", b"GNU.sparse.map": b""},
        {b"uid": b"-1"},
        {b"uid": b"4294967295"},
        {b"size": b"1e3"},
        {b"gid": b"0x10"},
        {b"mtime": b"99999999999999"},
    ):
        imports.refuse("", pax(records) + file(b"fine"))
    imports.refuse("invalid target", pax({b"linkpath": b"a\0b"}) + symlink(b"s", b"x"))
    imports.refuse("reach outside", extension(PAX_GLOBAL, record(b"path", b"../x")) + file(b"fine"))


@pytest.mark.parametrize("layers", FORMS)
def test_row_33_device_nodes_cannot_be_opened(archives: Archives, layers: str) -> None:
    image = archives.take(
        device(b"mem", 1, 1),
        device(b"kmsg", 1, 11),
        device(b"disk", 8, 0, kind=forger.BLOCK_DEVICE),
        device(b"loop", 7, 0, kind=forger.BLOCK_DEVICE),
        device(b"dev/sda", 8, 0, kind=forger.BLOCK_DEVICE),
        device(b"null", 1, 3),
    )
    assert archives.sh(image, "echo x > /null; ls /dev/sda 2>&1 | grep -c 'No such'; stat -c %t:%T /mem") == "1\n1:1"
    for name in ("mem", "kmsg", "disk", "loop"):
        for how in ("< /", "> /", ">> /"):
            assert "Operation not permitted" in archives.sh(image, f": {how}{name}", status=1)
    archives.refuse("marks a deletion", device(b"x", 0, 0))


@pytest.mark.parametrize("layers", FORMS)
def test_row_34_attributes_that_are_overlayfss(archives: Archives, layers: str) -> None:
    """They would hide or redirect what is beneath: dropped. A file capability is kept, and works."""
    capability = struct.pack("<IIIII", 0x0200_0001, 1 << CAP_NET_RAW, 0, 0, 0)
    forged = {
        b"trusted.overlay.opaque": b"y",
        b"trusted.overlay.redirect": b"/etc",
        b"trusted.overlay.metacopy": b"",
        b"trusted.overlay.origin": b"\0" * 30,
        b"trusted.overlay.whiteout": b"y",
        b"user.overlay.opaque": b"y",
        b"user.overlay.whiteout": b"y",
    }
    busybox = Path("/bin/busybox").read_bytes()
    image = archives.take(
        with_xattrs(forged, directory(b"bin")),
        with_xattrs(forged, directory(b"etc")),
        with_xattrs(forged, file(b"bin/marked", b"content\n")),
        with_xattrs({b"security.capability": capability}, file(b"bin/cat-raw", busybox, mode=0o755)),
        hard_link(b"cat", b"bin/cat-raw"),
    )
    assert archives.sh(image, "ls -d /bin/sh; cat /bin/marked") == "/bin/sh\ncontent"
    status = archives.sh(image, "exec /cat /proc/self/status", "-u", "1000")
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    assert int(effective, 16) == 1 << CAP_NET_RAW
    archives.refuse("file capability", with_xattrs({b"security.capability": b"short"}, file(b"x")))


@pytest.mark.parametrize("layers", FORMS)
def test_row_34_nobody_else_reaches_a_setuid_program_of_an_image(imports: Archives, layers: str) -> None:
    """CVE-2021-41091: a user of the host must not get at the programs that images bring."""
    image = imports.take(file(b"root-shell", b"#!/bin/sh\n", mode=0o4755))
    root = imports.minidock.root
    imports.minidock("run", "-d", "--name", "it", "--network", "none", image, "sleep", "100")
    found = [path for path in (root, *root.rglob("*")) if not path.is_symlink()]
    assert any(path.name == "root-shell" for path in found) is (layers == "tree")
    program = (
        "import os, sys\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "for line in sys.stdin.read().split('\\0'):\n"
        "    for call in (lambda: os.listdir(line), lambda: os.close(os.open(line, os.O_RDONLY))):\n"
        "        try: call(); print(line)\n"
        "        except (PermissionError, NotADirectoryError): pass\n"
    )
    for parent in root.parents:
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], input="\0".join(map(str, found)), capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("layers", FORMS)
def test_row_35_the_last_of_several_entries_wins(archives: Archives, layers: str, sentinel: Any) -> None:
    outside = os.fsencode(sentinel.path)
    image = archives.take(
        file(b"x", b"1"),
        directory(b"x"),
        file(b"x/y", b"2"),
        symlink(b"x", outside),
        directory(b"x"),
        file(b"x/secret", b"3\n"),
        symlink(b"t", outside + b"/secret"),
        file(b"t", b"4\n"),
        directory(b"u"),
        file(b"u/secret", b"5"),
        symlink(b"u", outside),
        file(b"f", b"6"),
        file(b"f", b"7\n", mode=0o600),
        file(b"p", b"8"),
        header(b"p", forger.FIFO),
        file(b"p", b"9\n"),
    )
    script = "ls /x; cat /x/secret /t /f /p; readlink /u; stat -c %a /f"
    assert archives.sh(image, script) == f"secret\n3\n4\n7\n9\n{sentinel.path}\n600"


def timed(call: Any) -> float:
    start = time.process_time() + os.times().children_user + os.times().children_system
    call()
    return time.process_time() + os.times().children_user + os.times().children_system - start


@pytest.mark.parametrize("layers", FORMS)
def test_row_36_time_grows_with_the_layer_only(imports: Archives, layers: str) -> None:
    def marks(count: int) -> list[bytes]:
        return [file(b"p%d/q/.wh..wh..opq" % number) + file(b"p%d/q/r/x" % number) for number in range(count)]

    small, large = (timed(lambda count=count: imports.take(*marks(count))) for count in (300, 1500))
    assert large < 5 * small * 2 + 1


@pytest.mark.parametrize("layers", FORMS)
def test_row_36_links_that_lead_a_long_way(imports: Archives, layers: str) -> None:
    """A few kilobytes of links, through which every further entry takes tens of thousands of steps."""
    chain = [
        symlink(b"l%d" % number, b"d/../" * 700 + (b"l%d" % (number + 1) if number < 35 else b"e"))
        for number in range(36)
    ]
    parts = (directory(b"d"), directory(b"e"), *chain)
    imports.refuse("for too long", *parts, *(file(b"l0/%d" % number) for number in range(2000)))
    image = imports.take(*(symlink(b"s", b"e"), directory(b"e")), *(file(b"s/%d" % number) for number in range(3000)))
    assert imports.sh(image, "ls /e | wc -l") == "3000"


@pytest.mark.parametrize("layers", FORMS)
def test_row_36_global_records_are_not_read_for_every_entry(imports: Archives, layers: str) -> None:
    comments = pax([(b"comment.%d" % number, b"") for number in range(30_000)], kind=PAX_GLOBAL)
    files = [file(b"d/%d" % number) for number in range(3000)]
    plain = timed(lambda: imports.take(*files))
    assert timed(lambda: imports.take(comments, *files)) < 2 * plain + 1
    attributes = [(b"SCHILY.xattr.user.%d" % number, b"") for number in range(2000)]
    imports.refuse("too many global", pax(attributes, kind=PAX_GLOBAL), *files)


def test_row_37_what_is_half_unpacked_is_nobody_elses(imports: Archives, tmp_path: Path) -> None:
    stream = root_tree() + file(b"program", b"#!/bin/sh\n", mode=0o4777) + header(b"big", size=1 << 20)
    read, write = os.pipe()
    with imports.minidock.popen("import", "-", "slow", stdin=read) as process:
        os.close(read)
        with open(write, "wb", buffering=0) as pipe:
            pipe.write(stream)
            staging = imports.minidock.root / "tmp"
            deadline = time.monotonic() + 10
            while not (found := list(staging.rglob("import-*.tar"))):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            for path in (staging, *staging.rglob("*")):
                if path.is_dir():
                    assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (0, 0o700), path
            assert len(found) == 1
            pipe.write(bytes(1 << 20) + forger.END)
        _, error = process.communicate(timeout=20)
        assert process.returncode == 0, error
    assert imports.sh("slow", "stat -c %a /program") == "4777"


def test_row_38_what_is_no_archive_leaves_no_lock(imports: Archives) -> None:
    for magic in (b"\x1f\x8b\x08\0", b"BZh9", b"\xfd7zXZ\0", b"ustar"):
        for noise in (os.urandom(1 << 16), b"", bytes(5000) + b"x"):
            imports.refuse("cannot import", magic + noise, closed=False)
    imports.refuse("cannot import", os.urandom(1 << 16), closed=False)
    start = time.monotonic()
    imports.take(file(b"x"))
    assert time.monotonic() - start < SECONDS
