"""The command line on the real kernel: explain, statuses, streams, and what docker's users type."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def test_exec_input_ends(minidock: Any) -> None:
    minidock("run", "-d", "--name", "web", "--network", "none", "busybox", "sleep", "100")
    assert minidock("exec", "-i", "web", "cat", stdin="text", timeout=10).stdout == "text"
    assert minidock("exec", "web", "cat", timeout=10).stdout == ""
    assert minidock("exec", "-i", "web", "wc", "-c", stdin="x" * 300000, timeout=10).stdout.strip() == "300000"


def test_exec_statuses(minidock: Any) -> None:
    minidock("run", "-d", "--name", "web", "--network", "none", "busybox", "sleep", "100")
    minidock("exec", "web", "sh", "-c", "exit 9", status=9)
    minidock("exec", "web", "no-such", status=127)
    minidock("exec", "web", "/etc", status=126)
    minidock("exec", "web", "sh", "-c", "kill -9 $$", status=137)
    done = minidock("exec", "-u", "3:4", "-w", "/tmp", "-e", "A=b", "web", "sh", "-c", "echo $(id -u):$(id -g) $PWD $A")
    assert done.stdout == "3:4 /tmp b\n"
    minidock("stop", "-t", "0", "web")
    minidock("exec", "web", "true", status=1)


def test_a_detached_exec_holds_nobody_up(minidock: Any) -> None:
    minidock("run", "-d", "--name", "web", "--network", "none", "busybox", "sleep", "100")
    begun = time.monotonic()
    minidock("exec", "-d", "web", "sh", "-c", "sleep 5; touch /late", timeout=20)
    assert time.monotonic() - begun < 4


def test_a_closed_pipe_is_no_traceback(minidock: Any) -> None:
    minidock("run", "--name", "long", "--network", "none", "busybox", "sh", "-c", "seq 200000")
    process = minidock.popen("logs", "long")
    process.stdout.readline()
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert process.wait(10) == 141
    assert stderr == b""


def test_lists_formats_and_filters(minidock: Any) -> None:
    minidock("create", "--name", "one", "-l", "a=b", "busybox", "true")
    minidock("create", "--name", "two", "busybox", "true")
    assert minidock.out("ps", "-a", "--format", "{{.Names}}").split() == ["two", "one"]
    assert minidock.out("ps", "-a", "--filter", "label=a", "--format", "{{.Names}}: {{.Status}}") == "one: Created"
    assert json.loads(minidock.out("inspect", "one"))[0]["Config"]["Labels"] == {"a": "b"}
    assert minidock.out("inspect", "-f", "{{.State.Status}} {{.Name}}", "one") == "created /one"
    assert json.loads(minidock.out("info", "-f", "json"))["ContainersStopped"] == 2
    minidock("rm", "one", "absent", "two", status=1)
    assert minidock.out("ps", "-aq") == ""


def test_the_same_name_twice_is_a_conflict(minidock: Any) -> None:
    first = minidock.out("create", "--name", "same", "busybox", "true")
    done = minidock("create", "--name", "same", "busybox", "true", status=125)
    assert first[:12] in done.stderr
    assert "already in use" in done.stderr


def test_an_unknown_driver_says_what_works(minidock: Any) -> None:
    done = minidock("--storage-driver", "btrfs", "run", "--rm", "busybox", "true", status=125)
    assert "btrfs" in done.stderr
    assert "overlay2" in done.stderr


def test_the_way_of_run_loads_neither_click_nor_other_heavy_modules(minidock: Any) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("minidock"), "run", "--rm", "--network", "none", "busybox", "true"],
        env={**minidock.environment, "PYTHONPROFILEIMPORTTIME": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "minidock.engine.containers" in loaded
    heavy = {"click", "tabulate", "subprocess", "tempfile", "logging", "dataclasses", "pyroute2", "asyncio", "tarfile"}
    assert not heavy & loaded


def test_the_looks_for_damage_say_what_they_found_and_what_helps(minidock: Any) -> None:
    image = minidock.inspect("busybox")["Id"]
    assert minidock.out("image", "verify", "busybox") == f"busybox:latest ({image[7:19]}): ok"
    assert minidock.out("image", "verify", "-q") == ""
    done = minidock("image", "verify", "absent", "busybox", status=1)
    assert done.stdout == f"busybox:latest ({image[7:19]}): ok\n"
    assert done.stderr.startswith("minidock: no such image: absent\n")
    assert minidock.out("system", "check").startswith("Checked 1 image, 0 containers, 3 blobs (")
    config = Path(minidock.root, "images/blobs/sha256", image[7:])
    data = config.read_bytes()
    config.unlink()
    assert minidock("image", "verify", status=1).stdout == (
        f"busybox:latest ({image[7:19]}): the configuration {image} is missing; "
        f"remove the image with `minidock rmi -f {image[7:19]}` and make it again\n"
    )
    assert ": 1 problem\n" in minidock("system", "check", "--repair", status=1).stdout
    config.write_bytes(data)
    os.mkdir(f"{minidock.root}/tmp/left")
    assert "the next command removes it" in minidock("system", "check", status=1).stdout
    assert minidock.out("system", "check", "--repair").endswith(": all is well, 1 repaired")
    assert minidock.out("system", "check").endswith(": all is well")
