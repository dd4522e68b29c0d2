"""The verbs that need no kernel's help, on a data root of a user's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minidock import Engine
from minidock.containers.logs import STDERR, STDOUT, LogWriter
from minidock.engine import building
from minidock.engine.pump import Pump
from minidock.errors import ConflictError, NoSuchContainerError, NoSuchVolumeError, UsageError
from minidock.model.container import CREATED, EXITED, Record, Settings, State
from minidock.model.mounts import Mount
from minidock.store.containers import ContainerStore, new_id
from minidock.store.layout import DataRoot


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    config = tmp_path / "config.toml"
    config.write_text("keep = true\n")
    monkeypatch.setenv("MINIDOCK_CONFIG", str(config))
    engine = Engine(str(tmp_path / "root"))
    engine.root = DataRoot(str(tmp_path / "root"), run=str(tmp_path / "run"))
    return engine


def add(engine: Engine, name: str, *, created: int, state: State, volumes: tuple[str, ...] = ()) -> str:
    """Put a container's record into the store."""
    mounts = tuple(Mount("volume", volume, f"/{volume}") for volume in volumes)
    record = Record(
        id=new_id(),
        name=name,
        created=created,
        image="img",
        image_id="sha256:" + "1" * 64,
        diff_ids=(),
        driver="vfs",
        args=("sh", "-c", "x"),
        env=(),
        workdir="/",
        user="",
        hostname=name,
        labels=(("a", name),),
        mounts=mounts,
        anonymous=(),
        exposed_ports=("80/tcp",),
        stop_signal="TERM",
        settings=Settings("img", mounts=mounts, keep=True),
    )
    ContainerStore(engine.ready()).create(record, state, lambda _: None)
    return record.id


class TestPs:
    def test_those_at_rest_only_with_all(self, engine: Engine) -> None:
        add(engine, "old", created=1, state=State(EXITED, exit_code=3, finished=5))
        add(engine, "new", created=2, state=State(CREATED), volumes=("data",))
        assert engine.ps() == []
        new, old = engine.ps(all=True)
        assert (new.name, new.status, new.volumes, new.labels) == ("new", "created", ("data",), {"a": "new"})
        assert (old.name, old.status, old.exit_code, old.finished) == ("old", "exited", 3, 5)
        assert (old.command, old.network, old.ports) == (("sh", "-c", "x"), "bridge", ())

    def test_inspect_finds_by_name_and_prefix(self, engine: Engine) -> None:
        container = add(engine, "web", created=1, state=State(CREATED))
        assert engine.inspect("web")["Id"] == engine.inspect(container[:8])["Id"] == container
        with pytest.raises(NoSuchContainerError):
            engine.inspect("other")


class TestLogs:
    def test_pieces_keep_stream_and_order(self, engine: Engine) -> None:
        container = add(engine, "web", created=1, state=State(EXITED))
        log = LogWriter.open(engine.root.container_dir(container))
        for stream, data in ((STDOUT, b"one\n"), (STDERR, b"two\n"), (STDOUT, b"three\n")):
            log.append(stream, memoryview(data))
        log.close()
        assert [(piece.stream, piece.data) for piece in engine.logs("web")] == [
            (1, b"one\n"),
            (2, b"two\n"),
            (1, b"three\n"),
        ]
        assert b"".join(piece.data for piece in engine.logs("web", tail=1, follow=True)) == b"three\n"
        stamped = next(iter(engine.logs("web", timestamps=True)))
        assert stamped.data.endswith(b"Z one\n")

    def test_a_container_that_is_not_there_is_told_at_once(self, engine: Engine) -> None:
        with pytest.raises(NoSuchContainerError):
            engine.logs("web")


class TestVolumes:
    def test_create_list_inspect_remove(self, engine: Engine) -> None:
        made = engine.volume_create("data", labels=["a=b", "c"])
        assert engine.volume_create("data").labels == made.labels == (("a", "b"), ("c", ""))
        assert [volume.name for volume in engine.volumes()] == ["data"]
        found = engine.volume_inspect("data")
        assert (found["Name"], found["Driver"], found["Labels"]) == ("data", "local", {"a": "b", "c": ""})
        assert os.path.isdir(found["Mountpoint"])
        engine.volume_rm("data")
        assert engine.volumes() == []
        with pytest.raises(NoSuchVolumeError):
            engine.volume_rm("data")
        engine.volume_rm("data", force=True)

    def test_one_that_a_container_refers_to_stays(self, engine: Engine) -> None:
        for name in ("used", "free"):
            engine.volume_create(name)
        add(engine, "web", created=1, state=State(EXITED), volumes=("used",))
        assert [volume.name for volume in engine.volumes(dangling=True)] == ["free"]
        assert [volume.name for volume in engine.volumes(dangling=False)] == ["used"]
        with pytest.raises(ConflictError):
            engine.volume_rm("used", force=True)
        assert engine.volume_prune(all=True).names == ("free",)

    def test_prune_takes_anonymous_ones_and_counts_their_bytes(self, engine: Engine) -> None:
        engine.volume_create("named")
        anonymous = engine.volume_create()
        data = Path(anonymous.mountpoint)
        (data / "file").write_bytes(b"x" * 100_000)
        os.link(data / "file", data / "link")
        pruned = engine.volume_prune()
        assert pruned.names == (anonymous.name,)
        assert 100_000 <= pruned.bytes < 150_000


class TestBuild:
    def test_build_arguments(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HERE", "1")
        monkeypatch.delenv("ABSENT", raising=False)
        assert building.build_arguments(["A=b", "HERE", "ABSENT", "C="]) == (("A", "b"), ("HERE", "1"), ("C", ""))
        assert building.build_arguments({"A": "b"}) == (("A", "b"),)
        for nameless in (["=x"], {"": "x"}):
            with pytest.raises(UsageError):
                building.build_arguments(nameless)

    def test_progress_goes_to_its_descriptor(self, tmp_path: Path) -> None:
        with open(tmp_path / "out", "w+b") as file:
            building.make_progress(file.fileno(), quiet=False).step("[1/1] FROM x").done()
        assert (tmp_path / "out").read_bytes().startswith(b"#1 [1/1] FROM x\n#1 DONE")
        building.make_progress(None, quiet=False).warning("unheard")

    def test_what_cannot_be_pulled_says_what_to_do(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        from minidock.engine import pulling
        from minidock.engine.fetching import puller
        from minidock.errors import NoSuchImageError, RegistryError

        def refuse(*_: object, **__: object) -> None:
            raise RegistryError("cannot pull debian: nobody is there")

        monkeypatch.setattr(pulling, "pull", refuse)
        for name, reason in (("debian", "nobody is there"), ("Debian", "no name that a registry could have")):
            with pytest.raises(NoSuchImageError, match=f"'{name}'.*{reason}") as caught:
                puller(engine)(name)
            assert "bootstrap" in caught.value.hint


def test_the_configuration_decides_what_is_not_given(engine: Engine) -> None:
    from minidock.engine.containers import settings_of

    assert settings_of(engine, "img", (), {}).keep
    assert engine.driver == ""
    assert Engine("/x", driver="vfs").driver == "vfs"


def test_a_pump_needs_no_terminal_for_its_size() -> None:
    assert Pump(stdin=-1, stdout=-1, stderr=-1, terminal=True)._size() == (24, 80)
