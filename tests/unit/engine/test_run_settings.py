"""What the flags of ``build`` about RUN become."""

from __future__ import annotations

from pathlib import Path

import pytest

from minidock.build.request import RunSettings
from minidock.engine.run_settings import run_settings
from minidock.errors import MinidockError, MountSpecError, UsageError
from minidock.model.build_flags import AgentSource, SecretSource


def test_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agent").touch()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    monkeypatch.chdir(tmp_path)
    found = run_settings(
        {
            "add_hosts": ["a:1.2.3.4"],
            "volumes": [".:/v:ro"],
            "allow": ["security.insecure"],
            "secrets": ["id=s,src=agent", "id=e,env=SSH_AUTH_SOCK"],
            "ssh": ["default", "x=agent"],
            "shm_size": 5,
        },
        network="bridge",
    )
    assert found.hosts == (("a", "1.2.3.4"),)
    assert found.shm_size == 5
    assert [(mount.source, mount.target, mount.read_only) for mount in found.volumes] == [(str(tmp_path), "/v", True)]
    assert found.allowed == ("security.insecure",)
    assert found.secrets == (SecretSource("s", "agent"), SecretSource("e", "", "SSH_AUTH_SOCK"))
    path = str(tmp_path / "agent")
    assert found.agents == (AgentSource("default", (path,)), AgentSource("x", (path,)))


def test_the_hosts_network_for_all_is_allowed_by_asking_for_it() -> None:
    assert run_settings({}, network="host").allowed == ("network.host",)
    assert run_settings({}, network="none") == RunSettings()


@pytest.mark.parametrize(
    ("options", "network", "error"),
    [
        ({}, "other", UsageError),
        ({"shm_size": -1}, "bridge", UsageError),
        ({"secrets": ["id=s,src=/nope"]}, "bridge", MinidockError),
        ({"secrets": ["id=s\0"]}, "bridge", UsageError),
        ({"ssh": ["x=/nope"]}, "bridge", UsageError),
        ({"volumes": ["name:/x"]}, "bridge", MountSpecError),
        ({"volumes": ["/nope:/x"]}, "bridge", MountSpecError),
        ({"volumes": ["/:/proc"]}, "bridge", UsageError),
        ({"nope": 1}, "bridge", TypeError),
    ],
)
def test_what_makes_no_sense(options: dict[str, object], network: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        run_settings(options, network=network)
