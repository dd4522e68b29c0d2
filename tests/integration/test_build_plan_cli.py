"""``build --plan``, ``build --explain`` and ``explain build`` of the command itself."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from minidock.engine.engine import Engine
from minidock.model.forecast import CACHED, RUNS
from minidock.store.layout import DataRoot

TEXT = """FROM busybox
ARG V=1
COPY f /f
RUN cat /f
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(TEXT)
    (context / "f").write_text("1")
    return context


def snapshot(root: Path) -> list[tuple[Any, ...]]:
    """Every path below a data root, with its mode, owner, size, times of change and content."""
    found = []
    for directory, _, files in os.walk(root):
        for name in ["", *files]:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content = Path(path).read_bytes() if stat.S_ISREG(status.st_mode) else b""
            times = (status.st_mtime_ns, status.st_ctime_ns)
            digest = hashlib.sha256(content).hexdigest()
            found.append((path, status.st_mode, status.st_uid, status.st_gid, status.st_size, *times, digest))
    return sorted(found)


def test_the_table_and_the_status(minidock: Any, context: Path) -> None:
    command = ("build", "--network", "none", "--plan", context)
    before = snapshot(minidock.root)
    done = minidock(*command, status=10)
    assert snapshot(minidock.root) == before
    assert done.stderr == ""
    header, *rows, summary = done.stdout.splitlines()
    assert header.split() == ["STEP", "FORECAST", "COPIES", "LAYER", "WHY"]
    assert [row.split("   ")[0] for row in rows] == ["[1/3] FROM busybox", "[2/3] COPY f /f", "[3/3] RUN cat /f"]
    assert " ".join(rows[1].split()) == "[2/3] COPY f /f runs 1 file, 1B nothing like it was built before"
    assert summary == "3 steps: 1 cached, 2 to run; 1 file with 1B to copy"
    minidock.build(context, "--network", "none")
    before = snapshot(minidock.root)
    assert minidock.out(*command).splitlines()[-1] == "3 steps: 3 cached"
    (context / "f").write_text("2")
    rows = minidock(*command, status=10).stdout.splitlines()
    assert "file f was sha256:6b86b273ff34, is sha256:d4735e3a265e" in rows[2]
    assert "may run" in rows[3]
    assert snapshot(minidock.root) == before


def test_a_plan_leaves_no_mark_even_of_the_first_look_after_a_boot(minidock: Any, context: Path) -> None:
    """What a reboot loses in /run, and what killed commands left in the data root, stays as it is."""
    text = "FROM scratch\nCOPY --from=busybox /etc/group /x\n"
    (context / "Dockerfile").write_text(text)
    for path in Path(DataRoot(str(minidock.root)).run).glob("*.probe"):
        path.unlink()
    (minidock.root / "tmp/half-made").mkdir()
    before = snapshot(minidock.root)
    assert "may run" not in minidock("build", "--plan", context, status=10).stdout, "no such copy was ever made"
    assert snapshot(minidock.root) == before


def test_no_data_root_is_made(empty_minidock: Any, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY f /f\n")
    minidock = empty_minidock
    assert "[1/1] COPY f /f   runs" in minidock("build", "--plan", context, status=10).stdout
    assert not minidock.root.exists()
    (context / "Dockerfile").write_text(TEXT)
    assert "there is no image 'busybox'" in minidock("build", "--plan", context, status=1).stderr
    assert not minidock.root.exists()


def test_a_context_of_elsewhere_goes_nowhere(minidock: Any, context: Path) -> None:
    """A tar on standard input is unpacked outside of the data root; what a killed plan left goes with the next."""
    plans = Path(DataRoot(str(minidock.root)).run) / "plans/tmp"
    (plans / "left").mkdir(parents=True)
    before = snapshot(minidock.root)
    tar = subprocess.run(["tar", "-C", context, "-c", "."], check=True, capture_output=True).stdout
    plan = subprocess.run(
        [minidock.command, "build", "--plan", "-"], env=minidock.environment, input=tar, capture_output=True
    )
    assert (plan.returncode, plan.stderr) == (10, b"")
    assert b"1 file with 1B to copy" in plan.stdout
    assert snapshot(minidock.root) == before
    assert list(plans.iterdir()) == []


def test_quiet_and_json(minidock: Any, context: Path) -> None:
    assert minidock("build", "--plan", "-q", context, status=10).stdout == ""
    done = minidock("build", "--plan", "--progress=rawjson", context, status=10)
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(step["title"], step["forecast"], step["files"]) for step in steps][1] == ("[2/3] COPY f /f", RUNS, 1)
    done = minidock("build", "--plan", "--progress=loud", context, status=125)
    assert "there is no progress 'loud'" in done.stderr


def test_a_broken_file_and_warnings(minidock: Any, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUNN x\n")
    failed = minidock("build", "--plan", context, status=None)
    assert failed.returncode == minidock("build", context, status=None).returncode != 10
    assert "unknown instruction: RUNN" in failed.stderr
    (context / "Dockerfile").write_text("FROM busybox as x\n")
    done = minidock("build", "--plan", context)
    assert "WARNING: FromAsCasing" in done.stderr


def test_nothing_that_a_build_leaves_is_left(minidock: Any, context: Path, tmp_path: Path) -> None:
    iidfile = tmp_path / "iid"
    iidfile.write_text("of an earlier build")
    left = ("-t", "new", "--iidfile", iidfile, "-o", f"type=oci,dest={tmp_path}/out", "--provenance=true", "--squash")
    minidock("build", "--plan", *left, "--cache-to", f"type=local,dest={tmp_path}/cache", context, status=10)
    assert iidfile.read_text() == "of an earlier build"
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "cache").exists()
    assert "new" not in minidock.out("images")


def test_explain_build_tells_what_each_step_is(minidock: Any, context: Path) -> None:
    told = minidock("explain", "build", "--network", "none", context, status=10).stdout
    assert "[3/3] RUN cat /f: runs\n    The command runs in a container on the layers so far" in told
    assert "(copy on write)" in told
    assert "It copies 1 file, 1B." in told
    minidock.build(context, "--network", "none")
    told = minidock("explain", "build", "--network", "none", context).stdout
    assert "[3/3] RUN cat /f: cached\n" in told
    assert "It made no difference, so there is no layer of it." in told


def test_explain_in_every_form_of_progress(minidock: Any, context: Path) -> None:
    options = ("--network", "none", "--explain")
    assert "\n#5 miss: nothing like it was built before\n" in minidock.build(context, *options)
    assert " miss: " not in minidock.build(context, *options), "all is cached"
    told = minidock("build", *options, "-q", "--build-arg", "V=2", context)
    assert told.stderr == "[3/3] RUN cat /f: miss: ARG V was '1', is '2'\n"
    assert told.stdout.startswith("sha256:")
    events = minidock.build(context, *options, "--progress=rawjson", "--build-arg", "V=3")
    logs = [log for line in events.splitlines() for log in json.loads(line).get("logs", ())]
    assert any(base64.b64decode(log["data"]).startswith(b"miss: ARG V was ") for log in logs)


def test_a_stage_in_a_process_of_its_own_is_explained_once(minidock: Any, context: Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM busybox AS a\nARG V=1\nRUN echo $V > /a\nRUN echo a\nFROM busybox AS b\nARG V=1\nRUN echo $V > /b\n"
        "FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    )
    minidock.build(context, "--network", "none", "--jobs", "2")
    told = minidock.build(context, "--network", "none", "--jobs", "2", "--explain", "--build-arg", "V=2")
    assert told.count("miss: ARG V was '1', is '2'") == 3
    assert told.count("miss: below it, [a 2/3] RUN echo $V > /a is made anew") == 1
    assert "miss: file a was " in told
    assert "miss: file b was " in told


def test_the_engine_gives_values(minidock: Any, context: Path) -> None:
    """Also to a program with threads, which is not forked."""
    minidock.build(context, "--network", "none")
    options: dict[str, Any] = {"network": "none", "build_args": {"V": "2"}}
    plans = [Engine(str(minidock.root), may_fork=True).plan(str(context), **options)]
    thread = threading.Thread(target=lambda: plans.append(Engine(str(minidock.root)).plan(str(context), **options)))
    thread.start()
    thread.join()
    assert plans[0] == plans[1]
    assert [step.forecast for step in plans[1]] == [CACHED, CACHED, RUNS]
    assert plans[1][2].why == ("ARG V was '1', is '2'",)
    assert (plans[1][1].files, plans[1][1].size) == (1, 1)


def test_a_pruned_cache_has_no_listings(minidock: Any, context: Path) -> None:
    listings = minidock.root / "cache/listings"
    minidock.build(context, "--network", "none")
    minidock("builder", "prune", "-f", "--filter", "type=http")
    assert len(list(listings.iterdir())) == 1
    minidock("builder", "prune", "-af")
    assert list(listings.iterdir()) == []
    shutil.rmtree(listings)
    minidock.build(context, "--network", "none")
    assert len(list(listings.iterdir())) == 1
