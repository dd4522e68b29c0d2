from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from minidock.engine import busybox
from minidock.errors import HostError


def elf(*types: int, wide: bool = True) -> bytes:
    """An ELF header whose program header table has entries of these types."""
    size = 56 if wide else 32
    head = bytearray(64)
    head[:6] = b"\x7fELF" + bytes([2 if wide else 1, 1])
    if wide:
        struct.pack_into("<Q", head, 32, 64)
        struct.pack_into("<HH", head, 54, size, len(types))
    else:
        struct.pack_into("<I", head, 28, 64)
        struct.pack_into("<HH", head, 42, size, len(types))
    return bytes(head) + b"".join(struct.pack("<I", kind).ljust(size, b"\0") for kind in types)


@pytest.mark.parametrize("wide", [True, False])
def test_a_program_is_static_when_it_asks_for_no_interpreter(tmp_path: Path, wide: bool) -> None:
    path = tmp_path / "program"
    path.write_bytes(elf(1, 1, 0x6474E551, wide=wide))
    assert busybox.is_static(str(path))
    path.write_bytes(elf(6, 3, 1, wide=wide))
    assert not busybox.is_static(str(path))


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n" * 10, elf(1)[:40]])
def test_what_is_no_program_is_not_static(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "program").write_bytes(data)
    assert not busybox.is_static(str(tmp_path / "program"))


def test_the_static_one_is_found(tmp_path: Path) -> None:
    (tmp_path / "dynamic").write_bytes(elf(3))
    (tmp_path / "static").write_bytes(elf(1))
    paths = [str(tmp_path / name) for name in ("absent", "dynamic", "static")]
    assert busybox.find_busybox(paths) == paths[2]
    with pytest.raises(HostError, match="needs the host's libraries") as caught:
        busybox.find_busybox(paths[:2])
    assert "busybox-static" in caught.value.hint
    with pytest.raises(HostError, match="no busybox is on this host") as caught:
        busybox.find_busybox(paths[:1])
    assert "busybox-static" in caught.value.hint


def script(tmp_path: Path, text: str) -> str:
    path = tmp_path / "busybox"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_applets_are_sorted_and_only_names(tmp_path: Path) -> None:
    path = script(tmp_path, "printf 'sh\\nls\\n[\\n[[\\n../evil\\n.\\nbusybox\\nls\\n'")
    assert busybox.applets(path) == ["[", "[[", "ls", "sh"]


@pytest.mark.parametrize(("text", "said"), [("exit 1", "cannot run"), ("echo ls", "has no shell")])
def test_a_busybox_that_does_not_work(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(HostError, match=said):
        busybox.applets(script(tmp_path, text))


def test_a_busybox_that_is_no_program(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot run"):
        busybox.applets(str(tmp_path))


def write(path: str) -> bytes:
    out = io.BytesIO()
    busybox.write_tar(out, busybox=path, names=["[", "ls", "sh"], mtime=1_700_000_000)
    return out.getvalue()


def test_the_tarball_is_the_same_every_time_and_has_what_a_system_needs(tmp_path: Path) -> None:
    path = script(tmp_path, "echo hello")
    data = write(path)
    os.utime(path, (1, 1))
    assert write(path) == data
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: member for member in tar.getmembers()}
        assert all(member.mtime == 1_700_000_000 for member in members.values())
        assert all((member.uid, member.gid) == (0, 0) for member in members.values())
        assert stat.S_IMODE(members["tmp"].mode) == 0o1777
        assert stat.S_IMODE(members["root"].mode) == 0o700
        for name in ("bin/[", "bin/ls", "bin/sh"):
            assert members[name].islnk()
            assert members[name].linkname == "bin/busybox"
        program = tar.extractfile("bin/busybox")
        assert program is not None
        assert b"echo hello" in program.read()
        passwd = tar.extractfile("etc/passwd")
        assert passwd is not None
        assert passwd.read().startswith(b"root:x:0:0:root:/root:/bin/sh\n")
        assert members["usr/bin/env"].linkname == "../../bin/env"
        assert {"dev", "proc", "sys", "var/log", "etc/group", "home", "run"} <= set(members)


def test_the_tarball_of_the_hosts_busybox_unpacks_to_a_working_one(tmp_path: Path) -> None:
    try:
        path = busybox.find_busybox()
    except HostError as error:
        pytest.skip(str(error))
    with open(tmp_path / "image.tar", "wb") as out:
        busybox.write_tar(out, busybox=path, names=busybox.applets(path), mtime=0)
    subprocess.run(["tar", "-C", tmp_path, "-xf", tmp_path / "image.tar", "bin"], check=True)
    done = subprocess.run([tmp_path / "bin" / "echo", "it", "works"], capture_output=True, text=True, check=True)
    assert done.stdout == "it works\n"
    assert os.stat(tmp_path / "bin" / "sh").st_ino == os.stat(tmp_path / "bin" / "busybox").st_ino
