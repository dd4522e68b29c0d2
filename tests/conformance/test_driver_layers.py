"""The life of layers: made, shared, found torn, made again, removed."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from pathlib import Path
from typing import Any

import pytest

from minidock.errors import ArchiveError
from minidock.kernel.lowers import close_lowers, open_lowers
from minidock.model.digest import chain_id, digest_of
from minidock.model.steps import OverlayMount, TreeMount

T0 = 1_500_000_000


def _write(path: str, data: str = "x") -> None:
    with open(path, "w") as file:
        file.write(data)


def _tar(*members: tuple[str, dict[str, Any], bytes]) -> tuple[bytes, str]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, fields, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mtime = T0
            for key, value in fields.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue(), digest_of(out.getvalue())


DIR = {"type": tarfile.DIRTYPE, "mode": 0o755}


def test_no_layers_at_all(lab: Any) -> None:
    stack = lab.stack()
    assert stack.driver.has(())
    assert stack.driver.usage(()) == 0
    assert list(stack.view()) == [""]
    writable = stack.prepared()
    packed, tar = stack.pack(writable)
    assert packed.empty
    assert tar == bytes(1024)


def test_the_root_looks_as_it_does_beneath(lab: Any) -> None:
    stack = lab.stack()

    def change(root: str) -> None:
        os.setxattr(root, "user.root", b"yes")
        os.chown(root, 5, 6)
        os.chmod(root, 0o1755)
        os.utime(root, (T0, T0))

    stack.edit(change)
    with stack.mounted(stack.prepared()) as root:
        seen = lab.snapshot(root, marks=False)[""]
    assert seen[0] & 0o7777 == 0o1755
    assert seen[1:4] == (5, 6, T0 * 10**9)
    assert seen[6] == {"user.root": b"yes"}


def test_mounts_are_returned_not_made(lab: Any) -> None:
    stack = lab.stack()
    stack.edit(lambda root: _write(f"{root}/a"))
    stack.edit(lambda root: _write(f"{root}/b"))
    writable = stack.prepared()
    read_only, writing = stack.driver.mounts(stack.diff_ids, None), stack.driver.mounts(stack.diff_ids, writable)
    if isinstance(writing, OverlayMount):
        assert (writing.upper, writing.work) == (f"{writable}/upper", f"{writable}/work")
        assert writing.lowers == read_only.lowers
        lowers = open_lowers(writing.lowers)
        paths = [lower if isinstance(lower, str) else f"/proc/self/fd/{lower}" for lower in lowers]
        assert [os.listdir(path) for path in paths] == [["b"], ["a"]]
        close_lowers(lowers)
    else:
        assert writing == TreeMount(f"{writable}/tree")
        assert read_only.read_only
    with stack.mounted(None) as root, pytest.raises(OSError, match="Read-only"):
        _write(f"{root}/c")


def test_a_missing_layer_is_named(lab: Any) -> None:
    stack = lab.stack()
    missing = digest_of(b"nothing")
    assert not stack.driver.has((missing,))
    assert stack.driver.usage((missing,)) == 0
    with pytest.raises(FileNotFoundError, match=missing):
        stack.driver.mounts((missing,), None)


def test_equal_layers_of_two_images_are_one(lab: Any) -> None:
    """A layer whose tar holds its own parents is one tree for all chains, where layers are not whole copies."""
    stack = lab.stack()
    one, one_id = _tar(("./", DIR, b""), ("a", {}, b"1"))
    two, two_id = _tar(("./", DIR, b""), ("b", {}, b"2"))
    top, top_id = _tar(("./", DIR, b""), ("d", DIR, b""), ("d/x", {}, b"x"))
    stack.unpack(one, one_id)
    stack.unpack(top, top_id)
    stack.diff_ids = ()
    stack.unpack(two, two_id)
    assert stack.driver.has((two_id, top_id)) is (stack.driver.name == "overlay2")
    if stack.driver.name == "overlay2":
        assert sorted(stack.driver.keys()) == sorted(d[7:] for d in (one_id, two_id, top_id))


def test_a_layer_without_its_parents_takes_them_from_beneath(lab: Any) -> None:
    stack = lab.stack()
    base, base_id = _tar(
        ("./", DIR | {"mode": 0o700}, b""),
        ("d", DIR | {"mode": 0o2711, "uid": 7, "gid": 8, "pax_headers": {"SCHILY.xattr.user.k": "v"}}, b""),
        ("link", {"type": tarfile.SYMTYPE, "linkname": "/d"}, b""),
    )
    top, top_id = _tar(("d/x", {}, b"x"), ("link/y", {}, b"y"), ("new/z", {}, b"z"))
    stack.unpack(base, base_id)
    stack.unpack(top, top_id)
    view = stack.view(marks=False)
    assert view[""][0] & 0o7777 == 0o700
    assert (view["d"][0] & 0o7777, *view["d"][1:4]) == (0o2711, 7, 8, T0 * 10**9)
    assert view["d"][6] == {"user.k": b"v"}
    assert view["d/y"][5] == b"y"
    assert view["link"][5] == "/d"
    assert (view["new"][0] & 0o7777, *view["new"][1:4]) == (0o755, 0, 0, 0)
    assert chain_id((base_id, top_id))[7:] in set(stack.driver.keys())
    assert not stack.driver.has((top_id,))


def test_a_hard_link_into_an_earlier_layer(lab: Any) -> None:
    stack = lab.stack()
    base, base_id = _tar(("./", DIR, b""), ("d", DIR, b""), ("d/file", {"mode": 0o640, "uid": 3}, b"data"))
    top, top_id = _tar(("again", {"type": tarfile.LNKTYPE, "linkname": "d/file"}, b""))
    stack.unpack(base, base_id)
    stack.unpack(top, top_id)
    view = stack.view(marks=False)
    assert view["again"][:7] == view["d/file"][:7]
    assert view["again"][-1] == view["d/file"][-1] == "again"


def test_whiteouts_and_what_comes_after_them(lab: Any) -> None:
    stack = lab.stack()
    names = ("gone", "file", "dir", "flip")
    base, base_id = _tar(
        ("./", DIR, b""),
        *((name, DIR, b"") for name in names),
        *((f"{name}/old", {}, b"old") for name in names),
    )
    top, top_id = _tar(
        (".wh.gone", {}, b""),
        (".wh.file", {}, b""),
        ("file", {}, b"new"),
        ("dir", DIR, b""),
        ("dir/new", {}, b"new"),
        (".wh.dir", {}, b""),
        ("flip", {}, b"a file"),
        ("flip", DIR, b""),
        (".wh.never", {}, b""),
        (".wh..wh.aufs", {}, b""),
        (".wh..wh.plnk/1", {}, b""),
    )
    stack.unpack(base, base_id)
    stack.unpack(top, top_id)
    view = stack.view(marks=False)
    assert sorted(view) == ["", "dir", "dir/new", "file", "flip"]
    assert view["file"][5] == b"new"


def test_opaque_marks_wherever_they_stand(lab: Any) -> None:
    stack = lab.stack()
    base, base_id = _tar(
        ("./", DIR, b""), ("d", DIR, b""), ("d/old", {}, b""), ("keep", {}, b""), ("e", DIR, b""), ("e/old", {}, b"")
    )
    middle, middle_id = _tar(("d/new", {}, b""), ("d/.wh..wh..opq", {}, b""))
    top, top_id = _tar(("e/new", {}, b""), (".wh..wh..opq", {}, b""))
    stack.unpack(base, base_id)
    stack.unpack(middle, middle_id)
    assert sorted(stack.view()) == ["", "d", "d/new", "e", "e/old", "keep"]
    stack.unpack(top, top_id)
    assert sorted(stack.view()) == ["", "e", "e/new"]


@pytest.fixture
def trees(lab: Any) -> Any:
    """The laboratory, where layers are trees."""
    if lab.tarballs:
        pytest.skip("it is about trees on disk")
    return lab


def _state_file(stack: Any) -> str:
    (key,) = stack.driver.keys()
    return f"{stack.driver.directory}/{key}/state"


def test_a_damaged_index_is_made_again(lab: Any) -> None:
    if not lab.tarballs:
        pytest.skip("trees have no index")
    stack = lab.stack()
    packed = stack.edit(lambda root: _write(f"{root}/a", "whole"))
    (index,) = Path(stack.folder).parent.glob("layers/tarball/*.idx")
    data = index.read_bytes()
    for damaged in (b"", data[:-1], data[:1100] + b"?" + data[1101:], bytes(len(data))):
        lab.unpin()
        index.unlink()
        index.write_bytes(damaged)
        assert not stack.driver.has(stack.diff_ids)
        stack.diff_ids = ()
        stack.unpack(stack.tars[packed.diff_id], packed.diff_id)
        assert index.read_bytes() == data
        assert stack.view()["a"][5] == b"whole"


def test_a_torn_tree_of_an_earlier_boot_is_made_again(trees: Any) -> None:
    lab = trees
    stack = lab.stack()
    packed = stack.edit(lambda root: _write(f"{root}/a", "whole"))
    tree = stack.driver.mounts(stack.diff_ids, None)
    path = tree.lowers[0] if isinstance(tree, OverlayMount) else tree.path
    _write(f"{path}/a", "torn")
    for state in ("another-boot\n", ""):
        _write(_state_file(stack), state)
        assert not stack.driver.has(stack.diff_ids)
    stack.driver.unpack(stack.diff_ids, io.BytesIO(stack.tars[packed.diff_id]), stack.new_folder())
    assert stack.driver.has(stack.diff_ids)
    assert stack.view()["a"][5] == b"whole"


def test_a_settled_tree_outlives_the_boot(trees: Any) -> None:
    stack = trees.stack()
    stack.driver.settle()
    stack.edit(lambda root: _write(f"{root}/a"))
    stack.driver.settle()
    with open(_state_file(stack)) as file:
        assert file.read() == "synced\n"
    assert stack.driver.has(stack.diff_ids)
    stack.driver.settle()


def test_a_layer_that_is_there_stays(trees: Any) -> None:
    stack = trees.stack()
    packed = stack.edit(lambda root: _write(f"{root}/a"))
    inode = os.stat(_state_file(stack)).st_ino
    stack.driver.unpack(stack.diff_ids, io.BytesIO(stack.tars[packed.diff_id]), stack.new_folder())
    assert os.stat(_state_file(stack)).st_ino == inode


def test_removal(lab: Any) -> None:
    stack = lab.stack()
    stack.edit(lambda root: [os.makedirs(f"{root}/{'d/' * 700}"), _write(f"{root}/a", "x" * 9000)])
    # An index has an inode of 64 bytes and a name for each directory, and nothing of the file's content.
    least = 700 * 64 if lab.tarballs else 9000 + 700 * 1024
    assert stack.driver.usage(stack.diff_ids) > least
    (key,) = stack.driver.keys()
    stack.driver.remove(key)
    assert stack.driver.keys() == []
    assert not stack.driver.has(stack.diff_ids)
    stack.driver.remove(key)
    with pytest.raises(ValueError, match="not the name of a layer"):
        stack.driver.remove("../../etc")


def test_changes_as_diff_tells_them(lab: Any) -> None:
    stack = lab.stack()
    stack.edit(
        lambda root: [os.mkdir(f"{root}/d"), _write(f"{root}/d/old"), _write(f"{root}/d/del"), _write(f"{root}/e")]
    )
    writable = stack.prepared()
    with stack.mounted(writable) as root:
        _write(f"{root}/d/new")
        os.unlink(f"{root}/d/del")
        os.chmod(f"{root}/e", 0o600)
        os.chmod(f"{root}/d/old", 0o644)
        before = lab.snapshot(stack.tree_of(writable))
        found = [tuple(change) for change in stack.driver.changes(stack.diff_ids, writable)]
    assert found == [("C", "/d"), ("D", "/d/del"), ("A", "/d/new"), ("C", "/e")]
    assert lab.snapshot(stack.tree_of(writable)) == before


def test_sockets_are_dropped_and_their_directory_keeps_its_time(lab: Any) -> None:
    stack = lab.stack()

    def edit(root: str) -> None:
        os.mkdir(f"{root}/run")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"{root}/run/s")
        os.utime(f"{root}/run", (T0, T0))

    stack.edit(edit)
    view = stack.view()
    assert "run/s" not in view
    assert view["run"][3] == T0 * 10**9


def test_what_no_layer_can_hold_is_refused(lab: Any) -> None:
    stack = lab.stack()
    writable = stack.prepared()
    _write(f"{stack.tree_of(writable)}/.wh.x")
    with pytest.raises(ArchiveError, match=r"cannot hold the file '\.wh\.x'"):
        stack.pack(writable)
    if stack.driver.name == "vfs":
        writable = stack.prepared()
        os.mknod(f"{writable}/tree/x", 0o20600, 0)
        with pytest.raises(ArchiveError, match="character device 0:0"):
            stack.pack(writable)


def test_many_layers_mount(lab: Any) -> None:
    count = 130 if lab.name == "overlay2" else 5
    stack = lab.stack()
    for number in range(count):
        tar, diff_id = _tar(("./", DIR, b""), (f"f{number}", {}, b"x"))
        stack.unpack(tar, diff_id)
    assert len(stack.view()) == count + 1


def test_a_deletion_stays_with_the_layers_that_have_its_victim(lab: Any) -> None:
    """overlayfs lists a whiteout in a directory that merges with nothing: above other layers it must not be there."""
    stack = lab.stack()
    stack.edit(lambda root: [os.mkdir(f"{root}/d"), _write(f"{root}/d/victim")])
    packed = stack.edit(lambda root: os.unlink(f"{root}/d/victim"))
    assert packed.deletions == 1
    assert list(stack.view()) == ["", "d"]
    stack.diff_ids = ()
    other, other_id = _tar(("./", DIR, b""), ("x", {}, b""))
    stack.unpack(other, other_id)
    assert not stack.driver.has((other_id, packed.diff_id))
    stack.unpack(stack.tars[packed.diff_id], packed.diff_id)
    assert list(stack.view()) == ["", "d", "x"]


def test_a_deletion_in_a_directory_that_is_not_there(lab: Any) -> None:
    """It deletes nothing, beside one that does."""
    stack = lab.stack()
    for tar, diff_id in (
        _tar((".", DIR, b""), ("d", DIR, b""), ("d/file", {}, b"x"), ("d/other", {}, b"x")),
        _tar((".", DIR, b""), ("new/deep/.wh.child", {}, b""), ("d/.wh.file", {}, b"")),
    ):
        stack.unpack(tar, diff_id)
    assert {path for path in stack.view() if not path.startswith("new")} == {"", "d", "d/other"}
    assert "new/deep/child" not in stack.view()


def test_an_opaque_directory_that_is_not_there(lab: Any) -> None:
    stack = lab.stack()
    for tar, diff_id in (
        _tar((".", DIR, b""), ("d", DIR, b""), ("d/file", {}, b"x")),
        _tar((".", DIR, b""), ("new", DIR, b""), ("new/.wh..wh..opq", {}, b""), ("new/file", {}, b"x")),
    ):
        stack.unpack(tar, diff_id)
    assert set(stack.view()) == {"", "d", "d/file", "new", "new/file"}
