from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minidock.errors import NetworkError
from minidock.network import leases


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[str]:
    """The path of a lock file that somebody holds."""
    path = tmp_path / "lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield str(path)


def take(
    directory: Path, lock_path: str, *, prefix_len: int = 16, container_id: str = "0123456789abcdef"
) -> leases.Lease:
    return leases.take(
        str(directory),
        gateway="10.90.0.1",
        prefix_len=prefix_len,
        container_id="0123456789abcdef",
        root="/var/lib/minidock",
        lock_path=lock_path,
    )


def test_addresses_are_given_in_order_and_recorded(tmp_path: Path, lock: str) -> None:
    directory = tmp_path / "minidock0"
    first, second = take(directory, lock), take(directory, lock)
    assert (first.address, second.address) == ("10.90.0.2", "10.90.0.3")
    assert first.mac == "02:42:0a:5a:00:02"
    assert first.path == str(directory / "10.90.0.2")
    assert json.loads(Path(first.path).read_text()) == {
        "root": "/var/lib/minidock",
        "container": "0123456789abcdef",
        "lock": lock,
    }
    assert Path(first.path).stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700


def test_link_names_fit_and_differ(tmp_path: Path, lock: str) -> None:
    names = {take(tmp_path / "minidock0", lock).link for _ in range(20)}
    assert len(names) == 20, "the former link of a restarted container may still be dying"
    assert all(name.startswith("md01234567") and len(name) <= 15 for name in names)


def test_lease_is_free_when_its_owner_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert take(tmp_path / "minidock0", str(path)).address == "10.90.0.2"
        assert take(tmp_path / "minidock0", str(path)).address == "10.90.0.3"
    assert take(tmp_path / "minidock0", str(path)).address == "10.90.0.2"
    path.unlink()
    assert take(tmp_path / "minidock0", str(path)).address == "10.90.0.2", "a missing lock has no owner"


def test_gap_is_filled(tmp_path: Path, lock: str) -> None:
    directory = tmp_path / "minidock0"
    given = [take(directory, lock) for _ in range(12)]
    leases.release(given[9].path)
    leases.release(given[9].path)
    assert take(directory, lock).address == given[9].address


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"lock": 5}', b'{"lock": "/proc/1/nothing"}'])
def test_damaged_lease_is_free(tmp_path: Path, lock: str, content: bytes) -> None:
    directory = tmp_path / "minidock0"
    directory.mkdir()
    (directory / "10.90.0.2").write_bytes(content)
    assert take(directory, lock).address == "10.90.0.2"


def test_what_is_no_address_is_left_alone(tmp_path: Path, lock: str) -> None:
    directory = tmp_path / "minidock0"
    directory.mkdir()
    (directory / "notes").write_text("x")
    (directory / "192.0.2.1").write_text("")
    assert take(directory, lock).address == "10.90.0.2"
    assert sorted(os.listdir(directory)) == ["10.90.0.2", "192.0.2.1", "notes"]


def test_exhausted_network(tmp_path: Path, lock: str) -> None:
    directory = tmp_path / "minidock0"
    # Of 16 addresses: the network's, the gateway, the broadcast, 13 for containers.
    given = [take(directory, lock, prefix_len=28).address for _ in range(13)]
    assert given == [f"10.90.0.{number}" for number in range(2, 15)]
    with pytest.raises(NetworkError, match=r"every address of the network of 10\.90\.0\.1/28 is leased"):
        take(directory, lock, prefix_len=28)


def test_exhausted_network_is_searched_for_the_dead(tmp_path: Path, lock: str) -> None:
    directory = tmp_path / "minidock0"
    given = [take(directory, lock, prefix_len=28) for _ in range(13)]
    Path(given[12].path).write_text(json.dumps({"lock": str(tmp_path / "gone")}))
    assert take(directory, lock, prefix_len=28).address == given[12].address


def test_simultaneous_takers_get_different_addresses(tmp_path: Path, lock: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda _: take(tmp_path / "minidock0", lock).address, range(40)))
    assert len(set(given)) == 40


@pytest.mark.parametrize(
    ("address", "mac"), [("10.90.0.2", "02:42:0a:5a:00:02"), ("10.99.255.254", "02:42:0a:63:ff:fe")]
)
def test_mac(address: str, mac: str) -> None:
    assert leases.mac_of(address) == mac


def test_names_of_links_are_known_again() -> None:
    name = leases.link_name("0123456789abcdef")
    assert leases.is_link_name(name)
    assert not any(map(leases.is_link_name, ["md0", "minidock0", "eth0", name[:-1], name[:-1] + "x", ""]))
