from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from minidock.engine import debian
from minidock.errors import HostError


def tar_of(*members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, **values: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = 3 if kind == tarfile.REGTYPE else 0
    info.mtime = 5
    for key, value in values.items():
        setattr(info, key, value)
    return info


def cleaned(data: bytes) -> dict[str, tarfile.TarInfo]:
    out = io.BytesIO()
    debian.clean(io.BytesIO(data), out, mtime=9)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        return {info.name: info for info in tar.getmembers()}


def test_what_is_of_one_host_or_moment_goes_and_the_rest_stays_as_it_is() -> None:
    data = tar_of(
        member("./", tarfile.DIRTYPE, mode=0o755),
        member("./dev", tarfile.DIRTYPE),
        member("./dev/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("./etc/hostname"),
        member("./etc/resolv.conf"),
        member("./etc/machine-id"),
        member("./etc/shadow-"),
        member("./etc/shadow", mode=0o640, gid=42),
        member("./run/lock", tarfile.DIRTYPE, mode=0o1777),
        member("./run/x.pid"),
        member("./var/cache/apt/pkgcache.bin"),
        member("./var/cache/apt/archives/a.deb"),
        member("./var/cache/apt/archives", tarfile.DIRTYPE),
        member("./var/lib/apt/lists/x_InRelease"),
        member("./var/lib/apt/lists/partial", tarfile.DIRTYPE, uid=42),
        member("./var/lib/dpkg/status"),
        member("./var/lib/dpkg/status-old"),
        member("./var/log/dpkg.log"),
        member("./var/log/wtmp", mode=0o664),
        member("./bin", tarfile.SYMTYPE, linkname="usr/bin"),
        member("./usr/bin/perl", mode=0o755),
        member("./usr/bin/perl5", tarfile.LNKTYPE, linkname="./usr/bin/perl"),
    )
    kept = cleaned(data)
    assert set(kept) == {
        ".",
        "dev",
        "etc/shadow",
        "run/lock",
        "var/cache/apt/archives",
        "var/lib/apt/lists/partial",
        "var/lib/dpkg/status",
        "var/log/wtmp",
        "bin",
        "usr/bin/perl",
        "usr/bin/perl5",
        "usr/sbin/policy-rc.d",
        "etc/apt/apt.conf.d/container",
        "etc/dpkg/dpkg.cfg.d/container",
    }
    assert (kept["etc/shadow"].mode, kept["etc/shadow"].gid, kept["etc/shadow"].mtime) == (0o640, 42, 5)
    assert kept["usr/bin/perl5"].linkname == "usr/bin/perl"
    assert kept["usr/sbin/policy-rc.d"].mode == 0o755
    assert kept["usr/sbin/policy-rc.d"].mtime == 9


def test_a_system_without_dev_gets_an_empty_one() -> None:
    assert cleaned(tar_of(member("./etc/x")))["dev"].isdir()


def test_cleaning_gives_the_same_bytes_each_time() -> None:
    data = tar_of(member("./etc/x"))
    one, two = io.BytesIO(), io.BytesIO()
    debian.clean(io.BytesIO(data), one, mtime=9)
    debian.clean(io.BytesIO(data), two, mtime=9)
    assert one.getvalue() == two.getvalue()


def program(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mmdebstrap"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_mmdebstrap_is_called_with_suite_sources_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example")
    monkeypatch.setenv("SECRET_TOKEN", "not for others")
    told: list[str] = []
    path = program(tmp_path, 'echo "I: working" >&2; echo "$@" > "$4"; env >> "$4"')
    debian.make_tar(
        path, str(tmp_path / "out"), suite="sid", sources=["deb http://x sid main"], epoch=7, tell=told.append
    )
    written = (tmp_path / "out").read_text()
    assert written.startswith(f"--variant=minbase --format=tar sid {tmp_path}/out deb http://x sid main\n")
    assert "SOURCE_DATE_EPOCH=7\n" in written
    assert "http_proxy=http://proxy.example\n" in written
    assert "SECRET_TOKEN" not in written
    assert told == ["I: working"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('echo "E: no such suite" >&2; echo "I: removing" >&2; exit 3', "could not make Debian sid: no such suite"),
        ("echo odd >&2; exit 1", "could not make Debian sid: odd"),
        ("exit 1", "it said nothing"),
        ("kill -9 $$", "it said nothing"),
    ],
)
def test_a_failure_says_what_mmdebstrap_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(HostError, match=said):
        debian.make_tar(program(tmp_path, text), "/x", suite="sid", sources=[], epoch=0, tell=lambda _: None)


def test_an_interrupt_stops_mmdebstrap(tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    path = program(tmp_path, f"echo $$ > {tmp_path}/pid; echo go >&2; exec sleep 60")
    with pytest.raises(KeyboardInterrupt):
        debian.make_tar(path, "/x", suite="sid", sources=[], epoch=0, tell=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_host_without_mmdebstrap_is_told_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name, path: None if path else "")
    with pytest.raises(HostError, match="mmdebstrap is not on this host") as caught:
        debian.find_mmdebstrap()
    assert "apt-get install mmdebstrap" in caught.value.hint
    monkeypatch.setattr(shutil, "which", lambda name, path: f"/usr/bin/{name}" if "/usr/bin" in path else None)
    assert debian.find_mmdebstrap() == "/usr/bin/mmdebstrap"
