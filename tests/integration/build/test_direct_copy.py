"""COPY straight into a layer's tarball: the layer is the one that copying into a writable layer makes."""

from __future__ import annotations

import os
import random
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from minidock.build import copying, direct, selection
from minidock.drivers.tar_reader import TarReader
from minidock.errors import ArchiveError, BuildError
from minidock.store.blobs import Blobs

# Where layers are trees, every step is done in a writable layer.
pytestmark = pytest.mark.parametrize("overlay_shop", ["overlay2-tarball"], indirect=True)

OLD = 1_500_000_000


class Entry(NamedTuple):
    """An entry of a layer's tar."""

    name: str
    fields: tuple[Any, ...]
    mtime: int
    xattrs: dict[str, bytes]
    data: bytes


class Both:
    """Builds one text twice on one base: as the project does it, and in a writable layer only."""

    def __init__(self, shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shop = shop
        self.context: Path = shop.context
        self.direct: list[bool] = []
        self._compose = direct.compose
        self._monkeypatch = monkeypatch
        self._base = 0
        self.epoch = ""

    def build(self, text: str, *, base: str = "", is_direct: bool = True) -> list[list[Entry]]:
        """The layers that the lines of ``text`` make above ``base``, the same both ways; all of them ``is_direct``."""
        if base or not self._base:
            self.stand_on(base or "FROM busybox\n")
        direct_layers = self._layers(text, self._recorded)
        assert self.direct, "no line was a COPY"
        assert set(self.direct) == {is_direct}
        copied_layers = self._layers(text, lambda *_, **__: False)
        assert direct_layers == copied_layers
        return direct_layers

    def stand_on(self, base: str) -> None:
        """Build the image on which the layers that are compared stand."""
        self._base = len(self.shop.build(base, tags=["base"]).config.diff_ids)

    def _arguments(self) -> tuple[tuple[str, str], ...]:
        return (("SOURCE_DATE_EPOCH", self.epoch),) if self.epoch else ()

    def _recorded(self, *arguments: Any, **options: Any) -> bool:
        self.direct.append(self._compose(*arguments, **options))
        return self.direct[-1]

    def _layers(self, text: str, compose: Callable[..., bool]) -> list[list[Entry]]:
        self._monkeypatch.setattr(copying, "compose", compose)
        image = self.shop.build(f"FROM base\n{text}", no_cache=True, build_args=self._arguments())
        return [self._entries(diff_id) for diff_id in image.config.diff_ids[self._base :]]

    def _entries(self, diff_id: str) -> list[Entry]:
        found = []
        with Blobs(self.shop.root).open(diff_id) as file:
            reader = TarReader(file)
            for entry in reader:
                fields = (*entry[1:6], *entry[7:10])
                found.append(Entry(entry.name, fields, entry.mtime, dict(entry.xattrs), b"".join(reader.data())))
        return found


@pytest.fixture
def both(overlay_shop: Any, monkeypatch: pytest.MonkeyPatch) -> Both:
    return Both(overlay_shop, monkeypatch)


def make(path: Path, content: str | bytes = "x", *, mode: int = 0o644, mtime: float = OLD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    os.utime(path, (mtime, mtime))
    return path


def age(root: Path) -> None:
    """Give every directory and link a time in the past, each its own."""
    for number, (directory, names, files) in enumerate(os.walk(root, topdown=False)):
        for name in files:
            if os.path.islink(path := os.path.join(directory, name)):
                os.utime(path, (OLD, OLD + 0.25), follow_symlinks=False)
        for name in names:
            if os.path.islink(path := os.path.join(directory, name)):
                os.utime(path, (OLD, OLD + 0.25), follow_symlinks=False)
        os.utime(directory, (OLD + number, OLD + number + 0.5))


def names(layer: list[Entry]) -> list[str]:
    return [entry.name for entry in layer]


def test_every_kind_of_entry(both: Both) -> None:
    source = both.context / "d"
    make(source / "plain", "content")
    make(source / "setuid", "x", mode=0o6755)
    make(source / "secret", "x", mode=0o400, mtime=OLD + 0.999)
    make(source / "empty", "")
    make(source / "large", os.urandom(300_000))
    make(source / "before the epoch", "x", mtime=-1.5)
    make(source / ("n" * 150), "a long name")
    make(source / "ümlaut", "x")
    make(source / os.fsdecode(b"bytes-\xff"), "x")
    (source / "sticky").mkdir(mode=0o1777)
    (source / "sticky").chmod(0o1777)
    (source / "group").mkdir()
    (source / "group").chmod(0o2750)
    make(source / "group/inside")
    (source / "none").mkdir()
    os.symlink("plain", source / "link")
    os.symlink("/" + "t" * 300, source / "long link")
    os.mkfifo(source / "fifo", 0o640)
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(source / "block", stat.S_IFBLK | 0o600, os.makedev(7, 300))
    os.chown(source / "plain", 7, 8)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
    age(source)
    (layer,) = both.build("COPY d /d\n")
    assert "d/socket" not in names(layer)
    assert len(layer) == 2 + 18


def test_extended_attributes(both: Both) -> None:
    file = make(both.context / "d/file")
    os.setxattr(file, "user.one", b"1")
    os.setxattr(file, "user.empty", b"")
    os.setxattr(file, "trusted.two", b"\0two")
    os.setxattr(file, "trusted.overlay.opaque", b"y")
    os.setxattr(file, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.setxattr(both.context / "d", "user.directory", b"never copied: it is no entry of its own")
    (both.context / "d/sub").mkdir()
    os.setxattr(both.context / "d/sub", "user.directory", b"x")
    os.symlink("file", both.context / "d/link")
    os.setxattr(both.context / "d/link", "trusted.link", b"x", follow_symlinks=False)
    age(both.context)
    (layer,) = both.build("COPY d /d\n")
    assert {entry.name: sorted(entry.xattrs) for entry in layer if entry.xattrs} == {
        "d/file": ["security.capability", "trusted.two", "user.empty", "user.one"],
        "d/sub": ["user.directory"],
        "d/link": ["trusted.link"],
    }


def test_order_of_names(both: Both) -> None:
    for name in ("a", "a-", "a.b", "a/x", "a0", "B", "\udcff", "￰", "𐀀", "é", "z"):
        if not name.endswith("/x") and name != "a":
            make(both.context / "d" / name)
    make(both.context / "d/a/x")
    make(both.context / "d/a/y/z")
    age(both.context)
    both.build("COPY d /\n")


def test_hard_links(both: Both) -> None:
    make(both.context / "d/z", "one")
    (both.context / "d/a").mkdir()
    os.link(both.context / "d/z", both.context / "d/a/link")
    os.link(both.context / "d/z", both.context / "d/b")
    make(both.context / "outside", "two", mtime=OLD + 5)
    os.link(both.context / "outside", both.context / "d/alone")
    os.setxattr(both.context / "d/z", "user.one", b"1")
    age(both.context)
    (layer,) = both.build("COPY d /d\n")
    kinds = {entry.name: (entry.fields[0], entry.fields[5]) for entry in layer if entry.fields[0] != b"5"}
    assert kinds == {
        "d/a/link": (b"0", ""),
        "d/alone": (b"0", ""),
        "d/b": (b"1", "d/a/link"),
        "d/z": (b"1", "d/a/link"),
    }
    # Two sources of one step are two copies.
    both.build("COPY d/z outside /e/\nCOPY d/z d/b /f/\n")


@pytest.mark.parametrize(
    "flags",
    [
        "--chown=7:8",
        "--chmod=640",
        "--chown=bob --chmod=4711",
        "--chown=0:0",
        "--chmod=u=rwX,go=",
        "--chmod=a+x,g+s,+t --link --chown=bob:8",
    ],
)
def test_owner_and_mode(both: Both, flags: str) -> None:
    make(both.context / "d/file", mode=0o755)
    make(both.context / "d/sub/file", mode=0o600)
    os.symlink("file", both.context / "d/link")
    os.mkfifo(both.context / "d/fifo")
    age(both.context)
    both.build(f"COPY {flags} d /new/place/\nCOPY {flags} d/file /other/place\nCOPY {flags} <<E /third/place/\nx\nE\n")


def test_chosen_files(both: Both) -> None:
    for path in ("a/b/x.c", "a/b/x.o", "a/c/y.o", "a/z", "d/x.c"):
        make(both.context / path)
    os.link(both.context / "a/z", both.context / "a/b/linked")
    os.setxattr(both.context / "a/b", "user.one", b"1")
    age(both.context)
    (layer, *_) = both.build(
        "COPY --parents a/**/*.o a/./z /to\nCOPY --exclude=**/*.o --exclude=d . /\nCOPY --exclude=* a /empty\n"
        "COPY --link --parents a/b d/*.c /etc/x\nCOPY --parents --exclude=**/x.* ./*/./ /to/a/\nCOPY --link a /etc\n"
    )
    assert names(layer) == ["", "to", "to/a", "to/a/b", "to/a/b/x.o", "to/a/c", "to/a/c/y.o", "to/z"]
    assert [entry.xattrs for entry in layer if entry.name == "to/a/b"] == [{"user.one": b"1"}]


def test_linked_layers_leave_nothing_out(both: Both) -> None:
    make(both.context / "d/file")
    (both.context / "d/sub").mkdir()
    age(both.context)
    base = "FROM busybox\nCOPY d /d\nRUN chmod 700 /d && ln -s /d /link\n"
    for lines, expected in (
        ("COPY --link d /d\n", ["", "d", "d/file", "d/sub"]),
        ("COPY --link d/file /link/file\n", ["", "link", "link/file"]),
        ("COPY --link d/file /link\n", ["", "link"]),
        ("COPY --link <<file /d/\nx\nfile\n", ["", "d", "d/file"]),
    ):
        (layer,) = both.build(lines, base=base)
        assert names(layer) == expected
    assert both.build("COPY --link no* /new/\n", base=base) == []


def test_heredocs(both: Both) -> None:
    make(both.context / "file")
    (layer, *_) = both.build("COPY <<a <<b file /d/\n1\na\n2\nb\nCOPY <<c /c\nx\nc\nCOPY <<d /etc/\nx\nd\n")
    assert names(layer) == ["", "d", "d/a", "d/b", "d/file"]


def test_existing_directories_are_merged(both: Both) -> None:
    base = (
        "FROM busybox\nRUN mkdir -p /app/sub/deep /app/other && chmod 2775 /app/sub && chown 5:6 /app/sub/deep"
        " && ln -s app/sub /link && touch -d @1400000000 /app/sub/deep /app/sub /app/other /app /\n"
    )
    make(both.context / "d/sub/deep/new")
    make(both.context / "d/sub/file")
    make(both.context / "d/fresh/file")
    (both.context / "d/other").mkdir()
    make(both.context / "d/setgid/file")
    (both.context / "d/setgid").chmod(0o2755)
    age(both.context)
    (layer,) = both.build("COPY d /app\n", base=base)
    times = {entry.name: entry.mtime for entry in layer}
    assert times["app"] == OLD + 4, "that of the latest thing that is copied"
    assert times[""] == 1_400_000_000
    assert times["app/other"] == int((both.context / "d/other").stat().st_mtime), "what is merged takes the source's"
    (layer,) = both.build("COPY d/sub/deep /link/deep/\n", base=base)
    assert {entry.name: entry.mtime for entry in layer}["app/sub"] == 1_400_000_000
    both.build(
        "COPY d/sub /link/\nCOPY d/fresh/file /link\nCOPY --chown=9:9 d/sub/deep /link/deep/deeper/\n", base=base
    )
    both.build("COPY d /\n", base=base)


def test_sources_of_one_step_meet(both: Both) -> None:
    for name in ("one", "two", "three"):
        make(both.context / name / "shared" / name)
        make(both.context / name / "own" / name / "file")
    age(both.context)
    last = (both.context / "three/shared").stat().st_mtime
    (layer,) = both.build("COPY one two three /d/\n")
    assert {entry.name: entry.mtime for entry in layer}["d/shared"] == int(last)
    both.build("COPY one one/shared/one /d/\n")
    both.build("COPY on* thr*/own /d/\n")


@pytest.mark.parametrize(
    "lines",
    [
        "COPY empty /d\n",
        "COPY empty /etc\nCOPY none* /etc/\nCOPY empty /new/\n",
        "COPY file /\n",
        "COPY file /x/../etc\n",
        "COPY file /a/b/c/d\n",
        "COPY d* /d/\n",
        "WORKDIR /w\nCOPY file .\nCOPY file ./there\n",
        "ADD file d /d/\n",
        "COPY . .\n",
    ],
)
def test_destinations(both: Both, lines: str) -> None:
    make(both.context / "file")
    make(both.context / "d/file2")
    (both.context / "empty").mkdir()
    age(both.context)
    both.build(lines)


def test_from_scratch_and_from_a_stage(both: Both) -> None:
    make(both.context / "d/file")
    age(both.context)
    both.build("COPY d /d\n", base="FROM scratch\nCOPY <<E /\nE\n")
    text = (
        "RUN mkdir /d && cd /d && echo x > a && ln a b && ln -s a c && mkfifo p && chmod 4711 a && chown 5:6 a c p"
        " && mkdir e && chown 7:8 e && touch -h -d @1400000000 a c p e\nFROM base\nCOPY --from=0 /d /e\n"
    )
    both.build(text, base="FROM busybox\n")


def test_files_that_exist_beneath(both: Both) -> None:
    """The dependencies first, then everything: what is there stays, what differs is replaced."""
    make(both.context / "package", "the same")
    make(both.context / "lock", "before")
    make(both.context / "mode", "m", mode=0o600)
    make(both.context / "d/file")
    os.symlink("package", both.context / "link")
    os.symlink("package", both.context / "d/link")
    age(both.context)
    both.stand_on(
        "FROM busybox\nCOPY . /app/\nRUN cd /app && echo after > lock && chmod 644 mode && ln -sf x other"
        " && touch -d @1400000000 . d /\n"
    )
    make(both.context / "d/new")
    os.symlink("y", both.context / "other")
    age(both.context)
    layer = both.build("COPY . /app\n")[0]
    assert names(layer) == ["", "app", "app/d", "app/d/new", "app/lock", "app/mode", "app/other"]
    for content in ("THE SAME", "longer than before"):
        make(both.context / "package", content)
        assert names(both.build("COPY package /app/\n")[0]) == ["", "app", "app/package"]
    make(both.context / "package", "the same")
    assert both.build("COPY package d/file /app/\nCOPY package /app/package\n")
    assert both.build("COPY package /app/\n") == []
    # The link is there already: it is not made anew.
    assert [(entry.name, entry.mtime >= OLD) for entry in both.build("COPY d /app/d\n")[0]] == [
        ("", False),
        ("app", False),
        ("app/d", True),
        ("app/d/new", True),
    ]


@pytest.mark.parametrize(
    ("base", "lines"),
    [
        ("RUN touch -d @1500000000 /file && ln /file /peer", "COPY file /"),
        ("RUN mkfifo -m 640 /fifo && touch -d @1500000000 /fifo", "COPY fifo /"),
        ("RUN touch /linked", "COPY linked /"),
        ("ENV a=1", "COPY file d/file /x/"),
        ("ENV a=1", "COPY <<file file /x/\nx\nfile\n"),
        ("ENV a=1", "COPY acl /x"),
    ],
)
def test_what_is_not_foreseen_is_copied(both: Both, base: str, lines: str) -> None:
    make(both.context / "file", "")
    make(both.context / "d/file", "y")
    make(both.context / "linked")
    os.link(both.context / "linked", both.context / "peer")
    os.mkfifo(both.context / "fifo", 0o640)
    os.utime(both.context / "fifo", (OLD, OLD))
    make(both.context / "acl/file")
    acl = bytes.fromhex("0200000001000600ffffffff02000600e803000004000400ffffffff10000600ffffffff20000400ffffffff")
    os.setxattr(both.context / "acl/file", "system.posix_acl_access", acl)
    age(both.context)
    both.build(f"{lines}\n", base=f"FROM busybox\n{base}\n", is_direct=False)


def test_default_acl_of_a_parent(both: Both) -> None:
    make(both.context / "base/d/file")
    acl = bytes.fromhex("0200000001000700ffffffff02000700e803000004000500ffffffff10000700ffffffff20000500ffffffff")
    os.setxattr(both.context / "base/d", "system.posix_acl_default", acl)
    make(both.context / "d/new", mode=0o666)
    age(both.context)
    base = "FROM busybox\nCOPY base /\n"
    both.build("COPY d /d\n", base=base, is_direct=False)
    both.direct.clear()
    both.build("COPY d /d/sub/\n", base=base, is_direct=False)


def test_archives_are_unpacked(both: Both, busybox_tar: bytes) -> None:
    make(both.context / "tar", busybox_tar)
    both.shop.build("FROM busybox\n", tags=["base"])
    both._monkeypatch.setattr(copying, "compose", both._recorded)
    image = both.shop.build("FROM base\nADD tar /d/\nCOPY tar /\n")
    assert both.direct == [True], "the archive is unpacked in a writable layer, and copied as it is without one"
    assert "d/bin/busybox" in both.shop.layer_names(image, -2)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("COPY .wh.x /", "names that begin with .wh. mark deletions"),
        ("COPY file /.wh.d/", "names that begin with .wh. mark deletions"),
        ("COPY file /etc/passwd/", "exists and is not a directory"),
        ("COPY file /etc/passwd/x", "a file is in the way"),
        ("COPY d /etc/passwd", "exists and is not a directory"),
        ("COPY d /", "what exists there is not a directory"),
        ("COPY file /conflict/", "a directory exists there"),
        ("COPY --chown=nobody file /", "unable to find user nobody"),
        ("COPY file /" + "n" * 300, "File name too long"),
        ("COPY file /new/" + "n" * 300, "File name too long"),
    ],
)
def test_refusals_are_the_same(both: Both, lines: str, problem: str) -> None:
    make(both.context / "file")
    make(both.context / ".wh.x")
    make(both.context / "d/bin2/file")
    both.shop.build("FROM busybox\nRUN touch /bin2 && mkdir -p /conflict/file\n", tags=["base"])
    for compose in (both._recorded, lambda *_, **__: False):
        both._monkeypatch.setattr(copying, "compose", compose)
        with pytest.raises(BuildError, match=problem):
            both.shop.build(f"FROM base\n{lines}\n", no_cache=True)
    assert os.listdir(both.shop.root.tmp) == []


@pytest.mark.parametrize("size", [10, 100_000, 100_001])
@pytest.mark.parametrize("change", ["append", "truncate", "rewrite", "replace", "remove"])
def test_files_that_change_meanwhile(both: Both, size: int, change: str) -> None:
    path = make(both.context / "d/file", b"x" * size)
    both.shop.build("FROM busybox\n", tags=["base"])

    def compose(*arguments: Any, **options: Any) -> bool:
        for found in options["selections"]:
            found.held.clear()
        if change == "append":
            with path.open("ab") as file:
                file.write(b"y")
        elif change == "truncate":
            os.truncate(path, size // 2)
        elif change == "rewrite":
            path.write_bytes(b"y" * size)
        elif change == "replace":
            path.rename(both.context / "moved")
            make(path, b"x" * size)
        else:
            path.unlink()
        return both._compose(*arguments, **options)

    both._monkeypatch.setattr(copying, "compose", compose)
    with pytest.raises(BuildError, match="file 'file' changed while it was being copied"):
        both.shop.build("FROM base\nCOPY d /d\n")
    assert os.listdir(both.shop.root.tmp) == []


@pytest.mark.parametrize("size", [1000, 1_000_000])
def test_a_file_that_changes_while_it_is_read(both: Both, size: int) -> None:
    path = make(both.context / "d/file", b"x" * size)
    both.shop.build("FROM busybox\n", tags=["base"])
    real = selection.open_unchanged

    def opened(entry: Any, directory: int) -> int:
        fd = real(entry, directory)
        with path.open("ab") as file:
            file.write(b"y")
        return fd

    def compose(*arguments: Any, **options: Any) -> bool:
        for found in options["selections"]:
            found.held.clear()
        both._monkeypatch.setattr(direct, "open_unchanged", opened)
        return both._compose(*arguments, **options)

    both._monkeypatch.setattr(copying, "compose", compose)
    with pytest.raises(BuildError, match="file 'file' changed while it was being copied") as caught:
        both.shop.build("FROM base\nCOPY d /d\n")
    assert not isinstance(caught.value.__cause__, ArchiveError)


def test_content_is_held_or_read_again(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        make(both.context / f"d/s{number % 7}/f{number}", os.urandom(3000 * number))
    age(both.context)
    monkeypatch.setattr(copying, "_HOLD", 100_000)
    both.build("COPY d /d\n")


def test_deep_and_wide_trees(both: Both) -> None:
    path = both.context / "d"
    for number in range(120):
        path /= f"level-{number:03}"
    make(path / "file", b"x" * 100_000)
    for level in (path.parents[50], path.parents[100]):
        make(level / "zzz", b"x" * 100_000)
    for number in range(2000):
        make(both.context / f"d/wide/f{number}", str(number))
    age(both.context)
    both.build("COPY d /d\n")


def _random_tree(random_: random.Random, root: Path, files: list[Path]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name in random_.sample(["a", "b", "c", "d.e", "f g"], random_.randrange(1, 5)):
        path, kind = root / name, random_.randrange(8)
        if os.path.lexists(path):
            continue
        if kind < 3 and len(path.parts) - len(root.parts) < 4 and str(root).count("/") < 12:
            _random_tree(random_, path, files)
        elif kind == 3:
            os.symlink(random_.choice(["a", "../b", "/etc"]), path)
        elif kind == 4 and files:
            os.link(random_.choice(files), path)
        else:
            make(path, random_.choice(["", "x", "y" * 5000]), mode=random_.choice([0o644, 0o755, 0o4750]))
            files.append(path)


@pytest.mark.parametrize("seed", range(25))
def test_random_trees_above_random_trees(both: Both, seed: int) -> None:
    """Whether each is foreseen or not: the layers are the same, and so are the refusals; with an epoch, too."""
    random_ = random.Random(seed)
    both.epoch = str(OLD + random_.randrange(9)) if seed % 3 == 0 else ""
    for name in ("base", "one", "two"):
        _random_tree(random_, both.context / name, [])
    age(both.context)
    both.stand_on("FROM busybox\nCOPY base /d\n")
    for lines in (
        "COPY one /d\n",
        "COPY one two /d/\n",
        "COPY one/* two /d/sub/\n",
        "COPY --chown=3:4 two /e\n",
        "COPY --parents --exclude=*/b --chmod=go=u one/** ./*/./a /d\n",
        "COPY --link --exclude=**/c one /d/sub\n",
    ):
        outcomes: list[Any] = []
        for compose in (both._recorded, lambda *_, **__: False):
            try:
                outcomes.append(both._layers(lines, compose))
            except BuildError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1], lines
