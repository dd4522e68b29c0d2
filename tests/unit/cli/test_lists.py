"""Tables, formats and filters as the list commands print them."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import pytest

from minidock.cli.filters import Filters
from minidock.engine.listings import ContainerSummary
from minidock.errors import UsageError
from minidock.model.oci import CONFIG, Descriptor, ImageConfig, Manifest
from minidock.store.images import Image
from minidock.volumes.volumes import Volume

HOUR = 3600 * 10**9


def container(number: int, **changes: Any) -> ContainerSummary:
    now = time.time_ns()
    summary = ContainerSummary(
        id=f"{number:x}" * 64,
        name=f"name{number}",
        image="busybox:latest",
        image_id="sha256:" + "c" * 64,
        command=("sh", "-c", "echo a long command"),
        created=now - number * HOUR,
        status="running",
        exit_code=0,
        started=now - number * HOUR,
        finished=0,
        labels={},
        volumes=(),
        network="bridge",
        ports=(),
    )
    return summary._replace(**changes)


class TestPs:
    def test_dockers_layout(self, run: Any, engine: Any) -> None:
        engine.results["ps"] = [container(2)]
        assert run("ps").out.splitlines() == [
            "CONTAINER ID   IMAGE            COMMAND                  CREATED       STATUS       PORTS     NAMES",
            '222222222222   busybox:latest   "sh -c echo a long c…"   2 hours ago   Up 2 hours             name2',
        ]
        assert engine.calls == [("ps", (), {"all": False})]

    def test_the_header_is_there_without_rows(self, run: Any, engine: Any) -> None:
        engine.results["ps"] = []
        assert run("ps").out == "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            ({"status": "created"}, "Created"),
            ({"status": "paused"}, "Up 3 hours (Paused)"),
            ({"status": "exited", "exit_code": 3, "finished": 1}, "Exited (3) "),
        ],
    )
    def test_statuses(self, run: Any, engine: Any, changes: dict[str, Any], status: str) -> None:
        engine.results["ps"] = [container(3, **changes)]
        assert run("ps", "-a", "--format", "{{.Status}}").out.startswith(status)

    def test_ids_only(self, run: Any, engine: Any) -> None:
        engine.results["ps"] = [container(1), container(2)]
        assert run("ps", "-q").out == "111111111111\n222222222222\n"
        assert run("ps", "-q", "--no-trunc").out.split("\n")[0] == "1" * 64

    def test_last_and_latest_ask_for_all(self, run: Any, engine: Any) -> None:
        engine.results["ps"] = [container(1), container(2), container(3)]
        assert run("ps", "-n", "2", "-q").out.count("\n") == 2
        assert run("ps", "-lq").out == "111111111111\n"
        assert [call[2] for call in engine.calls] == [{"all": True}] * 2

    def test_json_and_templates(self, run: Any, engine: Any) -> None:
        engine.results["ps"] = [container(1), container(2)]
        objects = [json.loads(line) for line in run("ps", "--format", "json").out.splitlines()]
        assert [found["Names"] for found in objects] == ["name1", "name2"]
        assert run("ps", "--format", "{{.Names}}: {{.State}}").out == "name1: running\nname2: running\n"
        table = run("ps", "--format", r"table {{.Names}}\t{{.Image}}").out.splitlines()
        assert table == ["NAMES     IMAGE", "name1     busybox:latest", "name2     busybox:latest"]

    def test_no_trunc_shows_the_whole_command(self, run: Any, engine: Any) -> None:
        engine.results["ps"] = [container(1)]
        assert '"sh -c echo a long command"' in run("ps", "--no-trunc").out

    def test_control_characters_of_labels_and_commands_are_escaped(self, run: Any, engine: Any) -> None:
        engine.results["ps"] = [container(1, command=("\x1b[2J",), labels={"a": "\x07"})]
        assert "\x1b" not in run("ps").out
        assert run("ps", "--format", "{{.Labels}}").out == "a=\\x07\n"

    @pytest.mark.parametrize(
        ("filters", "numbers"),
        [
            (["name=name1"], "1"),
            (["name=name1", "name=name3"], "13"),
            (["name=name", "status=exited"], "2"),
            (["exited=7"], "2"),
            (["label=a"], "13"),
            (["label=a=1"], "1"),
            (["label=a", "label=b"], "3"),
            (["volume=vol"], "3"),
            (["ancestor=busybox"], "123"),
            (["ancestor=other"], ""),
            (["id=22"], "2"),
            (["before=name1"], "23"),
            (["since=name3"], "12"),
            (["network=bridge"], "123"),
            (["name=^name[12]$"], "12"),
            (["ancestor=busybox:latest"], "123"),
            (["ancestor=cccc"], "123"),
            (["ancestor=sha256:cccccc"], "123"),
            (["before=22"], "3"),
        ],
    )
    def test_filters(self, run: Any, engine: Any, filters: list[str], numbers: str) -> None:
        engine.results["ps"] = [
            container(1, labels={"a": "1"}),
            container(2, status="exited", exit_code=7),
            container(3, labels={"a": "2", "b": ""}, volumes=("vol",)),
        ]
        flags = [word for text in filters for word in ("--filter", text)]
        out = run("ps", "-aq", *flags).out
        assert "".join(line[0] for line in out.splitlines()) == numbers

    @pytest.mark.parametrize("text", ["status", "nothing=x", "label!=x"])
    def test_filters_that_there_are_not(self, run: Any, engine: Any, text: str) -> None:
        done = run("ps", "--filter", text)
        assert (done.status, engine.calls) == (125, [])
        assert repr(text) in done.err

    @pytest.mark.parametrize(
        ("text", "status"),
        [("status=up", 125), ("exited=x", 125), ("name=[", 125), ("before=nosuch", 1), ("since=name", 1)],
    )
    def test_values_that_make_no_sense(self, run: Any, engine: Any, text: str, status: int) -> None:
        engine.results["ps"] = [container(1)]
        done = run("ps", "-a", "--filter", text)
        assert (done.status, done.out) == (status, "")
        assert repr(text.partition("=")[2])[1:-1] in done.err

    def test_an_empty_format_is_none(self, run: Any, engine: Any) -> None:
        engine.results["ps"] = [container(1)]
        assert run("ps", "--format", "").out == run("ps").out
        assert run("ps", "-q", "--format", "").out == "111111111111\n"


def image(number: int, *names: str, labels: dict[str, str] | None = None) -> Image:
    config = ImageConfig.new(architecture="amd64")
    config.config["Labels"] = labels
    digest = f"sha256:{number:x}" + "a" * 63
    manifest = Manifest(Descriptor(CONFIG, digest, 1), ())
    return Image(digest, digest, names, time.time_ns() - number * HOUR, manifest, config, 4_800_000)


class TestImages:
    @pytest.fixture(autouse=True)
    def images(self, engine: Any) -> None:
        engine.results["images"] = [
            image(2, "docker.io/library/busybox:1", "docker.io/library/busybox:latest"),
            image(3, "localhost:5000/app:v1", labels={"a": "1"}),
            image(4),
        ]

    def test_the_classic_table(self, run: Any) -> None:
        assert run("images").out.splitlines() == [
            "REPOSITORY           TAG       IMAGE ID       CREATED       SIZE",
            "busybox              1         2aaaaaaaaaaa   2 hours ago   4.8MB",
            "busybox              latest    2aaaaaaaaaaa   2 hours ago   4.8MB",
            "localhost:5000/app   v1        3aaaaaaaaaaa   3 hours ago   4.8MB",
            "<none>               <none>    4aaaaaaaaaaa   4 hours ago   4.8MB",
        ]

    def test_ids_come_once(self, run: Any) -> None:
        assert run("images", "-q").out.split() == ["2aaaaaaaaaaa", "3aaaaaaaaaaa", "4aaaaaaaaaaa"]

    def test_a_repository_or_reference_selects(self, run: Any) -> None:
        assert len(run("images", "-q", "busybox").out.split()) == 1
        assert len(run("images", "busybox:1").out.splitlines()) == 2
        assert run("images", "-q", "--filter", "reference=localhost*").out.split() == ["3aaaaaaaaaaa"]

    def test_dangling_and_labels(self, run: Any) -> None:
        assert run("images", "-q", "-f", "dangling=true").out.split() == ["4aaaaaaaaaaa"]
        assert len(run("images", "-q", "-f", "dangling=false").out.split()) == 2
        assert run("images", "-q", "-f", "label=a=1").out.split() == ["3aaaaaaaaaaa"]
        assert run("images", "-f", "dangling=perhaps").status == 125

    def test_before_since_until(self, run: Any, engine: Any) -> None:
        engine.results["image_inspect"] = {"Id": "sha256:3" + "a" * 63}
        assert run("images", "-q", "-f", "before=app").out.split() == ["4aaaaaaaaaaa"]
        assert run("images", "-q", "-f", "since=app").out.split() == ["2aaaaaaaaaaa"]
        assert run("images", "-q", "-f", "until=150m").out.split() == ["3aaaaaaaaaaa", "4aaaaaaaaaaa"]

    def test_digests(self, run: Any) -> None:
        assert "DIGEST" in run("images", "--digests").out.splitlines()[0]

    def test_a_time_that_makes_no_sense(self, run: Any) -> None:
        done = run("images", "-f", "until=yesterday")
        assert (done.status, done.out) == (125, "")
        assert done.err.startswith("minidock: invalid filter 'until=yesterday': use seconds")

    def test_a_damaged_one_is_listed_and_warned_of(self, run: Any, engine: Any) -> None:
        engine.results["images"] = [image(2, "docker.io/library/app:1")._replace(error="the blob x is missing")]
        done = run("images", "-q")
        assert done.out == "2aaaaaaaaaaa\n"
        assert done.err == (
            "minidock: warning: image app:1 is damaged: the blob x is missing; remove it: minidock rmi -f app:1\n"
        )


class TestVolumes:
    def test_the_table(self, run: Any, engine: Any) -> None:
        engine.results["volumes"] = [Volume("data", "/v/data/_data", (("a", "b"),), 1, False)]
        assert run("volume", "ls").out == "DRIVER    VOLUME NAME\nlocal     data\n"
        assert run("volume", "ls", "-q").out == "data\n"
        assert run("volume", "ls", "-q", "-f", "name=other").out == ""
        assert run("volume", "ls", "--format", "{{.Mountpoint}} {{.Labels}}").out == "/v/data/_data a=b\n"
        run("volume", "ls", "--filter", "dangling=1")
        assert engine.calls[-1] == ("volumes", (), {"dangling": True})


def test_tabulate_is_loaded_only_when_a_table_is_printed(
    run: Any, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.results["ps"] = [container(1)]
    monkeypatch.delitem(sys.modules, "tabulate", raising=False)
    for line in (("ps", "-q"), ("ps", "--format", "json"), ("ps", "--format", "{{.ID}}")):
        run(*line)
        assert "tabulate" not in sys.modules, line
    run("ps")
    assert "tabulate" in sys.modules


def test_filters_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="invalid filter 'x'"):
        Filters(["x"], known=("x",))
    assert Filters([], known=()).boolean("x") is None
    assert "x" in Filters(["x=1"], known=("x",))
