from __future__ import annotations

import errno
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from minidock.errors import HostError, StoreError
from minidock.store import files
from minidock.store.layout import DataRoot


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_ensure_makes_a_layout_that_a_person_understands(root: DataRoot) -> None:
    assert sorted(os.listdir(root.path)) == sorted(
        ["images", "layers", "containers", "volumes", "networks", "cache", "locks", "tmp", "version", "reserve"]
    )
    assert json.loads(Path(root.images, "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads(Path(root.index).read_text())["manifests"] == []
    assert Path(root.path, "version").read_text() == "1\n"
    assert os.listdir(root.tmp) == []


def test_nothing_is_open_to_others(root: DataRoot) -> None:
    assert mode(root.path) == 0o710
    for folder in (root.images, root.blobs, root.names, root.tmp, root.cache, root.networks):
        assert mode(folder) == 0o700
    for folder in (root.layers, root.containers, root.volumes):
        assert mode(folder) == 0o710


def test_ensure_again_keeps_what_is_there_and_makes_what_is_missing(root: DataRoot) -> None:
    Path(root.index).write_text('{"manifests": [1]}')
    os.rmdir(root.networks)
    root.ensure()
    assert Path(root.index).read_text() == '{"manifests": [1]}'
    assert os.path.isdir(root.networks)


def test_a_first_call_killed_before_the_version_is_finished_by_the_next(tmp_path: Path) -> None:
    root = DataRoot(str(tmp_path / "r"), run=str(tmp_path / "run"))
    root.ensure()
    Path(root.index).write_text('{"manifests": ["kept"]}')
    os.unlink(f"{root.path}/version")
    root.ensure()
    assert os.path.exists(f"{root.path}/version")
    assert "kept" in Path(root.index).read_text()


def test_there_is_a_reserve_for_a_full_disk(root: DataRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.stat(root.reserve).st_size == 1024 * 1024
    os.unlink(root.reserve)

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        root.ensure()
        patched.setattr(files, "open_scratch", full)
        root.ensure()
    assert not os.path.exists(root.reserve)
    assert os.listdir(root.tmp) == []
    root.ensure()
    assert os.path.exists(root.reserve)


def test_two_first_calls_at_once(tmp_path: Path) -> None:
    errors: list[Exception] = []

    def ensure() -> None:
        try:
            DataRoot(str(tmp_path / "r"), run=str(tmp_path / "run")).ensure()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ensure) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize(("text", "said"), [("2\n", "newer"), ("x", "no valid format version")])
def test_another_format_is_refused(root: DataRoot, text: str, said: str) -> None:
    Path(root.path, "version").write_text(text)
    with pytest.raises(StoreError, match=said):
        root.ensure()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(StoreError, match=r"holds 'thesis\.txt'"):
        DataRoot(str(tmp_path), run=str(tmp_path / "run")).ensure()
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_a_root_that_cannot_be_written_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, *args: object, **kwargs: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(HostError, match="no permission for") as caught:
        DataRoot(str(tmp_path / "r"), run=str(tmp_path / "run")).ensure()
    assert "--root" in caught.value.hint


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("")
    with pytest.raises(StoreError, match="cannot use the data root"):
        DataRoot(str(tmp_path / "r"), run=str(tmp_path / "run")).ensure()


def test_run_directories_of_two_roots_differ_and_can_be_read() -> None:
    one, two = DataRoot("/var/lib/minidock"), DataRoot("/srv/minidock")
    assert one.run != two.run
    assert one.run.startswith("/run/minidock/roots/")
    assert one.run.endswith("/var-lib-minidock")
    assert DataRoot("/a-b").run != DataRoot("/a/b").run
    assert len(os.path.basename(DataRoot("/" + "x/" * 300).run)) <= 255


def test_a_link_to_a_root_is_that_root(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert DataRoot(str(tmp_path / "real")).run == DataRoot(str(tmp_path / "link")).run


def test_paths(root: DataRoot) -> None:
    assert root.container_lock("ab") == f"{root.container_dir('ab')}/lock"
    assert os.path.dirname(root.lock("x")) == os.path.dirname(root.index_lock)


def test_boot_id_is_the_kernels() -> None:
    assert DataRoot.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.mark.parametrize(
    ("number", "word"), [(errno.ENOSPC, "space"), (errno.EPERM, "root"), (errno.EROFS, "read-only"), (errno.EIO, "")]
)
def test_hints(number: int, word: str) -> None:
    assert word in files.hint_for(OSError(number, os.strerror(number)))
