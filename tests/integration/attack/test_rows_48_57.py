"""Rows 48, 49 and 55 to 57 of SECURITY.md, section 2: a stranger's build context, image configuration and names."""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock.build.tree import DIRECTORY_FLAGS, open_real, real_path
from tests.integration.attack.tools import background, until

RUN = ("run", "--rm", "--network", "none")


def test_row_48_links_of_a_context_stay_links(minidock: Any, context: Callable[..., Path], sentinel: Any) -> None:
    folder = context("FROM busybox\nCOPY d /d\nCOPY --from=0 /d/absolute /copied\n", {"d/file": "x"})
    for name, target in (
        ("absolute", sentinel.path / "secret"),
        ("directory", sentinel.path),
        ("up", f"../../../../../../../..{sentinel.path}/secret"),
        ("through", "directory/secret"),
    ):
        (folder / "d" / name).symlink_to(target)
    os.mkfifo(folder / "d/fifo")
    text = minidock.build(folder, "-t", "links", status=None)
    # What the last line names leads out of the other stage: nothing is there.
    assert "/copied" in text
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY d /d\n")
    minidock.build(folder, "-t", "links")
    shown = minidock.out(
        *RUN,
        "links",
        "sh",
        "-c",
        "cd /d; for l in absolute directory; do readlink $l; done; cat file absolute up through 2>/dev/null; ls fifo",
    )
    assert sentinel.secret.strip() not in shown
    assert shown.splitlines()[:2] == [str(sentinel.path / "secret"), str(sentinel.path)]


@pytest.mark.parametrize(
    "source",
    [
        "../x",
        "../../../../../../../{sentinel}/secret",
        "{sentinel}/secret",
        "link",
        "folder/secret",
        "folder/../x/secret",
        "fold*/sec*",
        "./folder/./secret",
    ],
)
def test_row_48_no_source_is_outside(minidock: Any, context: Callable[..., Path], sentinel: Any, source: str) -> None:
    folder = context(f"FROM busybox\nCOPY {source.format(sentinel=sentinel.path)} /got/\n")
    (folder / "link").symlink_to(sentinel.path / "secret")
    (folder / "folder").symlink_to(sentinel.path)
    (folder.parent / "x").write_text(sentinel.secret)
    done = minidock("build", "-t", "got", folder, status=None)
    assert sentinel.secret.strip() not in done.stdout + done.stderr
    if done.returncode == 0:
        # A pattern that matches nothing copies nothing.
        assert "*" in source
        assert minidock.out(*RUN, "got", "sh", "-c", "cat /got/* 2>/dev/null; true") == ""


@pytest.mark.parametrize("file", ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore"])
def test_row_48_the_files_of_a_build_are_no_links_out(
    minidock: Any, context: Callable[..., Path], sentinel: Any, file: str
) -> None:
    folder = context("FROM busybox\nCOPY . /d\n")
    (folder / file).unlink(missing_ok=True)
    (folder / file).symlink_to(sentinel.path / "secret")
    done = minidock("build", "-t", "got", folder, status=125)
    assert sentinel.secret.strip() not in done.stdout + done.stderr
    assert file in done.stderr


@pytest.mark.race
def test_row_48_a_parent_that_becomes_a_link(
    minidock: Any, context: Callable[..., Path], sentinel: Any, build_static: Callable[..., Path], seconds: float
) -> None:
    """A directory of the context changes places with a link to the host all the time: its content is the context's,
    or the build fails."""
    folder = context(
        "FROM busybox\nCOPY one/two/secret /file\nCOPY one /tree\nCOPY on*/*/secret /glob\n",
        {"one/two/secret": "the context's\n", **{f"one/two/{number}": "x" for number in range(50)}},
    )
    (folder / "other").symlink_to(sentinel.path.parent / "as-if")
    (sentinel.path.parent / "as-if").mkdir()
    (sentinel.path.parent / "as-if/two").symlink_to(sentinel.path)
    outcomes = set()
    with background(build_static("swapper"), folder / "one", folder / "other"):
        for number in until(seconds):
            done = minidock("build", "--no-cache", "-t", f"got{number}", folder, status=None)
            assert sentinel.secret.strip() not in done.stdout + done.stderr
            outcomes.add(done.returncode)
    assert outcomes <= {0, 1}
    for image in minidock.out("images", "-q").split():
        shown = minidock.out(*RUN, image, "sh", "-c", "cat /file /tree/*/* /glob 2>/dev/null; true")
        assert sentinel.secret.strip() not in shown


@pytest.mark.race
def test_row_48_the_way_to_a_file_is_not_followed_twice(
    tmp_path: Path, sentinel: Any, build_static: Callable[..., Path], seconds: float
) -> None:
    """The same race at the place where it is decided, thousands of times: between finding a path and opening it."""
    folder = tmp_path / "folder"
    (folder / "one/two").mkdir(parents=True)
    (folder / "one/two/secret").write_text("the context's\n")
    (tmp_path / "as-if").mkdir()
    (tmp_path / "as-if/two").symlink_to(sentinel.path)
    (folder / "other").symlink_to(tmp_path / "as-if")
    read: Counter[str] = Counter()
    root = os.open(folder, DIRECTORY_FLAGS)
    with background(build_static("swapper"), folder / "one", folder / "other"):
        for _ in until(seconds):
            try:
                with open(open_real(root, real_path(root, "one/two/secret"), os.O_RDONLY)) as file:
                    read[file.read()] += 1
            except OSError as error:
                read[errno.errorcode[error.errno or 0]] += 1
    os.close(root)
    assert sentinel.secret not in read
    assert read.pop("the context's\n") > 100
    assert read.total() > 100, read


def test_row_49_an_ignore_file_that_never_ends(minidock: Any, context: Callable[..., Path]) -> None:
    folder = context("FROM busybox\n")
    os.mkfifo(folder / ".dockerignore")
    start = time.monotonic()
    done = minidock("build", folder, status=125, timeout=20)
    assert "not a regular file" in done.stderr
    (folder / ".dockerignore").unlink()
    os.mknod(folder / ".dockerignore", 0o020600, os.makedev(1, 5))
    assert "not a regular file" in minidock("build", folder, status=125, timeout=20).stderr
    assert time.monotonic() - start < 10


RULES = (
    "\n".join(f"{'!' if number % 2 else ''}d/n{number}*" for number in range(5_000)),
    "**/" * 30 + "x",
    "*a" * 60 + "b",
    "**a" * 40 + "/b",
    "?*" * 100 + "[!a-z]",
    "[" + "a-z" * 1000 + "]*" * 20,
)


def test_row_49_rules_that_take_for_ever(minidock: Any, context: Callable[..., Path]) -> None:
    folder = context("FROM busybox\nCOPY . /d\n", {"d/" + "a" * 200: "x", "/".join("a" * 30) + "/c": "y"})
    for rules in RULES:
        (folder / ".dockerignore").write_text(rules)
        start = time.monotonic()
        minidock("build", folder, status=None, timeout=60)
        assert time.monotonic() - start < 10, rules[:50]


def test_row_49_many_rules_take_their_share(minidock: Any, context: Callable[..., Path]) -> None:
    folder = context("FROM busybox\nCOPY . /d\n", {"x": "x"})

    def took(count: int) -> float:
        (folder / ".dockerignore").write_text("\n".join(f"x{number}/**/y" for number in range(count)))
        start = time.monotonic()
        minidock("build", folder, timeout=60)
        return time.monotonic() - start

    assert took(20_000) < 5 * 2 * took(4_000) + 1


def test_row_55_an_images_labels_and_environment_are_its_own(
    minidock: Any, context: Callable[..., Path], sentinel: Any, tmp_path: Path
) -> None:
    """Labels that name what an engine reads elsewhere, variables that its own programs would heed: inert."""
    marker = tmp_path / "marker"
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "sitecustomize.py").write_text(f"open({str(marker)!r}, 'w')\n")
    variables = {
        "LD_PRELOAD": f"{evil}/evil.so",
        "PYTHONPATH": str(evil),
        "PYTHONHOME": str(evil),
        "PYTHONSTARTUP": f"{evil}/sitecustomize.py",
        "MINIDOCK_ROOT": str(evil),
        "MINIDOCK_CONFIG": str(evil),
        "GCONV_PATH": str(evil),
        "_LIBCONTAINER_INITPIPE": "3",
    }
    labels = {
        "io.podman.annotations.privileged": "TRUE",
        "io.kubernetes.cri-o.userns-mode": "host",
        "run.oci.keep_original_groups": "1",
        "module.wasm.image/variant": "compat",
        "privileged": "true",
        "security_opt": "seccomp=unconfined",
        "cap_add": "ALL",
        "io.minidock.privileged": "true",
        "com.docker.volume.anonymous": "",
    }
    lines = [f"ENV {name}={value}" for name, value in variables.items()]
    lines += [f'LABEL "{name}"="{value}"' for name, value in labels.items()]
    minidock.build(
        context("\n".join(["FROM busybox", *lines, 'ENV TWO="one', 'two=2"']).replace("one\ntwo", "one two")),
        "-t",
        "evil",
    )
    minidock("run", "-d", "--name", "it", "--network", "none", "-e", "LINES=one\nLD_AUDIT=x", "evil", "sleep", "1000")
    inner = minidock.out("exec", "it", "sh", "-c", "tr '\\n\\0' '/\\n' < /proc/1/environ").splitlines()
    assert {f"{name}={value}" for name, value in variables.items()} <= set(inner)
    assert "LINES=one/LD_AUDIT=x" in inner, "a line break does not begin a variable"
    status = minidock.out("exec", "it", "cat", "/proc/1/status")
    assert "CapEff:\t00000000a80425fb" in status
    assert "Seccomp:\t2" in status
    first = minidock.inspect("it")["State"]["Pid"]
    engine = [
        int(entry)
        for entry in os.listdir("/proc")
        if entry.isdigit() and int(entry) != first and str(evil).encode() in environ_of(int(entry))
    ]
    assert engine == [], "the image's environment reaches no process of the host"
    minidock("exec", "it", "true")
    minidock("stop", "-t", "0", "it")
    assert minidock.inspect("it")["HostConfig"]["Privileged"] is False
    assert not marker.exists()


def environ_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


REFERENCES = [
    "",
    " ",
    "-x",
    "--privileged",
    "a@b",
    "a@sha256:../../../../etc/passwd",
    "a@sha256:" + "g" * 64,
    "a@sha256:" + "A" * 64,
    "a%2e%2e/b",
    "a%00b",
    "../a",
    "a/../b",
    "/etc/passwd",
    "./a",
    "a//b",
    "a/",
    "a:",
    "a:b:c",
    "a:../b",
    "a:" + "t" * 129,
    "a" * 5120,
    "a\nb",
    "a b",
    "a\x1b[31m",
    "ä",
    "xn--/é",
    "a\u2215b",
    "a\uff0fb",
    "a\u202eb",
    "UPPER",
    "http://a/b",
    "a;reboot",
    "$(reboot)",
    "a?x=y",
    "a#b",
]


@pytest.mark.parametrize("verb", ["tag", "run", "rmi", "import", "build", "from"])
def test_row_56_what_is_no_reference(minidock: Any, context: Callable[..., Path], tmp_path: Path, verb: str) -> None:
    """All of them for one verb, every fourth for the others: they share the parser."""
    tar = tmp_path / "empty.tar"
    tar.write_bytes(bytes(1024))
    before = (minidock.root / "images/index.json").read_bytes()
    first = ("tag", "run", "rmi", "import", "build", "from").index(verb)
    for text in REFERENCES if verb == "tag" else REFERENCES[first % 4 :: 4]:
        if verb == "from" and ("\n" in text or not text.strip() or text.startswith("-")):
            continue
        command = {
            "tag": ("tag", "busybox", "--", text),
            "run": ("run", "--rm", "--", text, "true"),
            "rmi": ("rmi", "--", text),
            "import": ("import", "--", tar, text),
            "build": ("build", f"--tag={text}", context("FROM scratch\nLABEL a=b\n")),
            "from": ("build", context(f"FROM {text}\nLABEL a=b\n")),
        }[verb]
        if verb == "import" and not text:
            continue
        done = minidock(*command, status=None)
        assert done.returncode in (1, 2, 125), (text, done.returncode, done.stdout, done.stderr)
        assert done.stdout == "", text
        assert "\x1b" not in done.stderr
    assert (minidock.root / "images/index.json").read_bytes() == before
    assert minidock.out("ps", "-aq") == ""


NAMES = [
    "../x",
    "..",
    ".",
    "/",
    "/etc",
    "-a",
    "a/b",
    "a/../../b",
    ".hidden",
    "_x",
    "a\nb",
    "a b",
    "ä1",
    "a" * 300,
    "a%2f",
    "x",
]


def test_row_57_names_are_no_paths(minidock: Any, sentinel: Any) -> None:
    before = sorted(os.listdir(minidock.root / "volumes"))
    victim = os.path.relpath(sentinel.path, minidock.root / "volumes")
    makes = (("volume", "create", "--"), ("create", "busybox"), ("run", "--rm", "busybox"))
    finds = (("volume", "rm"), ("volume", "inspect"), ("inspect",), ("logs",), ("rm",), ("exec",))
    for number, name in enumerate([victim, victim, victim, *NAMES]):
        verb = makes[number % 3]
        named = (*verb, name) if verb[0] == "volume" else (verb[0], f"--name={name}", *verb[1:], "true")
        done = minidock(*named, status=None)
        assert done.returncode in (1, 2, 125), (named, done.stdout, done.stderr)
        verb = finds[number % 6]
        done = minidock(*verb, "--", name, *(("true",) if verb == ("exec",) else ()), status=None)
        assert done.returncode != 0, (verb, name, done.stdout)
        assert sentinel.secret.strip() not in done.stdout + done.stderr
    for verb in finds:
        assert minidock(*verb, "--", victim, *(("true",) if verb == ("exec",) else ()), status=None).returncode != 0
    assert sorted(os.listdir(minidock.root / "volumes")) == before
    assert minidock.out("ps", "-aq") == ""
