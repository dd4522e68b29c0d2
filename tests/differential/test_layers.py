"""The suite's own reader of layers, without which equal trees would prove nothing."""

from __future__ import annotations

import io
import tarfile

from tests.differential.layers import Tree, apply, read_layer, shown


def layer(*entries: tuple[str, bytes, str], xattrs: dict[str, str] | None = None) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, text in entries:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.gid = kind, 0o640, 1, 2
            member.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in (xattrs or {}).items()}
            content = text.encode() if kind == tarfile.REGTYPE else b""
            member.size = len(content)
            member.linkname = "" if content else text
            tar.addfile(member, io.BytesIO(content))
    stream.seek(0)
    return stream


def merged(*layers: io.BytesIO) -> dict[str, str]:
    tree: Tree = {}
    for stream in layers:
        apply(read_layer(stream), tree)
    return shown(tree)


FILE, FOLDER, LINK, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def test_every_kind_of_entry() -> None:
    found = merged(
        layer(("./d/", FOLDER, ""), ("d/f", FILE, "x\n"), ("d/l", LINK, "f"), ("d/h", HARD, "d/f")),
        layer(("c", FILE, "y"), xattrs={"user.note": "hi"}),
    )
    assert found == {
        "c": 'file 640 1:2 "y" user.note=6869',
        "d": "directory 640 1:2",
        "d/f": 'file 640 1:2 "x\\n"',
        "d/h": 'file 640 1:2 "x\\n" = d/f',
        "d/l": "link 1:2 -> f",
    }


def test_whiteouts_remove_what_is_beneath_alone() -> None:
    beneath = [("d", FOLDER, ""), ("d/a", FILE, "1"), ("d/e", FOLDER, ""), ("d/e/b", FILE, "2"), ("k", FILE, "3")]
    removed = layer(("d/new", FILE, "4"), ("d/.wh.e", FILE, ""))
    assert merged(layer(*beneath), removed).keys() == {"d", "d/a", "d/new", "k"}
    opaque = layer(("d", FOLDER, ""), ("d/new", FILE, "4"), ("d/.wh..wh..opq", FILE, ""))
    assert merged(layer(*beneath), opaque).keys() == {"d", "d/new", "k"}
    replaced = layer((".wh.d", FILE, ""), ("d", FILE, "5"))
    assert merged(layer(*beneath), replaced).keys() == {"d", "k"}


def test_a_file_replaces_a_directory_and_a_directory_a_file() -> None:
    assert merged(layer(("d", FOLDER, ""), ("d/a", FILE, "1")), layer(("d", LINK, "x"))).keys() == {"d"}
    assert merged(layer(("d", FILE, "1")), layer(("d", FOLDER, ""), ("d/a", FILE, "2"))).keys() == {"d", "d/a"}
    assert merged(layer(("d", FOLDER, ""), ("d/a", FILE, "1")), layer(("d", FOLDER, ""))).keys() == {"d", "d/a"}


def test_a_hard_link_to_a_file_of_a_layer_beneath() -> None:
    found = merged(layer(("a", FILE, "1")), layer(("b", HARD, "a")))
    assert found["b"] == 'file 640 1:2 "1" = a'
    assert merged(layer(("a", FILE, "1")), layer(("b", FILE, "1")))["b"] == 'file 640 1:2 "1"'
