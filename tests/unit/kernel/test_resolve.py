"""Resolution inside a root: openat2 and the walk by components give the same answers, and neither leads out."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidock.kernel import resolve

WAYS = pytest.mark.parametrize("openat2", [True, False], ids=["openat2", "walk"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A tree with every kind of link, in a folder that has a secret beside it."""
    outside = tmp_path_factory.mktemp("resolve")
    (outside / "secret").write_text("secret")
    top = outside / "root"
    (top / "a" / "b").mkdir(parents=True)
    (top / "secret-dir").mkdir()
    (top / "file").write_text("file")
    (top / "a" / "file").write_text("a/file")
    os.mkfifo(top / "fifo")
    links = {
        "rel": "a/b",
        "abs": "/a/b",
        "slash": "a/",
        "up": "../../../../..",
        "out": "../secret",
        "absout": str(outside / "secret"),
        "tofile": "file",
        "dangling": "a/new",
        "absdangling": "/a/new/deep",
        "loop": "loop2",
        "loop2": "loop",
        "dot": ".",
        "chain": "abs/../link-in-a",
        "a/link-in-a": "../rel",
        "a/b/root": "/",
        "fileslash": "file/",
    }
    for name, target in links.items():
        os.symlink(target, top / name)
    fd = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    yield fd
    os.close(fd)


def answer(function: object, *args: object, **keywords: object) -> tuple[object, ...]:
    """What an opening function does: (device, inode, type) of the result or (errno,)."""
    try:
        fd = function(*args, **keywords)  # type: ignore[operator]
    except OSError as error:
        named = error.filename == (args[1] or None)
        return (errno.errorcode[error.errno],) if named else (error.errno, error.filename)
    status = os.fstat(fd)
    os.close(fd)
    return status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode)


NAMES = [
    "a",
    "b",
    "file",
    "fifo",
    "rel",
    "abs",
    "slash",
    "up",
    "out",
    "absout",
    "tofile",
    "dangling",
    "absdangling",
    "loop",
    "dot",
    "chain",
    "link-in-a",
    "root",
    "fileslash",
    "missing",
    "..",
    ".",
    "",
]
PATHS = st.builds(
    lambda lead, parts, trail: lead + "/".join(parts) + trail,
    st.sampled_from(["", "/"]),
    st.lists(st.sampled_from(NAMES), max_size=6),
    st.sampled_from(["", "/", "/.", "//"]),
)
FLAGS = st.sampled_from(
    [os.O_PATH, os.O_PATH | os.O_DIRECTORY, os.O_RDONLY | os.O_NONBLOCK, os.O_RDONLY | os.O_DIRECTORY, os.O_RDWR]
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=PATHS, flags=FLAGS, follow=st.booleans())
def test_walk_equals_openat2_in_root(root: int, path: str, flags: int, follow: bool) -> None:
    kernel = answer(resolve.open_in_root, root, path, flags | os.O_NONBLOCK, follow=follow)
    assert answer(resolve.open_in_root, root, path, flags | os.O_NONBLOCK, follow=follow, openat2=False) == kernel


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=PATHS, flags=FLAGS, follow=st.booleans(), symlinks=st.booleans())
def test_walk_equals_openat2_beneath(root: int, path: str, flags: int, follow: bool, symlinks: bool) -> None:
    keywords = {"follow": follow, "symlinks": symlinks}
    kernel = answer(resolve.open_beneath, root, path, flags | os.O_NONBLOCK, **keywords)
    assert answer(resolve.open_beneath, root, path, flags | os.O_NONBLOCK, **keywords, openat2=False) == kernel


@WAYS
@pytest.mark.parametrize("path", ["secret", "/secret", "../secret", "a/../../secret", "up/secret", "out", "absout"])
def test_nothing_leads_out(root: int, path: str, openat2: bool) -> None:
    with pytest.raises(FileNotFoundError):
        resolve.open_in_root(root, path, openat2=openat2)


@WAYS
@pytest.mark.parametrize("path", ["..", "/..", "up", "a/b/root", "/", ".", "a/../..", "a/b/root/a/b/root/."])
def test_the_root_is_its_own_parent(root: int, path: str, openat2: bool) -> None:
    found = answer(resolve.open_in_root, root, path, openat2=openat2)
    assert found[:2] == (os.fstat(root).st_dev, os.fstat(root).st_ino)


@WAYS
@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a", "EXDEV"),
        ("..", "EXDEV"),
        ("a/../../x", "EXDEV"),
        ("abs", "EXDEV"),
        ("up", "EXDEV"),
        ("loop", "ELOOP"),
        ("", "ENOENT"),
        ("file/x", "ENOTDIR"),
        ("file/..", "ENOTDIR"),
        ("file/", "ENOTDIR"),
        ("a/missing/..", "ENOENT"),
    ],
)
def test_beneath_refuses(root: int, path: str, name: str, openat2: bool) -> None:
    assert answer(resolve.open_beneath, root, path, openat2=openat2) == (name,)


@WAYS
def test_no_symlinks_but_a_last_one_by_itself(root: int, openat2: bool) -> None:
    assert answer(resolve.open_beneath, root, "rel", symlinks=False, openat2=openat2) == ("ELOOP",)
    kept = answer(resolve.open_beneath, root, "rel", symlinks=False, follow=False, openat2=openat2)
    assert kept[2] == stat.S_IFLNK


@WAYS
def test_a_final_link_is_kept_on_demand_and_readable(root: int, openat2: bool) -> None:
    fd = resolve.open_in_root(root, "a/link-in-a", follow=False, openat2=openat2)
    try:
        assert resolve.read_link(fd) == "../rel"
    finally:
        os.close(fd)


@WAYS
def test_descriptors_are_cloexec(root: int, openat2: bool) -> None:
    for flags in (os.O_PATH, os.O_RDONLY):
        fd = resolve.open_in_root(root, "file", flags, openat2=openat2)
        assert not os.get_inheritable(fd)
        os.close(fd)


@WAYS
def test_embedded_nul_is_refused(root: int, openat2: bool) -> None:
    with pytest.raises((OSError, ValueError), match="embedded null byte"):
        resolve.open_in_root(root, "file\0x", openat2=openat2)


def test_walk_leaks_no_descriptor(root: int) -> None:
    before = os.listdir("/proc/self/fd")
    for path in ("a/b/root/a/b", "a/b/missing/x", "loop", "file/x", "a/../../..", "chain/../file"):
        answer(resolve.open_in_root, root, path, openat2=False)
        answer(resolve.open_beneath, root, path, openat2=False)
    assert os.listdir("/proc/self/fd") == before


def test_magic_links_are_refused() -> None:
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        assert answer(resolve.open_in_root, proc, f"{os.getpid()}/cwd/x") == ("ELOOP",)
        # The walk takes the text of such a link for a path inside the root.
        assert answer(resolve.open_in_root, proc, f"{os.getpid()}/cwd/x", openat2=False) == ("ENOENT",)
    finally:
        os.close(proc)


class Tree:
    """A fresh root for tests that write."""

    def __init__(self, path: Path) -> None:
        (path / "outside").mkdir()
        self.outside = path / "outside"
        self.top = path / "root"
        self.top.mkdir()
        self.fd = os.open(self.top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(tmp_path)
    yield tree
    os.close(tree.fd)


@WAYS
def test_create_files(tree: Tree, openat2: bool) -> None:
    create = os.O_WRONLY | os.O_CREAT
    os.close(resolve.open_in_root(tree.fd, "/new", create | os.O_EXCL, 0o400, openat2=openat2))
    assert stat.S_IMODE((tree.top / "new").stat().st_mode) == 0o400
    with pytest.raises(FileExistsError):
        resolve.open_in_root(tree.fd, "/new", create | os.O_EXCL, 0o600, openat2=openat2)
    (tree.top / "link").symlink_to("/target")
    with pytest.raises(FileExistsError):
        resolve.open_in_root(tree.fd, "link", create | os.O_EXCL, 0o600, openat2=openat2)
    with pytest.raises(OSError, match="symbolic links"):
        resolve.open_in_root(tree.fd, "link", create, 0o600, follow=False, openat2=openat2)
    os.close(resolve.open_in_root(tree.fd, "link", create, 0o600, openat2=openat2))
    assert (tree.top / "target").is_file()
    with pytest.raises(IsADirectoryError):
        resolve.open_in_root(tree.fd, "other/", create, 0o600, openat2=openat2)
    with pytest.raises(IsADirectoryError):
        resolve.open_in_root(tree.fd, ".", create, 0o600, openat2=openat2)
    (tree.top / "escape").symlink_to(tree.outside / "x")
    with pytest.raises(FileNotFoundError):
        resolve.open_in_root(tree.fd, "escape", create, 0o600, openat2=openat2)
    assert list(tree.outside.iterdir()) == []


def same_directory(fd: int, path: Path) -> bool:
    one, other = os.fstat(fd), path.stat()
    os.close(fd)
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


@WAYS
def test_mkdirs_makes_what_is_missing_with_mode_and_owner(tree: Tree, openat2: bool) -> None:
    (tree.top / "old").mkdir(mode=0o711)
    before = os.umask(0o077)
    try:
        fd = resolve.mkdirs_in_root(
            tree.fd, "/old/x/../y/z", mode=0o1775, uid=os.getuid(), gid=os.getgid(), openat2=openat2
        )
    finally:
        os.umask(before)
    assert same_directory(fd, tree.top / "old" / "y" / "z")
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tree.top.rglob("*")}
    assert modes == {"old": 0o711, "x": 0o1775, "y": 0o1775, "z": 0o1775}


@WAYS
def test_mkdirs_of_what_exists_changes_nothing(tree: Tree, openat2: bool) -> None:
    (tree.top / "d").mkdir(mode=0o700)
    fd = resolve.mkdirs_in_root(tree.fd, "d", flags=os.O_RDONLY, openat2=openat2)
    assert os.listdir(fd) == []
    assert same_directory(fd, tree.top / "d")
    assert stat.S_IMODE((tree.top / "d").stat().st_mode) == 0o700
    assert same_directory(resolve.mkdirs_in_root(tree.fd, "/", openat2=openat2), tree.top)


@WAYS
def test_mkdirs_stays_inside(tree: Tree, openat2: bool) -> None:
    # The escape of WORKDIR: a link to a folder of the host, and one that climbs.
    (tree.top / "abs").symlink_to(tree.outside)
    (tree.top / "climb").symlink_to("../../../outside")
    own = {"uid": os.getuid(), "gid": os.getgid()}
    os.close(resolve.mkdirs_in_root(tree.fd, "abs/x", openat2=openat2, **own))
    os.close(resolve.mkdirs_in_root(tree.fd, "climb/y", openat2=openat2, **own))
    assert list(tree.outside.iterdir()) == []
    assert (tree.top / "outside" / "y").is_dir()
    assert (tree.top / str(tree.outside / "x").lstrip("/")).is_dir()


@WAYS
def test_mkdirs_through_a_file_or_a_loop(tree: Tree, openat2: bool) -> None:
    (tree.top / "file").touch()
    (tree.top / "loop").symlink_to("loop")
    for path in ("file", "file/x", "file/"):
        with pytest.raises(NotADirectoryError):
            resolve.mkdirs_in_root(tree.fd, path, openat2=openat2)
    with pytest.raises(OSError, match="symbolic links"):
        resolve.mkdirs_in_root(tree.fd, "loop/x", openat2=openat2)


@WAYS
@pytest.mark.parametrize(
    ("path", "parent", "name"),
    [
        ("x", ".", "x"),
        ("/x/", ".", "x"),
        ("d/x", "d", "x"),
        ("/l/x//", "d", "x"),
        ("d/l2", "d", "l2"),
        ("/../x", ".", "x"),
    ],
)
def test_split_parent(tree: Tree, path: str, parent: str, name: str, openat2: bool) -> None:
    (tree.top / "d").mkdir()
    (tree.top / "l").symlink_to("/d")
    (tree.top / "d" / "l2").symlink_to("/elsewhere")
    fd, last = resolve.split_parent(tree.fd, path, openat2=openat2)
    assert last == name
    assert same_directory(fd, tree.top / parent)


@pytest.mark.parametrize("path", ["", "/", "//", ".", "..", "/..", "d/..", "d/."])
def test_split_parent_without_a_name(tree: Tree, path: str) -> None:
    with pytest.raises(OSError, match="no last component") as caught:
        resolve.split_parent(tree.fd, path)
    assert caught.value.errno == errno.EINVAL


def test_enosys_leads_to_the_walk(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree.top / "d").mkdir()
    calls: list[str] = []

    def no_openat2(*args: object, path: str = "") -> int:
        calls.append(path)
        raise OSError(errno.ENOSYS, "not implemented", path)

    monkeypatch.setattr(resolve, "syscall", no_openat2)
    assert same_directory(resolve.open_in_root(tree.fd, "d"), tree.top / "d")
    assert calls == ["d"]


def test_eagain_is_tried_again_and_in_the_end_walked(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    real = resolve.syscall
    refusals = [errno.EAGAIN] * 5

    def busy(*args: object, path: str = "") -> int:
        if refusals:
            raise OSError(refusals.pop(), "try again", path)
        return real(*args, path=path)  # type: ignore[arg-type]

    monkeypatch.setattr(resolve, "syscall", busy)
    assert same_directory(resolve.open_in_root(tree.fd, "."), tree.top)
    assert refusals == []
    refusals.extend([errno.EAGAIN] * 1000)
    (tree.top / "d").mkdir()
    assert same_directory(resolve.open_in_root(tree.fd, "d/../d"), tree.top / "d")
    assert len(refusals) < 1000
