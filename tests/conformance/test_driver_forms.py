"""Which form layers take: what the kernel can, what is asked for, and what a layer itself demands."""

from __future__ import annotations

import errno
import io
import os
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock.drivers import forms
from minidock.drivers.packed import Sealed
from minidock.drivers.registry import open_driver
from minidock.drivers.tarballs import Tars
from minidock.drivers.verify import Flaw
from minidock.errors import DriverError
from minidock.kernel import erofs, overlay
from minidock.kernel.pinned import Pinned
from minidock.model.steps import LayerMount


@pytest.fixture
def tars(tmp_path: Path, mounts_tarballs: str) -> Iterator[Callable[..., Tars]]:
    """Places for tarballs; each call has a new folder for what a reboot loses."""
    if mounts_tarballs:
        pytest.skip(f"layers cannot be mounted from their tarballs: {mounts_tarballs}")
    runs: list[Path] = []

    def make(form: str = "auto", *, loop: bool = False) -> Tars:
        runs.append(tmp_path / f"run{len(runs)}")
        runs[-1].mkdir()
        (tmp_path / "blobs").mkdir(exist_ok=True)
        return Tars(str(tmp_path / "blobs"), str(runs[-1]), form, loop)

    yield make
    for run in runs:
        pin = Pinned(f"{run}/layers")
        with pin.lock():
            pin.unpin()


def refuse(number: int) -> Callable[..., Any]:
    def refused(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return refused


def test_the_kernel_is_asked_once_a_boot(tars: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert forms.choose(tars(), str(tmp_path)) == ("tarball", "file-backed EROFS mounts")
    this_boot = tars()
    with monkeypatch.context() as patched:
        patched.setattr(erofs, "mount", refuse(errno.ENOTBLK))
        name, why = forms.choose(this_boot, str(tmp_path))
        assert (name, "no EROFS image from a file" in why) == ("tree", True)
    assert forms.choose(this_boot, str(tmp_path)).name == "tree"
    assert forms.choose(tars(), str(tmp_path)).name == "tarball"
    assert [path for path in os.listdir(tmp_path) if path.startswith("probe")] == []


def test_an_overlay_that_takes_no_such_layer(tars: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "overlay", refuse(errno.EINVAL))
    assert "overlayfs takes no mount" in forms.choose(tars(), str(tmp_path)).why


def test_a_file_system_without_nameless_files(tars: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms.trees, "link_file", refuse(errno.EOPNOTSUPP))
    assert "no files without a name" in forms.choose(tars(), str(tmp_path)).why


def test_a_full_disk_is_not_remembered(tars: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    this_boot = tars()
    with monkeypatch.context() as patched:
        patched.setattr(forms.trees, "link_file", refuse(errno.ENOSPC))
        assert forms.choose(this_boot, str(tmp_path)) == ("tree", "it could not be tried out: No space left on device")
    assert forms.choose(this_boot, str(tmp_path)).name == "tarball"


def test_what_is_asked_for(tars: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert forms.choose(tars("tree"), str(tmp_path)) == ("tree", "asked for")
    assert forms.choose(tars("tarball"), str(tmp_path)).name == "tarball"
    with pytest.raises(DriverError, match="no form of layers 'tar'") as caught:
        forms.choose(tars("tar"), str(tmp_path))
    assert "auto, tarball, tree" in caught.value.hint
    monkeypatch.setattr(erofs, "mount", refuse(errno.ENOTBLK))
    with pytest.raises(DriverError, match="cannot be mounted from their tarballs") as caught:
        forms.choose(tars("tarball"), str(tmp_path))
    assert "--layers tree" in caught.value.hint


def layer(*members: tuple[str, bytes, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, data in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(data) if kind == tarfile.REGTYPE else 0
            member.mode = 0o755
            if kind == tarfile.LNKTYPE:
                member.linkname = data.decode()
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def lowers(stack: Any) -> list[type]:
    return [type(lower) for lower in stack.driver.mounts(stack.diff_ids, None).lowers]


def test_a_layer_that_no_index_can_hold_is_unpacked(lab: Any, tmp_path: Path) -> None:
    """GNU tar's sparse entries, and a hard link into an earlier layer, beside a layer that is mounted."""
    if not lab.tarballs:
        pytest.skip("it is about layers that are mounted")
    stack = lab.stack()
    stack.unpack(layer((".", tarfile.DIRTYPE, b""), ("file", tarfile.REGTYPE, b"content")), "sha256:" + "1" * 64)
    stack.unpack(layer(("link", tarfile.LNKTYPE, b"file")), "sha256:" + "2" * 64)
    with (tmp_path / "sparse").open("wb") as file:
        file.write(b"head")
        file.truncate(1 << 20)
    command = ["tar", "-C", tmp_path, "--sparse", "--format=gnu", "-cf", "-", "sparse"]
    stack.unpack(subprocess.run(command, check=True, capture_output=True).stdout, "sha256:" + "3" * 64)
    assert lowers(stack) == [str, str, LayerMount]
    with stack.mounted(None) as root:
        assert Path(root, "link").read_bytes() == b"content"
        assert Path(root, "sparse").read_bytes() == b"head".ljust(1 << 20, b"\0")
    # A layer above both kinds is mounted again.
    stack.edit(lambda root: Path(root, "file").unlink())
    assert lowers(stack) == [LayerMount, str, str, LayerMount]
    assert sorted(stack.view()) == ["", "link", "sparse"]


def test_a_step_whose_layer_no_index_can_hold_becomes_a_tree(lab: Any) -> None:
    """A file capability of a user namespace, which the kernel converts: the upper directory itself is the layer, as it
    would be unpacked."""
    if not lab.tarballs:
        pytest.skip("it is about layers that are mounted")
    capability = struct.pack("<6I", 0x03000001, 1 << 10, 0, 0, 0, 1000)

    def edit(root: str) -> None:
        Path(root, "program").write_bytes(b"program")
        os.setxattr(f"{root}/program", "security.capability", capability)

    stack = lab.stack()
    stack.edit(lambda root: Path(root, "file").write_bytes(b"below"))
    packed = stack.edit(edit)
    assert packed.sealed is None
    assert "file capability" in packed.problem
    assert lowers(stack) == [str, LayerMount]
    view = stack.view()
    assert view["program"][6] == {"security.capability": capability}
    assert view["program"][3] % 10**9 == 0
    assert lab.rebuilt(stack).view() == view


def test_without_tarballs_nothing_is_kept_of_them(lab: Any) -> None:
    """Drivers of trees alone give out no index, and have no mounts to let go of."""
    if lab.tarballs:
        pytest.skip("it is about layers that are trees")
    stack = lab.stack()
    packed = stack.edit(lambda root: Path(root, "file").write_bytes(b"content"))
    assert packed.sealed is None
    assert stack.driver.share(stack.diff_ids) is False
    stack.driver.rest((), seconds=-60)
    for context in (stack.driver.indexer(stack.diff_ids), stack.driver.compose(stack.diff_ids, io.BytesIO())):
        with context as given:
            assert given is None
    # A flaw of a form that it does not have, and one of a tree that is whole by now.
    (key,) = stack.driver.keys()
    for form in ("tarball", "tree"):
        stack.driver.discard(Flaw(key, form, "was seen"))
    assert stack.driver.has(stack.diff_ids)
    assert stack.view()["file"][5] == b"content"
    with pytest.raises((NotImplementedError, AssertionError)):
        stack.driver.publish(stack.diff_ids, Sealed(b"", True), tar="/dev/null")


def test_loop_devices_where_they_are_allowed(tars: Any, tmp_path: Path) -> None:
    if not os.path.exists("/dev/loop-control"):
        pytest.skip("this host has no loop devices")
    wanted = tars(loop=True)
    for name in ("layers", "tmp"):
        (tmp_path / name).mkdir()
    driver = open_driver("overlay2", str(tmp_path / "layers"), str(tmp_path / "tmp"), tars=wanted)
    if driver.form.name == "tree":
        pytest.skip(f"loop devices do not serve here: {driver.form.why}")
    assert driver.form == ("tarball", "loop devices")
    (tmp_path / "writable").mkdir()
    driver.prepare((), str(tmp_path / "writable"))
    (tmp_path / "writable/upper/file").write_text("through a loop device")
    tar = tmp_path / "tar"
    with tar.open("xb", buffering=0) as out:
        packed = driver.pack((), str(tmp_path / "writable"), out)
    driver.adopt((packed.diff_id,), str(tmp_path / "writable"), packed, tar=str(tar))
    tar.rename(f"{wanted.blobs}/{packed.diff_id.removeprefix('sha256:')}")
    with driver._view((packed.diff_id,)) as view:
        assert Path(f"/proc/self/fd/{view}/file").read_text() == "through a loop device"
    for key in list(driver.keys()):
        driver.remove(key)
