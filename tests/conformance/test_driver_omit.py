"""What a layer leaves out, and the exceptions without which something would be lost."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import socket
import tarfile
from typing import Any

import pytest

T0 = 1_500_000_000


def _file(path: str, data: str = "data", *, time: int = T0, mode: int = 0o644) -> None:
    with open(path, "w") as file:
        file.write(data)
    os.chmod(path, mode)
    os.utime(path, (time, time))


def _dir(path: str, *, time: int = T0, mode: int = 0o755) -> None:
    os.mkdir(path)
    os.chmod(path, mode)
    os.utime(path, (time, time))


def _base(root: str) -> None:
    _dir(f"{root}/d", mode=0o711)
    _dir(f"{root}/d/e", mode=0o2750)
    _file(f"{root}/d/e/f", "deep")
    _file(f"{root}/d/a", "same")
    _file(f"{root}/d/b", "gone")
    _file(f"{root}/one", "one")
    os.symlink("d", f"{root}/s")
    os.utime(f"{root}/s", (T0, T0), follow_symlinks=False)
    for path in ("d/e", "d", ""):
        os.utime(f"{root}/{path}", (T0, T0))


@pytest.fixture
def stack(lab: Any) -> Any:
    made = lab.stack()
    made.edit(_base)
    return made


def _names(stack: Any, packed: Any) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(stack.tars[packed.diff_id])) as tar:
        return tar.getnames()


def test_what_is_copied_up_and_alike_is_left_out(stack: Any) -> None:
    before = stack.view()

    def touch(root: str) -> None:
        for path in ("one", "d/e/f", "d", "d/e"):
            os.chmod(f"{root}/{path}", os.stat(f"{root}/{path}").st_mode & 0o7777)
        with open(f"{root}/one", "r+") as file:
            file.write("one")
        os.utime(f"{root}/one", ns=(T0 * 10**9 + 5, T0 * 10**9 + 999_999_999))

    packed = stack.edit(touch)
    assert packed.empty
    assert packed.entries == 0
    assert stack.view() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda p: os.chmod(p, 0o600),
        lambda p: os.chown(p, 1, -1),
        lambda p: os.chown(p, -1, 1),
        lambda p: os.setxattr(p, "user.k", b"v"),
        lambda p: os.utime(p, (T0 + 1, T0 + 1)),
        lambda p: _file(p, "two"),
        lambda p: _file(p, "longer"),
        lambda p: (os.unlink(p), os.symlink("x", p)),
        lambda p: (os.unlink(p), os.mkfifo(p)),
    ],
    ids=["mode", "owner", "group", "xattr", "mtime", "content", "size", "symlink", "fifo"],
)
def test_each_difference_is_kept(stack: Any, change: Any) -> None:
    def edit(root: str) -> None:
        change(f"{root}/one")
        os.utime(root, (T0, T0))

    packed = stack.edit(edit)
    assert _names(stack, packed) == [".", "one"]


def test_changed_targets_and_devices_are_kept(stack: Any) -> None:
    stack.edit(lambda root: os.mknod(f"{root}/dev", 0o20600, os.makedev(1, 3)))

    def edit(root: str) -> None:
        os.unlink(f"{root}/s")
        os.symlink("e", f"{root}/s")
        status = os.stat(f"{root}/dev")
        os.unlink(f"{root}/dev")
        os.mknod(f"{root}/dev", 0o20600, os.makedev(1, 5))
        for name in ("s", "dev"):
            os.utime(f"{root}/{name}", ns=(status.st_mtime_ns, status.st_mtime_ns), follow_symlinks=False)

    packed = stack.edit(edit)
    assert _names(stack, packed) == [".", "dev", "s"]


def test_exception_ancestors_of_what_is_kept(lab: Any, stack: Any) -> None:
    """Without them the layer above any other image would make them up."""

    def edit(root: str) -> None:
        _file(f"{root}/d/e/f", "changed")

    packed = stack.edit(edit)
    assert _names(stack, packed) == [".", "d", "d/e", "d/e/f"]
    alone = lab.stack()
    alone.unpack(stack.tars[packed.diff_id], packed.diff_id)
    view = alone.view()
    assert [view[path][0] & 0o7777 for path in ("", "d", "d/e")] == [0o755, 0o711, 0o2750]
    assert view["d"][3] == T0 * 10**9


def test_exception_everything_below_an_opaque_directory(lab: Any, stack: Any) -> None:
    """A file that is made again just as it was hides behind the opaque mark: leaving it out would lose it."""

    def edit(root: str) -> None:
        shutil.rmtree(f"{root}/d")
        _dir(f"{root}/d", mode=0o711)
        _file(f"{root}/d/a", "same")
        os.utime(f"{root}/d", (T0, T0))

    stack.edit(edit)
    for name in ("overlay2", "vfs"):
        view = lab.rebuilt(stack, name).view()
        assert view["d/a"][5] == b"same"
        assert "d/b" not in view
        assert "d/e" not in view
    assert "d/a" in stack.view()


def test_exception_everything_below_a_type_changed_directory(lab: Any, stack: Any) -> None:
    """What the symbolic link beneath leads to is not what lies beneath."""

    def edit(root: str) -> None:
        os.unlink(f"{root}/s")
        _dir(f"{root}/s", mode=0o711)
        _file(f"{root}/s/a", "same")
        os.unlink(f"{root}/one")
        _dir(f"{root}/one")
        os.utime(f"{root}/s", (T0, T0))

    packed = stack.edit(edit)
    assert {"s", "s/a", "one"} <= set(_names(stack, packed))
    view = lab.rebuilt(stack).view()
    assert view["s/a"][5] == b"same"
    assert view["d/a"][5] == b"same"


def test_exception_members_of_a_hard_link_group_that_keeps_another(lab: Any, stack: Any) -> None:
    """``one`` is alike beneath, but its new name is not, and the two are one file."""

    def edit(root: str) -> None:
        os.link(f"{root}/one", f"{root}/zwei")
        os.link(f"{root}/one", f"{root}/d/eins")

    packed = stack.edit(edit)
    assert {"one", "zwei", "d/eins"} <= set(_names(stack, packed))
    for made in (stack, lab.rebuilt(stack)):
        view = made.view()
        assert view["one"][-1] == view["zwei"][-1] == view["d/eins"][-1] != ""


def test_a_whole_hard_link_group_that_is_alike_is_left_out(stack: Any) -> None:
    def link(root: str) -> None:
        os.link(f"{root}/one", f"{root}/two")
        os.utime(root, (T0, T0))

    stack.edit(link)
    before = stack.view()
    packed = stack.edit(lambda root: os.chmod(f"{root}/one", 0o644))
    assert packed.empty
    assert stack.view() == before


def test_files_that_become_one_are_kept_as_one(lab: Any) -> None:
    """Both names are alike beneath, but there they are two files."""
    stack = lab.stack()

    def base(root: str) -> None:
        _file(f"{root}/a")
        _file(f"{root}/b")
        os.utime(root, (T0, T0))

    def join(root: str) -> None:
        os.unlink(f"{root}/b")
        os.link(f"{root}/a", f"{root}/b")
        os.utime(root, (T0, T0))

    stack.edit(base)
    packed = stack.edit(join)
    assert _names(stack, packed) == [".", "a", "b"]
    view = lab.rebuilt(stack).view()
    assert view["a"][-1] == view["b"][-1] == "a"


def test_exception_a_link_layer_keeps_everything(lab: Any, stack: Any) -> None:
    """``COPY --link`` may land on any base: what happens to be alike on this one is no reason to leave it out."""
    writable = stack.new_folder()
    stack.driver.prepare((), writable)
    with stack.mounted(writable, ()) as root:
        _dir(f"{root}/d", mode=0o711)
        _file(f"{root}/d/a", "same")
        for path in ("d", ""):
            os.utime(f"{root}/{path}", (T0, T0))
    out = io.BytesIO()
    packed = stack.driver.pack(stack.diff_ids, writable, out, omit=False)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        assert tar.getnames() == [".", "d", "d/a"]
    other = lab.stack()
    other.unpack(out.getvalue(), packed.diff_id)
    assert other.view()["d/a"][5] == b"same"


def test_deletions_and_restorations(lab: Any, stack: Any) -> None:
    def delete(root: str) -> None:
        os.unlink(f"{root}/d/b")
        shutil.rmtree(f"{root}/d/e")

    def restore(root: str) -> None:
        _file(f"{root}/d/b", "back")

    packed = stack.edit(delete)
    assert _names(stack, packed) == [".", "d", "d/.wh.b", "d/.wh.e"]
    stack.edit(restore)
    for name in ("overlay2", "vfs"):
        view = lab.rebuilt(stack, name).view()
        assert view["d/b"][5] == b"back"
        assert "d/e" not in view
        assert "d/e/f" not in view


def test_the_roots_time_alone_is_no_difference(stack: Any) -> None:
    """``RUN touch /x && rm /x`` leaves another time on the root directory and nothing else."""
    packed = stack.edit(lambda root: os.utime(root, (T0 + 5, T0 + 5)))
    assert packed.empty


def test_the_roots_mode_is_a_difference(stack: Any) -> None:
    packed = stack.edit(lambda root: os.chmod(root, 0o711))
    assert not packed.empty
    assert _names(stack, packed) == ["."]


def test_what_is_made_and_deleted_leaves_nothing(stack: Any) -> None:
    def edit(root: str) -> None:
        _file(f"{root}/d/new")
        os.unlink(f"{root}/d/new")
        _dir(f"{root}/d/dir")
        os.rmdir(f"{root}/d/dir")
        os.utime(f"{root}/d", (T0, T0))

    assert stack.edit(edit).empty


def test_the_opaque_mark_comes_first(stack: Any) -> None:
    if stack.driver.name == "vfs":
        pytest.skip("vfs compares whole trees and writes each deletion by name")

    def edit(root: str) -> None:
        shutil.rmtree(f"{root}/d")
        _dir(f"{root}/d")
        _file(f"{root}/d/+")

    packed = stack.edit(edit)
    assert _names(stack, packed) == [".", "d", "d/.wh..wh..opq", "d/+"]


def test_a_socket_in_the_place_of_something_deletes_it(lab: Any, stack: Any) -> None:
    """A layer holds no sockets, but what was there before it is gone all the same."""

    def edit(root: str) -> None:
        os.unlink(f"{root}/one")
        shutil.rmtree(f"{root}/d")
        for name in ("one", "d", "fresh"):
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(f"{root}/{name}")

    packed = stack.edit(edit)
    assert _names(stack, packed) == [".", ".wh.d", ".wh.one"]
    for made in (stack, lab.rebuilt(stack)):
        assert list(made.view()) == ["", "s"]


def test_a_change_far_down_keeps_every_directory_on_the_way(lab: Any) -> None:
    """Deeper than the walk keeps directories open; what lies beside the way stays out."""
    stack = lab.stack()
    deep = "/".join(["d"] * 130)

    def base(root: str) -> None:
        path = root
        for _ in range(130):
            path += "/d"
            _dir(path)
            _file(f"{path}/beside")

    stack.edit(base)
    writable = stack.prepared()
    with stack.mounted(writable) as root:
        _file(f"{root}/{deep}/beside", "other")
        os.utime(f"{root}/{deep}", (T0, T0))
    _, tar = stack.pack(writable)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        names = archive.getnames()
    ways = [deep[: 2 * count - 1] for count in range(1, 131)]
    assert names == [".", *ways, f"{deep}/beside"]


def test_what_vanishes_while_it_is_listed_is_no_change(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running container's changes are listed, and it removes one between the names and a look at it."""
    stack = lab.stack()
    stack.edit(_base)
    writable = stack.prepared()
    with stack.mounted(writable) as root:
        _file(f"{root}/new1")
        _file(f"{root}/new2")
    gone = f"{stack.tree_of(writable)}/new1"
    scandir = os.scandir

    def removing(fd: int) -> Any:
        entries = scandir(fd)
        listed = list(entries)
        entries.close()
        if os.path.exists(gone):
            os.unlink(gone)
        return contextlib.nullcontext(listed)

    monkeypatch.setattr(os, "scandir", removing)
    assert [change.path for change in stack.driver.changes(stack.diff_ids, writable)] == ["/new2"]


def test_a_disk_that_fails_in_the_middle_leaves_nothing_open(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far down in a tree; what the tests' process has open is counted after each test."""
    stack = lab.stack()
    stack.edit(_base)
    writable = stack.prepared()
    with stack.mounted(writable) as root:
        os.makedirs(f"{root}/a/b/c/d")
    inode = os.stat(f"{stack.tree_of(writable)}/a/b/c").st_ino
    scandir = os.scandir

    def failing(fd: int) -> Any:
        if os.fstat(fd).st_ino == inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return scandir(fd)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", failing)
        with pytest.raises(OSError, match="Input/output error"):
            stack.pack(writable)
    assert not stack.pack(writable)[0].empty
