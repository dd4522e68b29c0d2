"""IMAGE~N: the image before its last steps, wherever an image can be named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock import Engine
from minidock.errors import InvalidReferenceError, NoSuchImageError
from minidock.store.layout import DataRoot

DOCKERFILE = """FROM busybox
ENV STATE=one
RUN --network=none echo 1 > /one
WORKDIR /work
RUN --network=none echo 2 > /two
ENV STATE=two
USER 7
CMD ["cat", "/two"]
"""
LINES = 10


@pytest.fixture
def app(minidock: Any, context: Callable[..., Path]) -> Any:
    minidock.build(context(DOCKERFILE), "-t", "app")
    return minidock


def run(minidock: Any, image: str, *command: str, status: int = 0) -> str:
    out: str = minidock("run", "--rm", "--network", "none", image, *command, status=status).stdout
    return out.rstrip("\n")


def test_every_line_of_the_history_is_a_step(app: Any) -> None:
    lines = app.out("history", "--format", "{{.Step}} {{.CreatedBy}}", "app").splitlines()
    assert lines[0] == '~0 CMD ["cat" "/two"]'
    assert len(lines) == LINES - 1
    for number, line in enumerate(lines):
        assert line.startswith(f"~{number} ")
        shown = app.out("history", "--no-trunc", "--format", "{{.CreatedBy}}", f"app~{number}").splitlines()
        assert shown == app.out("history", "--no-trunc", "--format", "{{.CreatedBy}}", "app").splitlines()[number:]


def test_it_runs_as_it_was(app: Any) -> None:
    look = "echo $(id -u) $PWD $STATE $(ls / | grep -E '^(one|two)$')"
    assert run(app, "app") == "2"
    for step, seen in {
        "~1": "7 /work two one two",
        "~2": "0 /work two one two",
        "~3": "0 /work one one two",
        "~4": "0 /work one one",
        "~5": "0 / one one",
        "~6": "0 / one",
        "~7": "0 /",
    }.items():
        assert run(app, f"app{step}", "sh", "-c", look) == seen, step
    assert run(app, "app~", "sh", "-c", look) == run(app, "app~1", "sh", "-c", look)
    assert run(app, "app~2~2", "sh", "-c", look) == run(app, "app~4", "sh", "-c", look)
    identity = app.out("images", "-q", "app")
    assert run(app, f"{identity}~4", "sh", "-c", look) == "0 /work one one"
    assert app.inspect("app~4")["Config"]["Cmd"] == ["sh"], "the base image's"


def test_what_is_out_of_range_or_no_number(app: Any, context: Callable[..., Path]) -> None:
    done = app("run", "--rm", f"app~{LINES - 1}", status=125)
    assert done.stderr.splitlines()[0] == ("minidock: there is no app~9: the image app has 9 steps, app~0 to app~8")
    assert "minidock history app" in done.stderr
    assert "a number of steps has to follow '~'" in app("run", "--rm", "app~x", status=125).stderr
    assert "no such image: nothing" in app("run", "--rm", "nothing~1", status=125).stderr
    err = app.build(context("FROM app~9\n"), status=1)
    assert "there is no app~9: the image app has 9 steps, app~0 to app~8" in err
    assert "only" not in app.build(context("FROM app~4\nRUN --network=none cat /one\n"), "--pull")
    for line in (("tag", "app", "app~1"), ("build", "-t", "app~1", "."), ("build", "-t", "FAILED", ".")):
        assert "invalid" in app(*line, status=None).stderr


def test_wherever_an_image_is_named(app: Any, context: Callable[..., Path]) -> None:
    app("tag", "app~4", "app:before")
    assert run(app, "app:before", "ls", "/one") == "/one"
    inspected = app.inspect("app~4")
    assert inspected["Id"] == app.inspect("app:before")["Id"]
    assert (inspected["RepoTags"], len(inspected["RootFS"]["Layers"])) == ([], 3)
    text = "FROM app~5 AS base\nRUN --network=none ls /one && ! ls /two\nCOPY --from=app~2 /two /copied\n"
    app.build(context(text), "-t", "other")
    assert run(app, "other", "cat", "/copied") == "2"
    assert "mount" in app.out("explain", "run", "app~4")
    container = app.out("create", "--network", "none", "app~4", "ls", "/one")
    assert app.out("start", "-a", container) == "/one"
    assert app.inspect(container)["Image"] == app.inspect("app")["Id"]
    assert app.inspect(container)["Config"]["Image"] == "app~4"
    assert "app~4" in app.out("ps", "-a")
    assert app.out("images", "-q", "--filter", "dangling=true") == "", "nothing is stored for it"


def test_it_goes_with_its_image(app: Any) -> None:
    assert "a step of an image goes with the image" in app("rmi", "app~1", status=1).stderr
    container = app.out("create", "--network", "none", "app~4", "cat", "/one")
    assert "container" in app("rmi", "app", status=1).stderr
    app("rmi", "-f", "app")
    app("builder", "prune", "-af")
    assert app.out("start", "-a", container) == "1", "a container keeps its layers"
    done = app("system", "check")
    assert "missing" not in done.stdout


def test_images_of_other_makers(minidock: Any, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("x")
    os.system(f"tar -C {tmp_path}/tree -cf {tmp_path}/root.tar .")
    minidock("import", tmp_path / "root.tar", "mine")
    assert minidock.inspect("mine~0")["Id"] == minidock.inspect("mine")["Id"]
    done = minidock("run", "--rm", "mine~1", status=125)
    assert "the image mine has only mine~0" in done.stderr
    index = Path(DataRoot(str(minidock.root)).images) / "index.json"
    assert "~" not in json.dumps([entry["annotations"] for entry in json.loads(index.read_text())["manifests"]])


def test_as_a_library(app: Any) -> None:
    engine = Engine(str(app.root))
    result = engine.run("app~4", "cat", "/one", network="none", auto_remove=True)
    assert result.stdout == b"1\n"
    assert engine.tag("app~4", "kept") == "docker.io/library/kept:latest"
    assert [line.created_by for line in engine.history("app~4")] == [line.created_by for line in engine.history("app")][
        4:
    ]
    with pytest.raises(NoSuchImageError):
        engine.image_inspect("app~99")
    with pytest.raises(InvalidReferenceError):
        engine.rmi("app~1")
