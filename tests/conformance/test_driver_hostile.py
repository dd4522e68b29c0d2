"""Layers that try to reach outside (SECURITY corpus, rows 23 to 37): nothing outside the tree ever changes."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import pytest

from minidock.errors import ArchiveError
from minidock.model.digest import digest_of

Member = tuple[str, dict[str, Any], bytes]
DIR = {"type": tarfile.DIRTYPE, "mode": 0o755}


def _symlink(target: str) -> dict[str, Any]:
    return {"type": tarfile.SYMTYPE, "linkname": target}


def _hard(target: str) -> dict[str, Any]:
    return {"type": tarfile.LNKTYPE, "linkname": target}


def _tar(*members: Member) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, fields, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for key, value in fields.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def sentinel(lab: Any, tmp_path: Any) -> Iterator[str]:
    """A tree outside that must look the same afterwards."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "shadow").write_text("secret")
    before = lab.snapshot(str(outside))
    etc = hashlib.sha256(repr(sorted(os.listdir("/etc"))).encode()).hexdigest()
    nlink = os.stat("/etc/passwd").st_nlink
    yield str(outside)
    assert lab.snapshot(str(outside)) == before
    assert hashlib.sha256(repr(sorted(os.listdir("/etc"))).encode()).hexdigest() == etc
    assert os.stat("/etc/passwd").st_nlink == nlink


def _unpack(lab: Any, *layers: tuple[Member, ...]) -> dict[str, tuple[Any, ...]]:
    stack = lab.stack()
    for members in layers:
        tar = _tar(*members)
        stack.unpack(tar, digest_of(tar))
    view: dict[str, tuple[Any, ...]] = stack.view(marks=False)
    return view


def _refused(lab: Any, match: str, *layers: tuple[Member, ...]) -> None:
    stack = lab.stack()
    *fine, bad = [_tar(*members) for members in layers]
    for tar in fine:
        stack.unpack(tar, digest_of(tar))
    with pytest.raises(ArchiveError, match=match):
        stack.unpack(bad, digest_of(bad))
    assert len(stack.driver.keys()) == len(layers) - 1


def test_absolute_names_lie_below_the_root(lab: Any, sentinel: str) -> None:
    view = _unpack(lab, ((f"/{sentinel}/shadow", {}, b"evil"), ("//etc//x/.", DIR, b"")))
    assert view[f"{sentinel}/shadow"[1:]][5] == b"evil"
    assert "etc/x" in view


@pytest.mark.parametrize("name", ["../x", "a/../../x", "..", "a/..", "/../x", "a/../b"])
def test_dots_are_refused(lab: Any, sentinel: str, name: str) -> None:
    _refused(lab, "reach outside", ((name, {}, b""),))


@pytest.mark.parametrize("target", ["/", "../../../../..", "{outside}", "loop/../{outside}"])
def test_writing_through_a_symbolic_link_stays_inside(lab: Any, sentinel: str, target: str) -> None:
    target = target.format(outside=sentinel)
    for layers in (
        ((("l", _symlink(target), b""), ("l/shadow", {}, b"evil"), ("l/d", DIR, b"")),),
        ((("l", _symlink(target), b""),), (("l/shadow", {}, b"evil"), ("l/d", DIR, b""))),
    ):
        view = _unpack(lab, *layers)
        written = [path for path, entry in view.items() if entry[5] == b"evil"]
        assert len(written) == 1
        assert written[0].endswith("shadow")


def test_relative_chains_of_links(lab: Any, sentinel: str) -> None:
    view = _unpack(
        lab,
        (
            ("a", DIR, b""),
            ("a/b", _symlink("../c"), b""),
            ("c", _symlink("d/../d"), b""),
            ("d", DIR, b""),
            ("a/b/file", {}, b"x"),
        ),
    )
    assert view["d/file"][5] == b"x"


def test_endless_links_are_refused(lab: Any, sentinel: str) -> None:
    _refused(lab, "too many symbolic links", (("a", _symlink("b"), b""), ("b", _symlink("a"), b""), ("a/x", {}, b"")))


def test_an_existing_link_is_replaced_not_followed(lab: Any, sentinel: str) -> None:
    view = _unpack(lab, (("x", _symlink(f"{sentinel}/shadow"), b""), ("x", {}, b"mine")))
    assert view["x"][5] == b"mine"
    view = _unpack(lab, (("x", _symlink(sentinel), b""), ("x", DIR, b""), ("x/shadow", {}, b"mine")))
    assert view["x/shadow"][5] == b"mine"


def test_a_replaced_link_is_no_longer_a_way(lab: Any, sentinel: str) -> None:
    view = _unpack(
        lab,
        (
            ("real", DIR, b""),
            ("l", _symlink("real"), b""),
            ("l/one", {}, b"1"),
            ("l", DIR, b""),
            ("l/two", {}, b"2"),
        ),
    )
    assert sorted(view) == ["", "l", "l/two", "real", "real/one"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "l/etc/passwd", "{outside}/shadow", "d", "h"])
def test_hard_links_never_lead_out(lab: Any, sentinel: str, target: str) -> None:
    target = target.format(outside=sentinel)
    _refused(
        lab,
        "hard link|hard-link",
        (("l", _symlink("/"), b""), ("d", DIR, b""), ("h", _hard(target), b"")),
    )


def test_a_hard_link_through_a_link_inside(lab: Any, sentinel: str) -> None:
    view = _unpack(
        lab,
        (
            ("etc", DIR, b""),
            ("etc/passwd", {}, b"image"),
            ("l", _symlink("/"), b""),
            ("h", _hard("l/etc/passwd"), b""),
            ("s", _symlink("/etc/passwd"), b""),
            ("hs", _hard("s"), b""),
        ),
    )
    assert view["h"][5] == b"image"
    assert view["hs"][5] == "/etc/passwd"


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh.", ".wh.a/b", ".wh.a/.wh..wh..opq"])
def test_meaningless_whiteouts_are_refused(lab: Any, sentinel: str, name: str) -> None:
    _refused(lab, "meaningless whiteout", ((name, {}, b""),))


def test_a_whiteout_under_a_link_deletes_from_layers_only(lab: Any, sentinel: str) -> None:
    name = os.path.basename(sentinel)
    view = _unpack(
        lab,
        (
            ("d", DIR, b""),
            ("d/victim", {}, b""),
            ("l", _symlink("/d"), b""),
            ("up", _symlink(f"/../{sentinel}"), b""),
        ),
        (("l/.wh.victim", {}, b""), (f"up/.wh.{name}", {}, b""), ("up/.wh.shadow", {}, b"")),
    )
    assert "d/victim" not in view
    assert "d" in view


def test_files_are_no_directories(lab: Any, sentinel: str) -> None:
    _refused(lab, "no directory", (("f", {}, b""), ("f/x", {}, b"")))
    _refused(lab, "no directory", (("f", {}, b""),), (("f/x", {}, b""),))


def test_the_last_of_several_wins(lab: Any, sentinel: str) -> None:
    flips = [
        ("x", {}, b"1"),
        ("x", DIR, b""),
        ("x/y", {}, b"2"),
        ("x", _symlink("z"), b""),
        ("x", {"mode": 0o600}, b"3"),
    ]
    view = _unpack(lab, tuple(flips))
    assert sorted(view) == ["", "x"]
    assert (view["x"][0] & 0o7777, view["x"][5]) == (0o600, b"3")
    view = _unpack(lab, (("x", DIR, b""), ("x/y", {}, b"2"), ("x", DIR | {"mode": 0o700}, b"")))
    assert view["x"][0] & 0o7777 == 0o700
    assert view["x/y"][5] == b"2"
    view = _unpack(lab, (("a", {}, b"1"), ("b", _hard("a"), b""), ("a", {}, b"2"), ("b", _hard("a"), b"")))
    assert view["a"][5] == view["b"][5] == b"2"


def test_device_zero_is_no_way_to_forge_a_deletion(lab: Any, sentinel: str) -> None:
    _refused(lab, "0:0", (("x", {"type": tarfile.CHRTYPE, "devmajor": 0, "devminor": 0}, b""),))


def test_devices_fifos_and_modes_are_made_not_opened(lab: Any, sentinel: str) -> None:
    view = _unpack(
        lab,
        (
            ("mem", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 1, "mode": 0o640, "gid": 9}, b""),
            ("disk", {"type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 0}, b""),
            ("pipe", {"type": tarfile.FIFOTYPE, "mode": 0o622}, b""),
            ("su", {"mode": 0o4755, "uid": 5, "gid": 6}, b"x"),
        ),
    )
    assert view["mem"][0] == 0o20640
    assert view["mem"][4] == os.makedev(1, 1)
    assert view["disk"][4] == os.makedev(8, 0)
    assert view["pipe"][0] == 0o10622
    assert (view["su"][0], view["su"][1:3]) == (0o104755, (5, 6))


def test_overlay_attributes_of_the_input_are_dropped(lab: Any, sentinel: str) -> None:
    capability = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    attributes = {
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.user.overlay.whiteout": "y",
        "SCHILY.xattr.user.mine": "kept",
        "SCHILY.xattr.com.apple.quarantine": "not ours",
    }
    view = _unpack(
        lab,
        (("d", DIR, b""), ("d/old", {}, b"")),
        (
            ("d", DIR | {"pax_headers": attributes}, b""),
            ("f", {"pax_headers": attributes | {"SCHILY.xattr.security.capability": capability}}, b""),
            ("s", _symlink("x") | {"pax_headers": attributes}, b""),
        ),
    )
    assert "d/old" in view
    assert view["d"][6] == {"user.mine": b"kept"}
    assert view["f"][6] == {"security.capability": capability.encode(), "user.mine": b"kept"}
    assert view["s"][6] == {}


def test_a_capability_that_cannot_be_set_is_an_error(lab: Any, sentinel: str) -> None:
    _refused(lab, "file capability", (("f", {"pax_headers": {"SCHILY.xattr.security.capability": "short"}}, b""),))


def test_deep_trees_and_long_names(lab: Any, sentinel: str) -> None:
    deep = "/".join(["d"] * 2000)
    view_depth = _unpack_only(lab, ((deep, DIR, b""), (f"{deep}/x", {}, b"")))
    assert view_depth == 1
    _refused(lab, "too long", (("/".join(["d"] * 10000), DIR, b""),))
    _refused(lab, "too long", (("n" * 5000, {}, b""),))
    _refused(lab, "too long", (("n" * 256, {}, b""),))


def _unpack_only(lab: Any, members: tuple[Member, ...]) -> int:
    """Unpack, remove; how many layers there were."""
    stack = lab.stack()
    tar = _tar(*members)
    stack.unpack(tar, digest_of(tar))
    keys = stack.driver.keys()
    for key in keys:
        stack.driver.remove(key)
    assert stack.driver.keys() == []
    return len(keys)


def test_unpacking_time_grows_with_the_layer_only(lab: Any, sentinel: str) -> None:
    """GHSA-rp3h-jf77-q9p4: many opaque marks and parents."""

    def seconds(count: int) -> float:
        members: list[Member] = []
        for number in range(count):
            members += [(f"p{number}/q/r/x", {}, b""), (f"p{number}/q/.wh..wh..opq", {}, b"")]
        tar = _tar(*members)
        stack = lab.stack()
        stack.unpack(_tar(("p0", DIR, b"")), digest_of(_tar(("p0", DIR, b""))))
        start = time.process_time()
        stack.unpack(tar, digest_of(tar))
        return time.process_time() - start

    small, large = seconds(200), seconds(1600)
    assert large < 8 * small * 3 + 1
