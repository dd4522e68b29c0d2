"""The overlay mount, by each way that the kernel has, with few and with very many layers."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from minidock.kernel import files, mount, overlay

pytestmark = pytest.mark.usefixtures("mount_table")
RELEASE = tuple(int(number) for number in os.uname().release.split("-")[0].split(".")[:2])
KNOWS_APPEND = RELEASE >= (6, 7)
STRATEGIES = pytest.mark.parametrize("strategy", overlay.STRATEGIES)


@pytest.fixture(autouse=True)
def _kernel_knows(request: pytest.FixtureRequest) -> None:
    if "append" in request.node.name and not KNOWS_APPEND:
        pytest.skip(f"Linux {os.uname().release} has no lowerdir+ (6.7)")


@contextmanager
def mounted(lowers: list[str], *, upper: str = "", work: str = "", strategy: str = "") -> Iterator[Path]:
    """The merged tree's folder; the mount goes at the end."""
    before = Path("/proc/self/mountinfo").read_text()
    fd = overlay.overlay(lowers, upper=upper, work=work, strategy=strategy)
    try:
        assert not os.get_inheritable(fd)
        assert Path("/proc/self/mountinfo").read_text() == before
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def layers(parent: Path, count: int, *, name: Callable[[int], str] = lambda n: f"layer-{n}") -> list[str]:
    """``count`` folders, the first to be the topmost; each has a file of its own and the file that all have."""
    paths = []
    for number in range(count):
        path = parent / name(number)
        path.mkdir(parents=True)
        (path / f"only-{number}").write_text(str(number))
        (path / "common").write_text(str(number))
        paths.append(str(path))
    return paths


def writable(parent: Path) -> dict[str, str]:
    for name in ("upper", "work"):
        (parent / name).mkdir(parents=True)
    return {"upper": str(parent / "upper"), "work": str(parent / "work")}


def check_merged(root: Path, count: int) -> None:
    names = set(os.listdir(root))
    assert names == {"common", *(f"only-{number}" for number in range(count))}
    assert (root / "common").read_text() == "0"
    assert (root / f"only-{count - 1}").read_text() == str(count - 1)


@pytest.mark.parametrize("strategy", ["append", "thread"])
@pytest.mark.parametrize("count", [1, 2, 128, 400, 500])
def test_writable(tmp_path: Path, strategy: str, count: int) -> None:
    where = writable(tmp_path / "container")
    with mounted(layers(tmp_path, count), **where, strategy=strategy) as root:
        check_merged(root, count)
        (root / "common").write_text("changed")
        (root / f"only-{count - 1}").unlink()
        (root / "new").mkdir()
    upper = tmp_path / "container" / "upper"
    assert sorted(os.listdir(upper)) == ["common", "new", f"only-{count - 1}"]
    assert files.is_whiteout((upper / f"only-{count - 1}").lstat())
    assert (tmp_path / "layer-0" / "common").read_text() == "0"


@pytest.mark.parametrize("strategy", ["", "append", "thread"])
@pytest.mark.parametrize("count", [1, 2, 128, 400, 500])
def test_read_only(tmp_path: Path, strategy: str, count: int) -> None:
    with mounted(layers(tmp_path, count), strategy=strategy) as root:
        check_merged(root, count)
        with pytest.raises(OSError, match="Read-only") as caught:
            (root / "new").touch()
        assert caught.value.errno == errno.EROFS


@pytest.mark.parametrize("count", [1, 2])
def test_all_in_one_string(tmp_path: Path, count: int) -> None:
    parent = Path("/run") / f"minidock-test-{os.getpid()}-{count}"
    try:
        paths = layers(parent, count)
        with mounted(paths, strategy="string") as root:
            check_merged(root, count)
        with mounted(paths, **writable(parent / "c"), strategy="string") as root:
            check_merged(root, count)
            (root / "new").touch()
        assert (parent / "c" / "upper" / "new").exists()
    finally:
        remove(parent)


def remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.parametrize("count", [128, 400])
def test_one_string_is_too_short_for_many(tmp_path: Path, count: int) -> None:
    with pytest.raises(OSError, match="layer-0") as caught:
        overlay.overlay(layers(tmp_path, count), strategy="string")
    assert caught.value.errno == errno.EINVAL


def test_more_than_the_kernel_stacks_by_append(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too many lower directories") as caught:
        overlay.overlay(layers(tmp_path, 501), strategy="append")
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("strategy", ["append", "thread"])
def test_paths_beyond_255_bytes(tmp_path: Path, strategy: str) -> None:
    deep = "/".join(["d" * 100] * 4)
    paths = layers(tmp_path, 5, name=lambda n: f"{n}/{deep}")
    with mounted(paths, **writable(tmp_path / "c" / deep), strategy=strategy) as root:
        check_merged(root, 5)
        (root / "new").touch()
    assert (tmp_path / "c" / deep / "upper" / "new").exists()


@pytest.mark.parametrize("strategy", ["append", "thread"])
def test_paths_with_every_character_that_means_something(tmp_path: Path, strategy: str) -> None:
    paths = layers(tmp_path, 3, name=lambda n: f"{n}:a,b\\c=d e\n")
    with mounted(paths, **writable(tmp_path / "w:x,y\\:z"), strategy=strategy) as root:
        check_merged(root, 3)
        (root / "new").touch()
    assert (tmp_path / "w:x,y\\:z" / "upper" / "new").exists()


def test_descriptors_that_the_kernel_refuses_go_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Linux 6.7 to 6.12 know lowerdir+ but take no descriptors.
    def refuse(fs_fd: int, key: str, value: int, *, path: str = "") -> None:
        raise OSError(errno.EINVAL, "Invalid argument", path)

    monkeypatch.setattr(mount, "fsconfig_fd", refuse)
    deep = "/".join(["d" * 100] * 4)
    with mounted(layers(tmp_path, 3, name=lambda n: f"{n}/{deep}"), **writable(tmp_path / "c" / deep)) as root:
        check_merged(root, 3)


@STRATEGIES
def test_repeated_lower_counts_once_and_on_top(tmp_path: Path, strategy: str) -> None:
    parent = Path("/run") / f"minidock-test-{os.getpid()}"
    try:
        one, two = layers(parent, 2)
        with mounted([one, two, one, two, two], strategy=strategy) as root:
            check_merged(root, 2)
    finally:
        remove(parent)


@STRATEGIES
def test_repeated_single_lower_is_a_read_only_bind(tmp_path: Path, strategy: str) -> None:
    (path,) = layers(tmp_path, 1)
    with mounted([path, path], strategy=strategy) as root:
        check_merged(root, 1)
        assert root.stat().st_dev == Path(path).stat().st_dev
        with pytest.raises(OSError, match="Read-only"):
            (root / "common").write_text("x")


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("strategy", ["append", "thread"])
def test_mounts_on_it_never_reach_a_shared_source(
    tmp_path: Path, in_namespaces: Callable[..., Any], strategy: str, count: int
) -> None:
    (tmp_path / "target").mkdir()

    def inside() -> list[bool]:
        mount.mount("", "/", "", mount.MS_REC | mount.MS_SHARED)
        paths = layers(tmp_path, count)
        for path in paths:
            (Path(path) / "proc").mkdir()
        mount.move_mount(overlay.overlay(paths, strategy=strategy), str(tmp_path / "target"))
        mount.mount("proc", str(tmp_path / "target" / "proc"), "proc", 0)
        return [os.path.ismount(tmp_path / "target" / "proc"), *(os.path.ismount(f"{path}/proc") for path in paths)]

    assert in_namespaces(inside) == [True, *[False] * count]


def test_single_read_only_lower_without_mount_setattr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Linux 5.10 and 5.11.
    def missing(fd: int, *, attr_set: int = 0, propagation: int = 0) -> None:
        raise OSError(errno.ENOSYS, "not implemented")

    monkeypatch.setattr(mount, "mount_setattr", missing)
    with mounted(layers(tmp_path, 1)) as root:
        check_merged(root, 1)
        with pytest.raises(OSError, match="Read-only"):
            (root / "common").write_text("x")


@pytest.mark.parametrize("strategy", ["", *overlay.STRATEGIES])
def test_missing_lower_is_named(tmp_path: Path, strategy: str) -> None:
    (present,) = layers(tmp_path, 1)
    with pytest.raises(FileNotFoundError, match="missing"):
        overlay.overlay([present, str(tmp_path / "missing")], strategy=strategy)


@pytest.mark.parametrize("strategy", ["", "append", "thread"])
def test_upper_needs_no_special_options_to_become_a_layer(tmp_path: Path, strategy: str) -> None:
    (lower,) = layers(tmp_path, 1)
    (Path(lower) / "dir").mkdir()
    (Path(lower) / "dir" / "inner").touch()
    with mounted([lower], **writable(tmp_path / "c"), strategy=strategy) as root:
        # redirect_dir=off: a directory of a lower layer can't be renamed in place; metacopy=off: chmod copies the data.
        with pytest.raises(OSError, match="cross-device") as caught:
            os.rename(root / "dir", root / "renamed")
        assert caught.value.errno == errno.EXDEV
        os.chmod(root / "common", 0o600)
        os.rename(root / "only-0", root / "dir" / "moved")
    upper = tmp_path / "c" / "upper"
    assert (upper / "common").read_text() == "0"
    assert stat.S_IMODE((upper / "common").stat().st_mode) == 0o600
    names = {name for path in upper.rglob("*") for name in files.list_xattrs(str(path))}
    assert not {"trusted.overlay.metacopy", "trusted.overlay.redirect"} & names


def test_overlays_mount_goes_with_its_descriptor(tmp_path: Path) -> None:
    where = writable(tmp_path / "c")
    fd = overlay.overlay(layers(tmp_path, 2), **where, strategy="thread")
    os.close(fd)
    # The kernel marks a work directory in use; a second mount would tell of it only in its log, so the sign is that the
    # folders can be removed and made anew.
    remove(tmp_path / "c")
    fd = overlay.overlay([str(tmp_path / "layer-0")], **writable(tmp_path / "c"))
    os.close(fd)


@pytest.mark.parametrize("strategy", ["append", "string", "thread"])
def test_a_volatile_upper_can_be_mounted_again(tmp_path: Path, strategy: str) -> None:
    lower, upper, work = (tmp_path / name for name in ("lower", "upper", "work"))
    for path in (lower, upper, work):
        path.mkdir()
    for number in range(2):
        fd = overlay.overlay([str(lower)], upper=str(upper), work=str(work), volatile=True, strategy=strategy)
        try:
            (Path(f"/proc/self/fd/{fd}") / f"file{number}").write_text("x")
            assert (work / "work/incompat/volatile").is_dir()
        finally:
            os.close(fd)
    assert sorted(os.listdir(upper)) == ["file0", "file1"]
    with pytest.raises(OSError, match=r"Invalid|incompat|volatile|argument"):
        os.close(overlay.overlay([str(lower)], upper=str(upper), work=str(work), strategy=strategy))
