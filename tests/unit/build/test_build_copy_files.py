"""Selecting, digesting and writing files: the halves of COPY, on plain directories."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from minidock.build.selection import content_digest, select
from minidock.build.tree import SourceTree, named_paths, real_path
from minidock.build.writer import Look, Writer, open_target, write_file
from minidock.dockerfile.ignore import IgnoreRules
from minidock.errors import MinidockError

ME = (os.getuid(), os.getgid())


class Sides:
    """A source and a root directory, both open."""

    def __init__(self, path: Path) -> None:
        self.source, self.root = path / "source", path / "root"
        self.source.mkdir()
        self.root.mkdir()
        self.source_fd = os.open(self.source, os.O_RDONLY | os.O_DIRECTORY)
        self.root_fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)

    def tree(self, ignore: str = "", *, keep_owner: bool = False) -> SourceTree:
        rules = IgnoreRules.parse(ignore) if ignore else None
        return SourceTree(self.source_fd, name="the build context", keep_owner=keep_owner, rules=rules)

    def digest(self, path: str = "", ignore: str = "") -> str:
        selection = select(self.tree(ignore), path, os.path.basename(path))
        assert selection is not None
        return content_digest(selection)

    def copy(self, path: str, destination: str, *, mode: int | None = None, ignore: str = "") -> None:
        selection = select(self.tree(ignore), path, os.path.basename(path))
        assert selection is not None
        content_digest(selection)
        look = Look(ME, mode)
        name = "" if selection.is_directory else selection.name
        target = open_target(self.root_fd, destination, name, look)
        try:
            Writer(selection, target, look).write()
        finally:
            os.close(target.fd)

    def listing(self) -> list[str]:
        return sorted(str(p.relative_to(self.root)) for p in self.root.rglob("*"))


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    both = Sides(tmp_path)
    yield both
    os.close(both.source_fd)
    os.close(both.root_fd)


def test_real_path_stays_inside(sides: Sides) -> None:
    (sides.source / "d").mkdir()
    (sides.source / "d/f").write_text("x")
    os.symlink("/d/f", sides.source / "absolute")
    os.symlink("../../../d", sides.source / "d/up")
    os.symlink("up", sides.source / "d/again")
    os.symlink("/top", sides.source / "d/deep")
    (sides.source / "top").write_text("right")
    (sides.source / "d/top").write_text("wrong")
    assert real_path(sides.source_fd, "d/deep") == "top"
    assert real_path(sides.source_fd, "absolute") == "d/f"
    assert real_path(sides.source_fd, "d/again/f") == "d/f"
    assert real_path(sides.source_fd, "../.././/../d/..") == ""
    with pytest.raises(FileNotFoundError):
        real_path(sides.source_fd, "/etc/passwd")
    with pytest.raises(NotADirectoryError):
        real_path(sides.source_fd, "d/f/below")


def test_real_path_of_a_loop_ends(sides: Sides) -> None:
    os.symlink("b", sides.source / "a")
    os.symlink("a", sides.source / "b")
    with pytest.raises(OSError, match="Too many levels"):
        real_path(sides.source_fd, "a")


def test_real_path_keeps_what_is_missing(sides: Sides) -> None:
    os.symlink("/new/place", sides.root / "link")
    assert real_path(sides.root_fd, "/link/below/../x", missing_ok=True) == "new/place/x"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a.txt", ["a.txt"]),
        ("/a.txt", ["a.txt"]),
        ("../../a.txt", ["a.txt"]),
        ("d/", ["d"]),
        (".", [""]),
        ("*.txt", ["a.txt", "b.txt"]),
        ("?.txt", ["a.txt", "b.txt"]),
        ("[b-z].txt", ["b.txt"]),
        ("d/*", ["d/c.txt", "d/e"]),
        ("*/c.txt", ["d/c.txt"]),
        ("nomatch*", []),
        ("nodir/*", []),
    ],
)
def test_sources_name_paths(sides: Sides, source: str, expected: list[str]) -> None:
    (sides.source / "d/e").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "d/c.txt"):
        (sides.source / name).write_text(name)
    assert named_paths(sides.tree(), source) == expected


def test_directory_merges_its_contents(sides: Sides) -> None:
    (sides.source / "d/sub").mkdir(parents=True)
    (sides.source / "d/sub/f").write_text("one")
    (sides.source / "d/g").write_text("two")
    (sides.root / "x/sub").mkdir(parents=True)
    (sides.root / "x/sub/old").write_text("old")
    (sides.root / "x/sub").chmod(0o711)
    (sides.root / "x").chmod(0o711)
    (sides.source / "d/sub").chmod(0o700)
    sides.copy("d", "/x")
    assert sides.listing() == ["x", "x/g", "x/sub", "x/sub/f", "x/sub/old"]
    modes = [stat.S_IMODE((sides.root / name).stat().st_mode) for name in ("x", "x/sub")]
    assert modes == [0o711, 0o700], "the destination keeps its own, what is merged takes the source's"


def test_metadata_is_kept(sides: Sides) -> None:
    (sides.source / "d/sub").mkdir(parents=True)
    file = sides.source / "d/sub/f"
    file.write_text("content")
    file.chmod(0o4751)
    os.utime(file, ns=(1, 1_500_000_000_123_456_789))
    os.mkfifo(sides.source / "d/fifo", 0o640)
    os.link(file, sides.source / "d/twin")
    os.symlink("/etc/passwd", sides.source / "d/link")
    os.setxattr(file, "user.note", b"kept")
    (sides.source / "d/sub").chmod(0o700)
    os.utime(sides.source / "d/sub", ns=(1, 1_400_000_000_000_000_000))
    sides.copy("d", "/new")
    copied = (sides.root / "new/sub/f").lstat()
    assert stat.S_IMODE(copied.st_mode) == 0o4751
    assert copied.st_mtime_ns == 1_500_000_000_000_000_000, "a layer has whole seconds"
    assert copied.st_nlink == 2
    assert copied.st_ino == (sides.root / "new/twin").lstat().st_ino
    assert os.getxattr(sides.root / "new/sub/f", "user.note") == b"kept"
    assert os.readlink(sides.root / "new/link") == "/etc/passwd"
    assert stat.S_ISFIFO((sides.root / "new/fifo").lstat().st_mode)
    directory = (sides.root / "new/sub").lstat()
    assert (stat.S_IMODE(directory.st_mode), directory.st_mtime_ns) == (0o700, 1_400_000_000_000_000_000)
    assert stat.S_IMODE((sides.root / "new").lstat().st_mode) == 0o755


def test_umask_does_not_matter(sides: Sides) -> None:
    (sides.source / "f").write_text("x")
    (sides.source / "f").chmod(0o666)
    before = os.umask(0o077)
    try:
        sides.copy("f", "/deep/f")
    finally:
        os.umask(before)
    assert stat.S_IMODE((sides.root / "deep/f").stat().st_mode) == 0o666
    assert stat.S_IMODE((sides.root / "deep").stat().st_mode) == 0o755


def test_mode_of_everything_made(sides: Sides) -> None:
    (sides.source / "d/sub").mkdir(parents=True)
    (sides.source / "d/sub/f").write_text("x")
    sides.copy("d", "/made/here", mode=0o750)
    modes = {name: stat.S_IMODE((sides.root / name).stat().st_mode) for name in sides.listing()}
    assert modes == dict.fromkeys(["made", "made/here", "made/here/sub", "made/here/sub/f"], 0o750)


def test_existing_files_are_replaced_not_written_through(sides: Sides) -> None:
    (sides.root / "victim").write_text("untouched")
    (sides.root / "d").mkdir()
    os.symlink("../victim", sides.root / "d/f")
    (sides.source / "d").mkdir()
    (sides.source / "d/f").write_text("new")
    sides.copy("d", "/d")
    assert (sides.root / "victim").read_text() == "untouched"
    assert (sides.root / "d/f").read_text() == "new"
    assert not (sides.root / "d/f").is_symlink()


@pytest.mark.parametrize("differs", ["", "content", "mode", "time", "xattr", "linked"])
def test_what_is_there_already_is_not_written_anew(sides: Sides, differs: str) -> None:
    file, copied = sides.source / "d/f", sides.root / "x/f"
    file.parent.mkdir()
    file.write_text("content")
    sides.copy("d", "/x")
    if differs == "content":
        then = file.stat().st_mtime_ns
        file.write_text("another"[:7])
        os.utime(file, ns=(then, then))
    elif differs == "mode":
        file.chmod(0o600)
    elif differs == "time":
        os.utime(file, ns=(7, 7))
    elif differs == "xattr":
        os.setxattr(file, "user.a", b"1")
    elif differs == "linked":
        os.link(copied, sides.root / "twin")
    before = copied.stat().st_ino
    os.utime(copied.parent, ns=(5, 5))
    sides.copy("d", "/x")
    assert (copied.parent.stat().st_mtime_ns == 5) == (differs == "")
    assert copied.read_bytes() == file.read_bytes()
    assert stat.S_IMODE(copied.stat().st_mode) == stat.S_IMODE(file.stat().st_mode)
    assert differs or copied.stat().st_ino == before


def test_destination_link_is_followed_inside_the_root(sides: Sides) -> None:
    os.symlink("/real", sides.root / "link")
    (sides.source / "f").write_text("x")
    sides.copy("f", "/link/")
    assert (sides.root / "real/f").read_text() == "x"
    os.symlink("../../../../../outside", sides.root / "up")
    sides.copy("f", "/up/")
    assert (sides.root / "outside/f").read_text() == "x"
    assert not (sides.root.parent / "outside").exists()


def test_kinds_that_clash(sides: Sides) -> None:
    (sides.source / "d").mkdir()
    (sides.source / "d/x").write_text("file")
    (sides.source / "e/x").mkdir(parents=True)
    (sides.root / "file").write_text("x")
    (sides.root / "t/x").mkdir(parents=True)
    with pytest.raises(MinidockError, match="not a directory"):
        sides.copy("d", "/file")
    with pytest.raises(MinidockError, match="a directory exists there"):
        sides.copy("d", "/t")
    with pytest.raises(MinidockError, match="a file is in the way"):
        sides.copy("d/x", "/file/below/x")
    (sides.root / "u").mkdir()
    (sides.root / "u/x").write_text("file")
    with pytest.raises(MinidockError, match="not a directory"):
        sides.copy("e", "/u")


def test_large_and_sparse_files(sides: Sides) -> None:
    data = os.urandom(300_000)
    (sides.source / "large").write_bytes(data)
    with (sides.source / "sparse").open("wb") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"middle")
    sides.copy("large", "/large")
    sides.copy("sparse", "/sparse")
    assert (sides.root / "large").read_bytes() == data
    copied = (sides.root / "sparse").stat()
    assert copied.st_size == 64 << 20
    assert copied.st_blocks * 512 < 1 << 20
    with (sides.root / "sparse").open("rb") as file:
        file.seek(32 << 20)
        assert file.read(6) == b"middle"


def test_digest_ignores_time_and_owner_of_the_context(sides: Sides) -> None:
    (sides.source / "f").write_text("x")
    before = sides.digest()
    os.utime(sides.source / "f", ns=(5, 5))
    assert sides.digest() == before


@pytest.mark.parametrize("change", ["content", "mode", "name", "type", "link", "xattr", "device", "hard link"])
def test_digest_sees(sides: Sides, change: str) -> None:
    file = sides.source / "d/f"
    (sides.source / "d").mkdir()
    file.write_text("x")
    (sides.source / "d/g").write_text("x")
    os.symlink("one", sides.source / "d/l")
    before = sides.digest("d")
    if change == "content":
        file.write_text("y")
    elif change == "mode":
        file.chmod(0o600)
    elif change == "name":
        file.rename(sides.source / "d/h")
    elif change == "type":
        file.unlink()
        file.mkdir()
    elif change == "link":
        (sides.source / "d/l").unlink()
        os.symlink("two", sides.source / "d/l")
    elif change == "xattr":
        os.setxattr(file, "user.a", b"1")
    elif change == "device":
        os.mkfifo(sides.source / "d/p")
    else:
        file.unlink()
        os.link(sides.source / "d/g", file)
    assert sides.digest("d") != before


def test_digest_of_a_file_does_not_know_its_name(sides: Sides) -> None:
    (sides.source / "a").write_text("same")
    (sides.source / "b").write_text("same")
    assert sides.digest("a") == sides.digest("b")


@pytest.mark.parametrize("path", ["f", ""])
def test_a_file_counts_as_it_is_when_it_is_read(sides: Sides, path: str) -> None:
    (sides.source / "f").write_text("x")
    selection = select(sides.tree(), path, path)
    assert selection is not None
    (sides.source / "f").write_text("longer")
    (sides.source / "f").chmod(0o600)
    assert content_digest(selection) == sides.digest(path)
    target = open_target(sides.root_fd, "/", path, Look(ME))
    try:
        Writer(selection, target, Look(ME)).write()
    finally:
        os.close(target.fd)
    assert (sides.root / "f").read_text() == "longer"
    assert stat.S_IMODE((sides.root / "f").stat().st_mode) == 0o600


@pytest.mark.parametrize("path", ["f", ""])
@pytest.mark.parametrize("hold", [0, 1 << 20])
@pytest.mark.parametrize("change", ["removed", "fifo", "directory"])
def test_a_file_that_is_no_file_when_it_is_read_is_an_error(sides: Sides, path: str, hold: int, change: str) -> None:
    (sides.source / "f").write_text("x")
    selection = select(sides.tree(), path, path)
    assert selection is not None
    (sides.source / "f").unlink()
    if change == "fifo":
        os.mkfifo(sides.source / "f")
    elif change == "directory":
        (sides.source / "f").mkdir()
    with pytest.raises(MinidockError, match="'f' changed while"):
        content_digest(selection, hold=hold)


def test_a_file_that_changes_while_it_is_read_is_an_error(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    (sides.source / "f").write_text("x")
    selection = select(sides.tree(), "", "")
    assert selection is not None
    real = os.readv

    def readv(fd: int, buffers: list[memoryview]) -> int:
        (sides.source / "f").write_text("longer")
        return real(fd, buffers)

    monkeypatch.setattr(os, "readv", readv)
    with pytest.raises(MinidockError, match="'f' changed while"):
        content_digest(selection)


def test_change_between_digest_and_copy_is_an_error(sides: Sides) -> None:
    (sides.source / "f").write_text("one")
    selection = select(sides.tree(), "f", "f")
    assert selection is not None
    content_digest(selection)
    (sides.source / "f").write_text("two")
    os.utime(sides.source / "f", ns=(5, 5))
    target = open_target(sides.root_fd, "/", "f", Look(ME))
    try:
        with pytest.raises(MinidockError, match="'f' changed while"):
            Writer(selection, target, Look(ME)).write()
    finally:
        os.close(target.fd)


def test_a_link_put_in_place_of_a_file_is_not_read(sides: Sides, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    (sides.source / "f").write_text("x")
    selection = select(sides.tree(), "f", "f")
    assert selection is not None
    (sides.source / "f").unlink()
    os.symlink(secret, sides.source / "f")
    with pytest.raises(OSError, match="symbolic links"):
        content_digest(selection)


def test_ignore_rules(sides: Sides) -> None:
    for name in ("src/a.c", "src/b.o", "doc/x.md", "top"):
        (sides.source / name).parent.mkdir(exist_ok=True)
        (sides.source / name).write_text(name)
    sides.copy("", "/all", ignore="*\n!src/**\n**/*.o\n")
    assert sides.listing() == ["all", "all/src", "all/src/a.c"]
    assert select(sides.tree("*\n!src/**"), "doc", "doc") is None
    assert select(sides.tree("*\n!src/**"), "top", "top") is None
    assert select(sides.tree("*\n!src/**"), "src", "src") is not None


def test_empty_directories_are_copied_unless_ignored(sides: Sides) -> None:
    (sides.source / "empty").mkdir()
    (sides.source / "gone/below").mkdir(parents=True)
    sides.copy("", "/x", ignore="gone\n!nothing\n")
    assert sides.listing() == ["x", "x/empty"]


def test_sockets_are_passed_over(sides: Sides) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(sides.source / "s"))
        sides.copy("", "/x")
    assert sides.listing() == ["x"]


def test_names_that_are_not_utf8(sides: Sides) -> None:
    (sides.source / os.fsdecode(b"\xff\xfe")).write_text("odd")
    sides.copy("", "/")
    assert os.listdir(os.fsencode(sides.root)) == [b"\xff\xfe"]


def test_heredoc_file(sides: Sides) -> None:
    look = Look(ME)
    target = open_target(sides.root_fd, "/etc/motd", "EOF", look)
    try:
        write_file(target.fd, target.name, b"hello\n", look)
        write_file(target.fd, target.name, b"again\n", look)
    finally:
        os.close(target.fd)
    assert (sides.root / "etc/motd").read_bytes() == b"again\n"
    assert stat.S_IMODE((sides.root / "etc/motd").stat().st_mode) == 0o644


def test_no_descriptor_is_left_open(sides: Sides) -> None:
    (sides.source / "d/e").mkdir(parents=True)
    (sides.source / "d/e/f").write_text("x")
    before = len(os.listdir("/proc/self/fd"))
    sides.copy("", "/x")
    with pytest.raises(MinidockError):
        sides.copy("d", "/x/d/e/f")
    assert len(os.listdir("/proc/self/fd")) == before
