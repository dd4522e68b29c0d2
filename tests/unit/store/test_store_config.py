from __future__ import annotations

from pathlib import Path

import pytest

from minidock.errors import UsageError
from minidock.store import config
from minidock.store.config import Config, load_config


def load(tmp_path: Path, text: str, **variables: str) -> Config:
    (tmp_path / "c.toml").write_text(text)
    return load_config({"MINIDOCK_CONFIG": str(tmp_path / "c.toml"), **variables})


def test_no_file_means_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config, "DEFAULT_PATH", str(tmp_path / "absent"))
    assert load_config({}) == Config(
        root="/var/lib/minidock", storage_driver="", layers="auto", loop_devices=False, keep=False, debug=False
    )


def test_every_key(tmp_path: Path) -> None:
    text = 'root = "/srv/m"\nstorage_driver = "vfs"\nlayers = "tree"\nloop_devices = true\nkeep = true\ndebug = true\n'
    assert load(tmp_path, text) == Config("/srv/m", "vfs", "tree", True, True, True)


def test_the_variable_stands_above_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(tmp_path, 'root = "/srv/m"\n', MINIDOCK_ROOT="/other").root == "/other"
    monkeypatch.setenv("MINIDOCK_CONFIG", str(tmp_path / "c.toml"))
    assert load_config().root == "/srv/m"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kep = true", "unknown key 'kep'"),
        ("keep = 1", "keep must be true or false, not 1"),
        ("root = true", "root must be a string, not True"),
        ('root = "relative"', "root must be an absolute path, not 'relative'"),
        ("keep", "not valid TOML"),
        ("[keep]", "keep must be true or false"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        load(tmp_path, text)
    assert "c.toml" in caught.value.message


def test_a_named_file_must_exist_and_be_readable(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no configuration file"):
        load_config({"MINIDOCK_CONFIG": str(tmp_path / "absent")})
    with pytest.raises(UsageError, match="Is a directory"):
        load_config({"MINIDOCK_CONFIG": str(tmp_path)})
    (tmp_path / "c.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not valid TOML"):
        load_config({"MINIDOCK_CONFIG": str(tmp_path / "c.toml")})
