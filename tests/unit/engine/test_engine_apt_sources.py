from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from minidock.engine import apt_sources
from minidock.engine.apt_sources import Source

ONE_LINE = """\
# deb http://commented.example bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian.gpg] http://deb.example/debian bookworm main contrib # why
deb-src http://deb.example/debian bookworm main
deb http://deb.example/debian-security bookworm-security main
deb https://vendor.example cloud-bookworm main
nonsense
"""
DEB822 = """\
# one
Types: deb deb-src
URIs: http://a.example/debian http://b.example/debian
Suites: bookworm bookworm-updates
Components: main
 contrib
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb
URIs: http://off.example
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://source.example
Suites: bookworm

Types: deb
URIs: http://key.example
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 mQ
"""


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(ONE_LINE)
    (tmp_path / "sources.list.d" / "z.sources").write_text(DEB822)
    (tmp_path / "sources.list.d" / "a.list").write_text("deb http://first.example sid main\n")
    (tmp_path / "sources.list.d" / "x.list.disabled").write_text("deb http://never.example sid main\n")
    return tmp_path


def test_both_formats_are_read_in_apts_order(apt: Path) -> None:
    keyring = "/usr/share/keyrings/debian.gpg"
    assert apt_sources.read_sources(str(apt)) == [
        Source("http://deb.example/debian", "bookworm", ("main", "contrib"), keyring),
        Source("http://deb.example/debian-security", "bookworm-security", ("main",)),
        Source("https://vendor.example", "cloud-bookworm", ("main",)),
        Source("http://first.example", "sid", ("main",)),
        Source("http://a.example/debian", "bookworm", ("main", "contrib"), keyring),
        Source("http://a.example/debian", "bookworm-updates", ("main", "contrib"), keyring),
        Source("http://b.example/debian", "bookworm", ("main", "contrib"), keyring),
        Source("http://b.example/debian", "bookworm-updates", ("main", "contrib"), keyring),
        Source("http://key.example", "bookworm", ("main",)),
    ]


def test_a_source_as_a_line() -> None:
    assert (
        Source("http://x", "sid", ("main", "contrib"), "/k.gpg").line()
        == "deb [signed-by=/k.gpg] http://x sid main contrib"
    )
    assert Source("http://x", "sid", ("main",)).line() == "deb http://x sid main"


def test_no_sources_at_all(tmp_path: Path) -> None:
    assert apt_sources.read_sources(str(tmp_path / "absent")) == []


SOURCES = [
    Source("http://d", "bookworm", ("main",)),
    Source("http://d", "bookworm-updates", ("main",)),
    Source("http://s", "bookworm-security", ("main",)),
    Source("http://v", "cloud-bookworm", ("main",)),
    Source("http://n", "nodistro", ("main",)),
    Source("http://d", "bookworm", ("main",)),
]


def test_the_hosts_own_suite_leaves_strangers_out() -> None:
    chosen = apt_sources.sources_for("bookworm", host_suite="bookworm", sources=SOURCES)
    assert chosen == SOURCES[:3]


def test_another_suite_takes_the_same_archives() -> None:
    chosen = apt_sources.sources_for("trixie", host_suite="bookworm", sources=SOURCES)
    assert [source.suite for source in chosen] == ["trixie", "trixie-updates", "trixie-security"]
    assert [source.suite for source in apt_sources.sources_for("sid", host_suite="bookworm", sources=SOURCES)] == [
        "sid"
    ]


def test_a_host_that_is_no_debian_has_none() -> None:
    assert apt_sources.sources_for("bookworm", host_suite="", sources=SOURCES) == []


def test_os_release(tmp_path: Path) -> None:
    path = tmp_path / "os-release"
    path.write_text("# c\nID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_CODENAME='bookworm'\n\n")
    assert apt_sources.host_release(str(path)) == {
        "ID": "debian",
        "PRETTY_NAME": "Debian GNU/Linux 12",
        "VERSION_CODENAME": "bookworm",
    }
    assert apt_sources.host_release(str(tmp_path / "absent")) == {}


def test_the_archives_time_is_that_of_its_newest_release_file(tmp_path: Path) -> None:
    for name, date in (
        ("x_dists_bookworm_InRelease", "Sat, 11 Jul 2020 10:16:37 UTC"),
        ("x_dists_bookworm-security_Release", "Sun, 12 Jul 2020 10:16:37 UTC"),
        ("x_dists_sid_InRelease", "Mon, 13 Jul 2020 10:16:37 UTC"),
        ("x_dists_bookworm_main_Packages", "Tue, 14 Jul 2020 10:16:37 UTC"),
        ("y_dists_bookworm_Release", "some day"),
    ):
        (tmp_path / name).write_text(f"Origin: Debian\nDate: {date}\nSuite: x\n")
    (tmp_path / "z_dists_bookworm_Release").write_text("Origin: Debian\n")
    os.symlink("nowhere", tmp_path / "w_dists_bookworm_Release")
    assert apt_sources.archive_time("bookworm", lists=str(tmp_path)) == 1594548997


def test_without_lists_the_time_is_now(tmp_path: Path) -> None:
    before = int(time.time())
    for lists in (tmp_path, tmp_path / "absent"):
        assert before <= apt_sources.archive_time("bookworm", lists=str(lists)) <= time.time()
