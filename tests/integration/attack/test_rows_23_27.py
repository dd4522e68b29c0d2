"""Rows 23 to 27 of SECURITY.md, section 2: archives whose names and links lead outside, by the command's own ways.

Both forms of layers, and both ways in: import, and ADD in a build. The drivers' own tests of the same rows are in
tests/conformance/test_driver_hostile.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.attack import forger
from tests.integration.attack.archives import Archives, long_chain
from tests.integration.attack.forger import directory, file, hard_link, named, pax, symlink

DOTS = (b"../x", b"a/../../x", b"..", b"a/..", b"/../x", b"./../x", b"a/../b")
TARGETS = ("/", "../../../../../../..", "{sentinel}", "loop/../{sentinel}", "./..//.{sentinel}")


# The way in and the form of layers. ADD unpacks into a writable layer, which the form plays no part in.
WAYS = (("import", "tarball"), ("import", "tree"), ("add", "tarball"))
EVERY_WAY = pytest.mark.parametrize("way", [*WAYS, ("add", "tree")], ids="-".join)


@pytest.fixture(params=WAYS, ids="-".join)
def way(request: pytest.FixtureRequest) -> tuple[str, str]:
    return tuple(request.param)


@pytest.fixture
def layers(way: tuple[str, str]) -> str:
    return way[1]


@pytest.fixture
def archives(way: tuple[str, str], minidock: Any, tmp_path: Path) -> Iterator[Archives]:
    with Archives(minidock, tmp_path, way[0]) as archives:
        yield archives


def inside(sentinel: Any, name: str) -> bytes:
    return os.fsencode(sentinel.path / name)


def test_row_23_absolute_names_lie_below_the_root(archives: Archives, sentinel: Any) -> None:
    secret = inside(sentinel, "secret")
    image = archives.take(
        named(secret, file(b"x", b"evil\n")),
        named(b"//" + inside(sentinel, "planted"), file(b"x", b"planted\n")),
        directory(b"./a/.//b/"),
        file(b"/etc//./hosts.planted", b"x"),
    )
    assert archives.sh(image, f"cat {sentinel.path}/secret {sentinel.path}/planted; ls -d /a/b /etc/hosts.planted") == (
        "evil\nplanted\n/a/b\n/etc/hosts.planted"
    )


def test_row_23_dots_are_refused(archives: Archives) -> None:
    for name in DOTS:
        archives.refuse("reach outside", file(b"before"), file(name, b"evil"))
    archives.refuse("reach outside", named(DOTS[0], file(b"fine", b"evil")))


def test_row_24_nothing_is_written_through_a_link(archives: Archives, sentinel: Any) -> None:
    for target in TARGETS:
        image = archives.take(
            symlink(b"l", target.format(sentinel=sentinel.path).encode()),
            file(b"l/secret", b"evil\n"),
            directory(b"l/private", mode=0o777),
            file(b"l/private/deep/program", b"evil\n"),
            named(b"l/" + b"d" * 120 + b"/planted", file(b"x", b"planted\n")),
            hard_link(b"l/owned", b"l/secret"),
        )
        assert archives.contents(image, "secret", "program", "planted") == "evil\nevil\nplanted"


@EVERY_WAY
def test_row_24_chains_of_links(archives: Archives, sentinel: Any) -> None:
    image = archives.take(
        directory(b"a/b"),
        symlink(b"a/b/up", b"../../.."),
        symlink(b"a/one", b"b/up/.."),
        symlink(b"two", b"/a/one/../../../a/one"),
        symlink(b"three", b"two/" + os.fsencode(sentinel.path)[1:]),
        file(b"three/secret", b"evil\n"),
    )
    assert archives.sh(image, f"cat {sentinel.path}/secret") == "evil"
    endless = [symlink(b"x%d" % number, b"x%d" % ((number + 1) % 50)) for number in range(50)]
    archives.refuse("too many symbolic links", *endless, file(b"x0/planted"))


@pytest.mark.parametrize("way", [("add", "tarball"), ("add", "tree")], ids="-".join)
def test_row_24_links_of_the_layers_beneath(
    archives: Archives, sentinel: Any, context: Callable[..., Path], minidock: Any
) -> None:
    """Only a build brings one archive above another image."""
    dockerfile = f"FROM busybox\nRUN ln -s /../..{sentinel.path} /l && ln -s ../../../../l /m && ln -s ../l /bin/l\n"
    minidock.build(context(dockerfile), "-t", "links")
    image = archives.take(
        file(b"l/secret", b"one\n"), file(b"m/owned", b"two\n"), file(b"bin/l/fifo", b"three\n"), base="links"
    )
    # Where the links lead there is nothing in the image: what is needed is made there.
    assert archives.sh(image, f"cd {sentinel.path} && cat secret owned") == "one\ntwo"
    assert archives.contents(image, "fifo") == "three"
    image = archives.take(file(b"secret", b"four\n"), symlink(b"link", b"/planted"), base="links", to="/m")
    assert archives.sh(image, f"cd {sentinel.path} && cat secret && readlink link") == "four\n/planted"
    image = archives.take(file(b"secret", b"five\n"), base="links", to="/m/../../../..")
    assert archives.contents(image, "secret") == "five"


def test_row_25_hard_links_never_lead_out(archives: Archives, sentinel: Any) -> None:
    secret = os.fsencode(sentinel.path / "secret")
    parts = (symlink(b"l", b"/"), symlink(b"s", secret), directory(b"d"))
    for target in (secret, b"l" + secret, b"d", b"h", b"etc/of-the-host", b"../x"):
        reason = "outside" if target == b"../x" else "hard link"
        archives.refuse(reason, *parts, pax({b"linkpath": target}) + hard_link(b"h", b"x"), file(b"h", b"evil"))
    # A link to a symbolic link is that link's other name: what it leads to is not touched.
    image = archives.take(*parts, hard_link(b"h", b"s"), file(b"h", b"evil"))
    assert archives.sh(image, "cat /h; readlink /s") == f"evil{sentinel.path}/secret"


def test_row_25_writing_to_a_hard_link_replaces_it(archives: Archives) -> None:
    image = archives.take(file(b"a", b"first"), hard_link(b"b", b"a"), file(b"b", b"second"), hard_link(b"c", b"/./a"))
    assert archives.sh(image, "cat /a /b /c; stat -c ' %h' /a") == "firstsecondfirst 2"


def test_row_26_meaningless_whiteouts(archives: Archives) -> None:
    reason = "meaningless whiteout" if archives.way == "import" else "mark deletions"
    for name in (".wh.", ".wh..", ".wh...", "a/.wh.", ".wh.a/b", "a/.wh.a/.wh..wh..opq"):
        archives.refuse(reason, file(name.encode()))


def test_row_26_whiteouts_delete_nothing_of_the_host(archives: Archives, sentinel: Any) -> None:
    marks = (
        symlink(b"l", os.fsencode(sentinel.path)),
        file(b"l/.wh.secret"),
        file(b"l/.wh..wh..opq"),
        file(os.fsencode(f"{sentinel.path}/.wh.owned")[-100:]),
        file(b"etc/.wh.passwd"),
        file(b".wh.bin"),
        file(b".wh..wh..opq"),
    )
    if archives.way == "add":
        # An archive that is added holds files, whatever they are called, and no layer could keep these.
        for mark in marks[1:]:
            archives.refuse("mark deletions", marks[0], mark)
        return
    image = archives.take(*marks)
    # They would delete from the layers beneath, of which there are none.
    assert archives.sh(image, "ls -d /bin/sh") == "/bin/sh"


def test_row_27_a_chain_that_is_longer_than_path_max(archives: Archives, sentinel: Any) -> None:
    """CVE-2025-4517: a path so long that realpath no longer follows it, then a link out of what was not followed."""
    parts = long_chain(os.fsencode(sentinel.path))
    image = archives.take(*parts, file(b"escape/secret", b"evil\n"), file(b"escape/planted", b"planted\n"))
    assert archives.contents(image, "secret", "planted") == "evil\nplanted"
    archives.refuse("hard link", *parts, hard_link(b"flag", b"escape/secret"), file(b"flag", b"evil"))


def test_row_27_the_standard_librarys_reader_is_not_used(minidock: Any) -> None:
    """tarfile is loaded by no way that takes an archive: it is the one that those attacks were found in."""
    script = (
        "import sys\n"
        "import minidock.engine.images, minidock.rootfs, minidock.build.builder, minidock.build.writer\n"
        "import minidock.drivers.tar_reader, minidock.drivers.unpack, minidock.drivers.compression\n"
        "print('tarfile' in sys.modules, 'shutil' in sys.modules and hasattr(sys.modules['shutil'], 'unpack_archive'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"


def test_the_forger_writes_what_gnu_tar_reads(tmp_path: Path) -> None:
    """Its honest archives are honest: an attack that is refused is refused for what it is."""
    stream = b"".join(
        (
            directory(b"d", mode=0o750),
            file(b"d/f", b"content", mode=0o640),
            symlink(b"s", b"t" * 150),
            hard_link(b"h", b"d/f"),
            named(b"n" * 200, file(b"x", b"long")),
            forger.old_sparse(
                b"holes", 1 << 20, [*((number * 4096 + 1024, 512) for number in range(30)), (1 << 20, 0)]
            ),
            bytes(range(256)) * 2 * 30,
            forger.END,
        )
    )
    subprocess.run(["tar", "-C", tmp_path, "-xf", "-"], input=stream, check=True)
    assert (tmp_path / "d/f").read_bytes() == b"content"
    assert (tmp_path / "h").stat().st_nlink == 2
    assert os.readlink(tmp_path / "s") == "t" * 150
    assert (tmp_path / ("n" * 200)).read_bytes() == b"long"
    holes = (tmp_path / "holes").read_bytes()
    assert len(holes) == 1 << 20
    runs = b"".join(holes[number * 4096 + 1024 :][:512] for number in range(30))
    assert runs == bytes(range(256)) * 2 * 30
    assert holes.count(0) == (1 << 20) - 255 * 2 * 30
