"""The parts of a build that need no files: graph, arguments, keys, progress, archives, owners."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from minidock.build.accounts import identity_in, owner_in
from minidock.build.arguments import Arguments, host_platform
from minidock.build.cache import BuildCache, CacheRecord, make_key
from minidock.build.copy_flags import read_mode
from minidock.build.graph import build_graph, find_target, reachable
from minidock.build.progress import PlainProgress, QuietProgress
from minidock.dockerfile.parser import parse
from minidock.errors import DockerfileError, MinidockError, UsageError
from minidock.model.digest import digest_of
from minidock.store.layout import DataRoot

GRAPH = """\
ARG BASE=scratch
FROM $BASE AS one
FROM scratch AS two
COPY --from=one /a /
FROM one AS three
COPY --from=0 /a /
FROM image AS four
COPY --from=two /a /
COPY --from=other:1 /a /
FROM three
COPY --from=FOUR /a /
"""


def test_graph_holds_what_each_stage_needs() -> None:
    nodes = build_graph(parse(GRAPH), {"BASE": "debian"})
    assert [(n.name, n.reference, n.base, n.needs) for n in nodes] == [
        ("one", "debian", -1, ()),
        ("two", "scratch", -1, (0,)),
        ("three", "one", 0, (0,)),
        ("four", "image", -1, (1,)),
        ("", "three", 2, (2, 3)),
    ]
    assert reachable(3, lambda index: nodes[index].needs) == [0, 1, 3]
    assert reachable(4, lambda index: nodes[index].needs) == [0, 1, 2, 3, 4]
    assert reachable(2, lambda index: nodes[index].needs) == [0, 2]


def test_a_name_given_twice_means_the_latest_before() -> None:
    nodes = build_graph(parse("FROM a AS x\nFROM b AS x\nFROM x\nFROM c AS x\n"), {})
    assert nodes[2].base == 1


def test_a_stage_may_bear_the_name_of_its_base() -> None:
    nodes = build_graph(parse("FROM busybox AS busybox\nFROM busybox\n"), {})
    assert [node.base for node in nodes] == [-1, 0]


def test_base_that_is_empty_names_its_line() -> None:
    with pytest.raises(DockerfileError, match="empty after expansion") as caught:
        build_graph(parse("FROM a\nFROM $NOTHING\n"), {})
    assert caught.value.line == 2


def test_targets() -> None:
    dockerfile = parse(GRAPH)
    assert [find_target(dockerfile, name) for name in ("", "one", "Two", "2")] == [4, 0, 1, 2]
    with pytest.raises(DockerfileError, match="no stage 'thre'") as caught:
        find_target(dockerfile, "thre")
    assert caught.value.hint == "did you mean three?"
    with pytest.raises(DockerfileError):
        find_target(dockerfile, "5")


def _scope(text: str, **given: str) -> Arguments:
    arguments = Arguments(given.items(), target="t")
    for instruction in parse(f"{text}\nFROM scratch\n").global_args:
        arguments.declare_global(instruction, escape="\\")
    return arguments


def test_global_arguments() -> None:
    arguments = _scope("ARG A=1 B=${A}2\nARG C\nARG D=d", D="given")
    assert {name: arguments.scope.get(name) for name in "ABCD"} == {"A": "1", "B": "12", "C": None, "D": "given"}
    assert arguments.scope["TARGETPLATFORM"] == arguments.scope["BUILDPLATFORM"] == host_platform()
    assert arguments.scope["TARGETSTAGE"] == "t"


def test_value_of_an_argument_in_a_stage() -> None:
    arguments = _scope("ARG A=global\nARG B=global", B="given", E="undeclared")
    assert arguments.value("A", None) == "global"
    assert arguments.value("A", "default") == "default"
    assert arguments.value("B", "default") == "given"
    assert arguments.value("NONE", None) is None
    assert arguments.value("TARGETOS", None) == "linux"
    assert arguments.unused() == ["E"]


def test_automatic_arguments_can_be_given() -> None:
    assert _scope("", TARGETARCH="mips").value("TARGETARCH", None) == "mips"


def test_proxies_do_not_override() -> None:
    arguments = Arguments([("HTTP_PROXY", "a"), ("no_proxy", "b")])
    assert arguments.proxies({"no_proxy": "own"}) == {"HTTP_PROXY": "a", "http_proxy": "a"}
    assert arguments.proxies({"NO_PROXY": "own", "HTTP_PROXY": "own"}) == {}
    assert Arguments([("ftp_proxy", "a"), ("FTP_PROXY", "b")]).proxies({}) == {"ftp_proxy": "a", "FTP_PROXY": "b"}


def test_key_depends_on_all_inputs_and_their_place() -> None:
    layer = digest_of(b"layer")
    keys = [
        make_key((), a="1", b="2"),
        make_key((layer,), a="1", b="2"),
        make_key((layer, layer), a="1", b="2"),
        make_key((), a="2", b="1"),
        make_key((), a="12", b=""),
        make_key((), a=["1"], b="2"),
    ]
    assert len({key.digest for key in keys}) == len(keys)
    assert make_key((), a="1", b="2") == keys[0]
    assert keys[1].inputs == {"below": layer, "a": "1", "b": "2"}


def test_records(tmp_path: Path) -> None:
    root = DataRoot(str(tmp_path / "root"), run=str(tmp_path / "run"))
    root.ensure()
    cache, key = BuildCache(root), make_key((), a="1")
    assert cache.find(key) is None
    cache.save(key, CacheRecord(None, "then"))
    assert cache.find(key) == CacheRecord(None, "then")
    path = Path(root.cache) / "build" / f"{key.digest[7:]}.json"
    assert json.loads(path.read_text())["inputs"] == {"below": "", "a": "1"}
    for damage in ("", "[]", "{}", '{"created": 1, "diff_id": null}', '{"created": "x", "diff_id": "../../x"}'):
        path.write_text(damage)
        assert cache.find(key) is None
    assert os.listdir(root.tmp) == []


def _plain() -> tuple[PlainProgress, io.BytesIO]:
    stream = io.BytesIO()
    return PlainProgress(stream.write), stream


def test_plain_progress_lines() -> None:
    progress, stream = _plain()
    progress.step("[internal] first").done()
    step = progress.step("[2/4] RUN one\ntwo")
    step.output(b"first\nsec")
    step.output(b"ond\nprogress 1%\rprogress 99%\r\nlast")
    step.done()
    progress.step("x").cached()
    progress.step("y").error("it\nbroke")
    progress.warning("careful")
    lines = [line for line in stream.getvalue().decode().splitlines() if line]
    shown = [line if " 0." not in line else line.split(" ", 2)[0] + " T " + line.split(" ", 2)[2] for line in lines]
    assert lines[1] == "#1 DONE 0.0s"
    assert shown[2:7] == ["#2 [2/4] RUN one two", "#2 T first", "#2 T second", "#2 T progress 99%", "#2 T last"]
    assert lines[7] == "#2 DONE 0.0s"
    assert lines[8:] == ["#3 x", "#3 CACHED", "#4 y", "#4 ERROR: it broke", "WARNING: careful"]


def test_progress_escapes_what_a_dockerfile_says() -> None:
    progress, stream = _plain()
    progress.step("RUN echo \x1b]52;c;x\x07\u202e ü\tx").error("bad \x9b31m \udcff\r")
    progress.warning("\x1b[2J\nnext line")
    QuietProgress(stream.write).warning("\x1b[2J")
    lines = [line for line in stream.getvalue().decode().split("\n") if line]
    assert lines == [
        "#1 RUN echo \\x1b]52;c;x\\x07\\u202e ü x",
        "#1 ERROR: bad \\x9b31m \\udcff",
        "WARNING: \\x1b[2J",
        "next line",
        "WARNING: \\x1b[2J",
    ]


def test_output_without_end_is_shown_in_pieces() -> None:
    progress, stream = _plain()
    step = progress.step("x")
    for _ in range(10):
        step.output(b"z" * 1000)
    assert stream.getvalue().count(b"z") >= 5000


def test_quiet_progress_says_only_what_failed() -> None:
    stream = io.BytesIO()
    progress = QuietProgress(stream.write)
    good, bad = progress.step("x"), progress.step("y")
    good.output(b"unheard")
    good.done()
    bad.output(b"heard")
    bad.error("failed")
    assert stream.getvalue() == b"heard\n"


@pytest.mark.parametrize(
    ("text", "mode"), [("755", 0o755), ("0644", 0o644), ("4755", 0o4755), ("0", 0), ("07777", 0o7777)]
)
def test_octal_modes(text: str, mode: int) -> None:
    assert read_mode(text) == mode


@pytest.mark.parametrize("text", ["8", "77777", "0x7", "-1", " 755", "rwx"])
def test_modes_that_are_refused(text: str) -> None:
    with pytest.raises(MinidockError, match="--chmod"):
        read_mode(text)


def test_owners(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:100:200::/app:/bin/sh\n")
    (tmp_path / "etc/group").write_text("staff:x:50:app\n")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert owner_in(fd, "1") == (1, 1)
        assert owner_in(fd, "1:2") == (1, 2)
        assert owner_in(fd, "app") == (100, 100), "a user alone: its number is the group's too"
        assert owner_in(fd, "app:staff") == (100, 50)
        assert owner_in(fd, "7:staff") == (7, 50)
        assert identity_in(fd, "app").groups == (200, 50)
        with pytest.raises(UsageError, match="unable to find user nobody"):
            owner_in(fd, "nobody")
        with pytest.raises(UsageError):
            owner_in(fd, "app:")
    finally:
        os.close(fd)


def test_hostile_account_files(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        os.mkfifo(tmp_path / "etc/fifo")
        os.symlink("fifo", tmp_path / "etc/passwd")
        with pytest.raises(MinidockError, match="not a regular file"):
            owner_in(fd, "app")
        (tmp_path / "etc/passwd").unlink()
        with (tmp_path / "etc/passwd").open("wb") as file:
            file.truncate(2 << 30)
        with pytest.raises(MinidockError, match="at most 4 MiB"):
            owner_in(fd, "app")
        (tmp_path / "etc/passwd").unlink()
        os.symlink("/../../../../../../../../etc/passwd", tmp_path / "etc/passwd")
        with pytest.raises(OSError, match="symbolic links"):
            owner_in(fd, "root")
    finally:
        os.close(fd)
