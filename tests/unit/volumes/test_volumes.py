"""Volumes that need no special rights: making, finding, removing, and copy-up's crash-safety."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from minidock.errors import ConflictError, InvalidReferenceError, MountSpecError, NoSuchVolumeError
from minidock.store.layout import DataRoot
from minidock.volumes import copytree, volumes
from minidock.volumes.volumes import Volumes


@pytest.fixture
def store(tmp_path: Path) -> Volumes:
    root = DataRoot(str(tmp_path / "root"), run=str(tmp_path / "run"))
    root.ensure()
    return Volumes(root)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A tree with a directory ``/data`` of some content, and a link to it."""
    data = tmp_path / "image" / "data"
    (data / "sub").mkdir(parents=True)
    (data / "file").write_text("content")
    (data / "sub" / "deep").write_text("deep")
    (data / "link").symlink_to("file")
    (data / "twin").hardlink_to(data / "file")
    (data / "file").chmod(0o640)
    data.chmod(0o1750)
    (tmp_path / "image" / "alias").symlink_to("/data")
    (tmp_path / "image" / "plain").write_text("a file")
    return tmp_path / "image"


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def data_of(store: Volumes, name: str) -> Path:
    return Path(store.path_of(name))


def test_create_makes_a_directory_that_people_understand(store: Volumes) -> None:
    made = store.create("data", labels=(("a", "b"),))
    assert made == store.get("data")
    assert made.mountpoint == f"{store.root.volumes}/data/_data"
    assert sorted(os.listdir(f"{store.root.volumes}/data")) == ["_data", "lock", "volume.json"]
    assert made.labels == (("a", "b"),)
    assert not made.anonymous


def test_create_again_is_success_and_changes_nothing(store: Volumes) -> None:
    first = store.create("data", labels=(("a", "b"),))
    data_of(store, "data").joinpath("x").write_text("kept")
    assert store.create("data", labels=(("a", "c"),)) == first
    assert data_of(store, "data").joinpath("x").read_text() == "kept"


def test_a_volume_without_a_name_is_anonymous(store: Volumes) -> None:
    made = store.create()
    assert len(made.name) == 64
    assert made.anonymous
    assert dict(made.labels) == {volumes.ANONYMOUS_LABEL: ""}


@pytest.mark.parametrize("name", ["a", "-x", "x/y", "..", ".hid", "a b", ""])
def test_names_that_none_can_have(store: Volumes, name: str) -> None:
    assert not store.exists(name)
    with pytest.raises(NoSuchVolumeError):
        store.get(name)
    if name:
        with pytest.raises(InvalidReferenceError):
            store.create(name)


def test_list_is_sorted_and_survives_damage(store: Volumes) -> None:
    for name in ("bb", "aa", "cc"):
        store.create(name)
    Path(store.root.volumes, "bb", "volume.json").write_text("{broken")
    Path(store.root.volumes, "dd").mkdir()
    assert [volume.name for volume in store.list()] == ["aa", "bb", "cc"]


def test_remove(store: Volumes) -> None:
    store.create("data")
    with pytest.raises(ConflictError, match=r"in use - \[123456789012\]") as caught:
        store.remove("data", users=["123456789012345"])
    assert "remove the containers" in caught.value.hint
    with pytest.raises(ConflictError):
        store.remove("data", users=lambda: ["x"])
    store.remove("data")
    assert not store.exists("data")
    assert os.listdir(store.root.tmp) == []
    with pytest.raises(NoSuchVolumeError):
        store.remove("data")


def test_a_damaged_volume_can_be_removed(store: Volumes) -> None:
    store.create("data")
    Path(store.root.volumes, "data", "volume.json").write_text("")
    store.remove("data")
    assert store.list() == []


def test_copy_up_keeps_everything(store: Volumes, image: Path) -> None:
    store.create("data")
    with opened(image) as root:
        assert store.populate("data", root, "/data")
    target = data_of(store, "data")
    assert (target / "file").read_text() == "content"
    assert (target / "sub" / "deep").read_text() == "deep"
    assert os.readlink(target / "link") == "file"
    assert (target / "twin").stat().st_ino == (target / "file").stat().st_ino
    assert (target / "file").stat().st_mode & 0o7777 == 0o640
    assert target.stat().st_mode & 0o7777 == 0o1750
    assert (target / "file").stat().st_mtime_ns == (image / "data" / "file").stat().st_mtime_ns
    assert (target / "sub").stat().st_mtime_ns == (image / "data" / "sub").stat().st_mtime_ns
    assert sorted(os.listdir(target.parent)) == ["_data", "lock", "volume.json"]


def test_copy_up_keeps_holes(store: Volumes, image: Path) -> None:
    with open(image / "data" / "sparse", "wb") as file:
        file.seek(8 << 20)
        file.write(b"end")
    store.create("data")
    with opened(image) as root:
        store.populate("data", root, "/data")
    copied = data_of(store, "data") / "sparse"
    assert copied.read_bytes() == (image / "data" / "sparse").read_bytes()
    assert copied.stat().st_blocks < 1000


def test_copy_up_never_over_content(store: Volumes, image: Path) -> None:
    store.create("data")
    data_of(store, "data").joinpath("mine").write_text("mine")
    with opened(image) as root:
        assert not store.populate("data", root, "/data")
    assert os.listdir(data_of(store, "data")) == ["mine"]


def test_copy_up_stays_inside_the_image(store: Volumes, image: Path) -> None:
    (image / "escape").symlink_to("../../../../../../etc")
    (image / "etc").mkdir()
    (image / "etc" / "inside").write_text("")
    store.create("one")
    store.create("two")
    with opened(image) as root:
        assert store.populate("one", root, "/alias")
        assert store.populate("two", root, "/escape")
    assert "file" in os.listdir(data_of(store, "one"))
    assert os.listdir(data_of(store, "two")) == ["inside"]


def test_copy_up_of_nothing_and_of_a_file(store: Volumes, image: Path) -> None:
    store.create("data")
    with opened(image) as root:
        assert not store.populate("data", root, "/absent/deep")
        with pytest.raises(MountSpecError, match="over the file '/plain'"):
            store.populate("data", root, "/plain")


def test_copy_up_keeps_the_directory_that_others_have_mounted(store: Volumes, image: Path) -> None:
    store.create("data")
    before = data_of(store, "data").stat().st_ino
    with opened(image) as root:
        store.populate("data", root, "/data")
    assert data_of(store, "data").stat().st_ino == before


class KilledError(BaseException):
    """Stands for SIGKILL: nothing that catches errors catches it."""


@pytest.mark.parametrize("point", range(1, 60))
def test_killed_at_any_point_the_next_use_sees_all_or_copies_anew(
    store: Volumes, image: Path, monkeypatch: pytest.MonkeyPatch, point: int
) -> None:
    store.create("data")
    count = 0

    def kill_after(function: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            if count >= point:
                raise KilledError
            return function(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        for name in (
            "mkdir",
            "open",
            "link",
            "symlink",
            "chown",
            "utime",
            "rename",
            "fchown",
            "fchmod",
            "unlink",
            "rmdir",
        ):
            patch.setattr(os, name, kill_after(getattr(os, name)))
        patch.setattr(volumes.kernel_files, "renameat2", kill_after(volumes.kernel_files.renameat2))
        root = -1
        try:
            root = _plain_open(image)
            store.populate("data", root, "/data")
        except KilledError:
            pass
        finally:
            _plain_close(root)
    store.ensure("data")
    seen = sorted(os.listdir(data_of(store, "data")))
    whole = ["file", "link", "sub", "twin"]
    assert seen in ([], whole)
    with opened(image) as root_fd:
        assert store.populate("data", root_fd, "/data") == (seen == [])
    assert sorted(os.listdir(data_of(store, "data"))) == whole
    assert data_of(store, "data").stat().st_mode & 0o7777 == 0o1750
    assert sorted(os.listdir(f"{store.root.volumes}/data")) == ["_data", "lock", "volume.json"]


_REAL_OPEN, _REAL_CLOSE = os.open, os.close


def _plain_open(path: Path) -> int:
    return _REAL_OPEN(path, os.O_RDONLY | os.O_DIRECTORY)


def _plain_close(fd: int) -> None:
    if fd >= 0:
        _REAL_CLOSE(fd)


def test_is_empty(tmp_path: Path) -> None:
    with opened(tmp_path) as fd:
        assert copytree.is_empty(fd)
        (tmp_path / "x").touch()
        assert not copytree.is_empty(fd)


@pytest.mark.parametrize("make", [True, False])
def test_a_removal_under_way_is_waited_for(store: Volumes, make: bool) -> None:
    """Whoever asks for users has decided: a user that came later finds the volume gone, not about to go."""
    store.create("vol")
    outcome: list[object] = []

    def ensure() -> None:
        try:
            outcome.append(store.ensure("vol", make=make).name)
        except NoSuchVolumeError as error:
            outcome.append(error)

    late = threading.Thread(target=ensure)

    def nobody() -> list[str]:
        late.start()
        late.join(0.2)
        return []

    store.remove("vol", users=nobody)
    late.join()
    assert store.exists("vol") == make
    assert outcome == ["vol"] if make else isinstance(outcome[0], NoSuchVolumeError)
