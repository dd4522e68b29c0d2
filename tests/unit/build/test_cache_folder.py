"""A cache in a folder: written by several, killed at any point, and read when somebody has changed it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from minidock.build.cache_folder import MARK, CacheFolder, check_destination, write_folder
from minidock.build.cache_records import Offer, Used
from minidock.errors import CorruptObjectError, HostError, MinidockError, UsageError
from minidock.model.digest import digest_of
from minidock.store.blobs import Blobs
from minidock.store.layout import DataRoot
from tests.killing import killed_after

TIME = "2026-01-02T03:04:05Z"
DATA = [b"first" * 1000, b"second"]
LAYERS = [digest_of(data) for data in DATA]
KEYS = ["sha256:" + letter * 64 for letter in "abc"]
USED = [Used(KEYS[0], LAYERS[0], TIME, "", "RUN"), Used(KEYS[1], LAYERS[1], TIME), Used(KEYS[2], None, TIME)]


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    root = DataRoot(str(tmp_path / "root"), run=str(tmp_path / "run"))
    root.ensure()
    blobs = Blobs(root)
    blobs.put_all(DATA)
    return blobs


@pytest.fixture
def folder(tmp_path: Path, blobs: Blobs) -> Path:
    path = tmp_path / "deep" / "cache"
    write(path, blobs)
    return path


def write(path: Path, blobs: Blobs, used: list[Used] = USED, anew: tuple[str, ...] = ()) -> int:
    return write_folder(str(path), used, blobs, anew=anew, on_copied=lambda _: None)


def copied(path: Path, offer: Offer, out: Path) -> bytes:
    with CacheFolder(str(path)) as cache:
        cache.copy_layer(offer, str(out), lambda _: None)
    return out.read_bytes()


def found(path: Path) -> dict[str, Offer]:
    with CacheFolder(str(path)) as cache:
        offers = {key: cache.find(key) for key in KEYS}
    return {key: offer for key, offer in offers.items() if offer is not None}


def blob(path: Path, number: int = 0) -> Path:
    return path / "blobs/sha256" / LAYERS[number][7:]


def record(path: Path, number: int = 0) -> Path:
    return path / "records" / f"{KEYS[number][7:]}.json"


def test_what_is_written_is_read(folder: Path, tmp_path: Path) -> None:
    offers = found(folder)
    assert offers == {
        KEYS[0]: Offer(LAYERS[0], TIME, 5000),
        KEYS[1]: Offer(LAYERS[1], TIME, 6),
        KEYS[2]: Offer(None, TIME),
    }
    assert copied(folder, offers[KEYS[0]], tmp_path / "out") == DATA[0]
    with CacheFolder(str(folder)) as cache:
        assert cache.find("sha256:" + "f" * 64) is None
    assert sorted(os.listdir(folder)) == ["blobs", MARK, "records"]
    assert json.loads(record(folder).read_text())["instruction"] == "RUN"
    assert blob(folder).stat().st_ino != os.stat(f"{tmp_path}/root/images/blobs/sha256/{LAYERS[0][7:]}").st_ino


def test_again_copies_nothing_and_makes_it_young(folder: Path, blobs: Blobs) -> None:
    os.utime(blob(folder), (1, 1))
    inode = blob(folder).stat().st_ino
    assert write(folder, blobs) == 0
    assert blob(folder).stat().st_ino == inode
    assert blob(folder).stat().st_mtime > 1


def test_a_damaged_layer_is_written_again(folder: Path, blobs: Blobs) -> None:
    blob(folder).write_bytes(b"short")
    assert write(folder, blobs) == 5000, "one of another size"
    blob(folder).write_bytes(b"x" * 5000)
    assert write(folder, blobs) == 0
    assert write(folder, blobs, anew=(LAYERS[0],)) == 5000, "one that was found damaged"
    assert blob(folder).read_bytes() == DATA[0]


def test_a_record_whose_layer_is_gone_is_left_out(tmp_path: Path, blobs: Blobs) -> None:
    blobs.remove(LAYERS[0])
    write(tmp_path / "cache", blobs)
    assert set(found(tmp_path / "cache")) == {KEYS[1], KEYS[2]}


def test_a_folder_of_something_else_is_refused(tmp_path: Path, blobs: Blobs) -> None:
    other = tmp_path / "home"
    other.mkdir()
    check_destination(str(other))
    (other / "letter").write_text("x")
    for call in (lambda: check_destination(str(other)), lambda: write(other, blobs)):
        with pytest.raises(UsageError, match="it is no build cache of minidock") as caught:
            call()
        assert "'letter'" in caught.value.hint
    assert os.listdir(other) == ["letter"]
    with pytest.raises(UsageError, match=r"letter is not a folder"):
        check_destination(str(other / "letter"))
    with pytest.raises(UsageError, match=r"letter is not a folder"):
        check_destination(str(other / "letter" / "below"))


def test_a_newer_folder_is_left_alone(folder: Path, blobs: Blobs) -> None:
    (folder / MARK).write_text('{"version": 2}')
    with pytest.raises(UsageError, match="of a newer minidock"):
        write(folder, blobs)
    with pytest.raises(CorruptObjectError, match="of a newer minidock"):
        found(folder)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", ["blobs", "blobs/sha256", "records"])
def test_a_link_in_the_way_leads_nowhere(folder: Path, blobs: Blobs, tmp_path: Path, name: str, inside: bool) -> None:
    outside = (folder / name).parent / "other" if inside else tmp_path / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to("other" if inside else outside)
    before = sorted(path for path in outside.rglob("*"))
    with pytest.raises(HostError, match=r"cannot write the cache to .*deep/cache: "):
        write(folder, blobs, anew=tuple(LAYERS))
    assert sorted(path for path in outside.rglob("*")) == before
    with pytest.raises(OSError, match="levels of symbolic links"):
        found(folder)


def test_a_destination_that_is_a_link_of_the_user_is_followed(folder: Path, blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert write(tmp_path / "link", blobs) == 0
    assert len(found(tmp_path / "link")) == 3


def _link(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [_link, _pipe, _directory])
def test_what_is_no_file_is_refused(folder: Path, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    offer = found(folder)[KEYS[0]]
    spoil(blob(folder))
    with pytest.raises((CorruptObjectError, OSError)):
        copied(folder, offer, tmp_path / "out")
    spoil(record(folder))
    with pytest.raises((CorruptObjectError, OSError)):
        found(folder)
    spoil(folder / MARK)
    with pytest.raises((CorruptObjectError, OSError)):
        found(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"x" * 5000, b"\xff\xfe", b"[" * 4000])
def test_a_damaged_record_is_told(folder: Path, content: bytes) -> None:
    record(folder).write_bytes(content)
    with pytest.raises(CorruptObjectError, match=rf"records/{'a' * 64}\.json"):
        found(folder)


@pytest.mark.parametrize("content", [b"", DATA[0][:-1], DATA[0] + b"x", b"x" + DATA[0][1:]])
def test_a_layer_that_is_not_what_its_name_says(folder: Path, tmp_path: Path, content: bytes) -> None:
    offer = found(folder)[KEYS[0]]
    blob(folder).write_bytes(content)
    with pytest.raises(CorruptObjectError, match=f"blobs/sha256/{LAYERS[0][7:]} is damaged"):
        copied(folder, offer, tmp_path / "out")


def test_no_more_is_copied_than_the_record_says(folder: Path, tmp_path: Path) -> None:
    """A sparse file of many terabytes costs nothing to make."""
    offer = found(folder)[KEYS[0]]
    os.truncate(blob(folder), 1 << 42)
    with pytest.raises(CorruptObjectError, match="its size"):
        copied(folder, offer, tmp_path / "out")
    assert (tmp_path / "out").stat().st_size == 0


def test_a_folder_that_is_no_cache(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        found(tmp_path / "none")
    with pytest.raises(CorruptObjectError, match="no build cache of minidock"):
        found(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        found(tmp_path / "file")


def test_half_written_files_go_unless_their_writer_lives(folder: Path, blobs: Blobs) -> None:
    for place in ("", "records", "blobs/sha256"):
        (folder / place / f".{'0' * 16}.tmp").touch()
        (folder / place / ".mine").touch()
    live = os.open(folder / "records" / f".{'1' * 16}.tmp", os.O_CREAT | os.O_RDWR)
    try:
        import fcntl

        fcntl.flock(live, fcntl.LOCK_EX)
        write(folder, blobs)
        left = sorted(path.name for path in folder.rglob(".*"))
    finally:
        os.close(live)
    assert left == [f".{'1' * 16}.tmp", ".mine", ".mine", ".mine"]


def test_killed_at_any_point_it_can_be_used(tmp_path: Path, blobs: Blobs) -> None:
    """After each file operation in turn: whatever has a record has its layer, whole, and the next export mends all."""
    ended = False
    for events in range(1, 400):
        path = tmp_path / f"cache-{events}"
        ended = not killed_after(events, lambda path=path: write(path, blobs))  # type: ignore[misc]
        if (path / MARK).exists() and (path / "records").is_dir():
            for offer in found(path).values():
                if offer.diff_id is not None:
                    out = tmp_path / f"out-{events}"
                    assert copied(path, offer, out) == DATA[LAYERS.index(offer.diff_id)]
                    out.unlink()
        write(path, blobs)
        assert len(found(path)) == 3
        assert list(path.rglob(".*")) == []
        if ended:
            break
    assert ended, "the export has more operations than were tried"
    assert events > 20


def test_two_writers_at_once(tmp_path: Path, blobs: Blobs) -> None:
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                for _ in range(10):
                    write(tmp_path / "cache", blobs, anew=tuple(LAYERS))
            except MinidockError:
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    offers = found(tmp_path / "cache")
    assert len(offers) == 3
    assert copied(tmp_path / "cache", offers[KEYS[0]], tmp_path / "out") == DATA[0]
    assert list((tmp_path / "cache").rglob(".*")) == []


def test_a_full_disk_is_told_with_the_users_path(folder: Path, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minidock.build.cache_folder.copy_range", full)
    with pytest.raises(HostError, match="No space left") as caught:
        write(folder, blobs, anew=(LAYERS[0],))
    assert str(folder) in caught.value.message
    assert "/proc" not in caught.value.message
    assert blob(folder).read_bytes() == DATA[0]
    assert list(folder.rglob(".*")) == []
