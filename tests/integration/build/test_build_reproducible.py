"""The same context, base and arguments give the same bits, whatever is another about the host that builds."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from minidock.drivers.tar_reader import TarReader

OLD = 1_500_000_000
EPOCH = 1_600_000_000
LATE = 1_900_000_000

DOCKERFILE = """\
FROM busybox AS left
WORKDIR /left/work
RUN echo made > file && mkdir -p d/e && touch d/b d/a d/e/f && ln -s a d/link && ln d/a d/hard && rm /etc/group
FROM busybox AS right
COPY --chown=7:8 --chmod=750 tree /right/new/
RUN echo more >> /right/new/b && touch /etc/passwd && chmod 700 /right/new/sub
FROM busybox
ARG WHO=nobody
LABEL who=$WHO
ENV A=b
WORKDIR relative/place
COPY tree ./
COPY tree/a tree/sub/ /etc/
COPY <<one <<two /text/
first $WHO
one
second
two
ADD archive.tar /unpacked/
ADD --chown=5 archive.tar /given/away/
COPY --from=left /left /both/left
COPY --from=right /right /both/right
RUN --mount=type=bind,target=/context cat /context/tree/a > /copy && date > /dev/null
RUN mkdir -p /var/made && echo x > /var/made/x && rm /text/one
CMD ["cat", "/copy"]
"""


def entry(path: Path, content: str | None, mtime: int, mode: int) -> None:
    if content is None:
        path.mkdir(parents=True, exist_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    path.chmod(mode)
    os.utime(path, (mtime, mtime + 0.5))


def make_context(folder: Path, order: Iterable[int]) -> Path:
    """A context whose files are made one after the other in that order."""
    files = [
        ("tree/a", "a", OLD + 1, 0o644),
        ("tree/b", "b" * 70_000, OLD + 2, 0o755),
        ("tree/sub/c", "c", LATE, 0o600),
        ("tree/sub/deep/d", "", OLD + 4, 0o644),
        *((f"tree/many/{number}", str(number), OLD + number, 0o644) for number in range(40)),
        ("Dockerfile", DOCKERFILE, OLD, 0o644),
    ]
    for number in order:
        name, content, mtime, mode = files[number % len(files)]
        entry(folder / name, content, mtime, mode)
    for number, name in enumerate(("tree/sub/deep", "tree/sub", "tree/many", "tree")):
        entry(folder / name, None, OLD + 10 + number, 0o755)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in ("in/x", "in/y", "top"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(name), OLD + 20, 0o640
            tar.addfile(info, io.BytesIO(name.encode()))
    (folder / "archive.tar").write_bytes(stream.getvalue())
    os.utime(folder / "archive.tar", (OLD + 30, OLD + 30))
    return folder


COUNT = 45


def digests(minidock: Any, name: str) -> tuple[str, str, tuple[str, ...]]:
    """The image's ID, the digest of its manifest, and its layers."""
    shown = minidock.inspect(name)
    manifest = minidock.out("images", "--digests", "--no-trunc", "--format", "{{.ID}} {{.Digest}}", name).split()[1]
    return shown["Id"], manifest, tuple(shown["RootFS"]["Layers"])


ELSEWHERE = (
    "import ctypes, os, socket, sys; assert ctypes.CDLL(None).unshare(0x04000000) == 0;"
    "socket.sethostname('elsewhere'); os.umask(0o077); os.execv(sys.argv[1], sys.argv[1:])"
)


def build_elsewhere(minidock: Any, folder: Path, *arguments: str) -> None:
    """Build under another host name, umask and time zone."""
    command = [sys.executable, "-c", ELSEWHERE, minidock.command, "build", *arguments, str(folder)]
    environment = {**minidock.environment, "TZ": "Pacific/Kiritimati", "LANG": "C"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def other(busybox_root: Path, minidock: Any, minidock_at: Any, tmp_path: Path, mounts_tarballs: str) -> Any:
    """The command on a second data root, with another path and the other form of layers."""
    root = tmp_path / "quite" / "another" / "place"
    root.parent.mkdir(parents=True)
    subprocess.run(["cp", "-a", busybox_root, root], check=True)
    command = minidock_at(root, layers="tree")
    yield command
    command.close()


def tar_entries(minidock: Any, name: str) -> list[dict[str, Any]]:
    """What the tar of each layer holds above the base, by path."""
    found = []
    blobs = f"{minidock.root}/images/blobs/sha256"
    for diff_id in minidock.inspect(name)["RootFS"]["Layers"][1:]:
        with open(f"{blobs}/{diff_id.removeprefix('sha256:')}", "rb") as tar:
            found.append({entry.name: entry for entry in TarReader(tar)})
    return found


def test_two_hosts_make_the_same_image(minidock: Any, other: Any, tmp_path: Path) -> None:
    """With SOURCE_DATE_EPOCH, for the RUN lines of the Dockerfile; nothing else is the same on the two."""
    one = make_context(tmp_path / "context", range(COUNT))
    # tmpfs lists what was made last first, other file systems by a hash that is their own.
    two = Path("/dev/shm") / f"minidock-{os.getpid()}" / "the-same"
    try:
        make_context(two, reversed(range(COUNT)))
        assert os.listdir(one / "tree/many") != os.listdir(two / "tree/many")
        arguments = ("--build-arg", f"SOURCE_DATE_EPOCH={EPOCH}", "--build-arg", "WHO=me", "-t", "it")
        minidock.build(one, *arguments, "--jobs", "1")
        build_elsewhere(other, two, *arguments, "--jobs", "4")
    finally:
        shutil.rmtree(two.parent)
    assert digests(minidock, "it") == digests(other, "it")
    assert minidock.inspect("it")["Created"] == "2020-09-13T12:26:40Z"
    layers = tar_entries(minidock, "it")
    assert len(layers) == 10
    assert {entry.mtime for layer in layers for entry in layer.values()} >= {EPOCH, OLD + 1, OLD + 20}
    assert max(entry.mtime for layer in layers for entry in layer.values()) == EPOCH
    assert other.out("run", "--rm", "--network", "none", "it") == "a"


def test_without_an_epoch_all_but_run_is_the_same(minidock: Any, other: Any, tmp_path: Path) -> None:
    """RUN, too, where it leaves no times of its own."""
    text = "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith(("RUN", "COPY --from")))
    text += "\nRUN touch -d @1 /known && touch -d @2 / && echo known\n"
    made = []
    for command, name, order in ((minidock, "one", range(COUNT)), (other, "two", reversed(range(COUNT)))):
        folder = make_context(tmp_path / name, order)
        (folder / "Dockerfile").write_text(text)
        build = command.build if command is minidock else lambda *rest: build_elsewhere(other, *rest)
        build(folder, "-t", "it")
        made.append(digests(command, "it"))
    assert made[0] == made[1]
    assert minidock.inspect("it")["Created"] == "2030-03-17T17:46:40Z", "the time of the latest file"
    times = [line.split()[0] for line in minidock.out("history", "--format", "{{.CreatedAt}}", "it").splitlines()]
    assert len(set(times)) == 2
    now = time.time()
    assert not [
        entry for layer in tar_entries(minidock, "it") for entry in layer.values() if abs(entry.mtime - now) < 999
    ]


@pytest.mark.parametrize("layers", ["auto", "tree"])
def test_what_a_step_makes_is_as_new_as_what_it_copies(minidock: Any, tmp_path: Path) -> None:
    folder = make_context(tmp_path / "context", range(COUNT))
    (folder / "Dockerfile").write_text(
        "FROM busybox AS base\n"
        f"RUN mkdir /older /newer && touch -d @{OLD - 9} /older / && touch -d @{OLD + 900} /newer\n"
        "FROM base AS file\nCOPY tree/a /older/new/place/\nCOPY tree/a /newer/\nCOPY tree/a /newer/b\n"
        "COPY tree/a tree/b /newer/c/\nCOPY tree/a tree/b /newer/\n"
        "FROM base AS nothing\nWORKDIR /older/x/y\nCOPY <<f /newer/\ntext\nf\n"
    )
    minidock.build(folder, "--target", "file", "-t", "file")
    layers = [{name: entry.mtime for name, entry in layer.items()} for layer in tar_entries(minidock, "file")]
    assert layers[1] == {
        "": OLD - 9,
        "older": OLD + 1,
        "older/new": OLD + 1,
        "older/new/place": OLD + 1,
        "older/new/place/a": OLD + 1,
    }
    # Fonts, icons and the like are cached by the time of their directory: that it changed must show.
    assert layers[2] == {"": OLD - 9, "newer": OLD + 901, "newer/a": OLD + 1}
    assert layers[3] == {"": OLD - 9, "newer": OLD + 902, "newer/b": OLD + 1}
    assert (layers[4]["newer"], layers[4]["newer/c"], layers[4]["newer/c/b"]) == (OLD + 903, OLD + 2, OLD + 2)
    # There is b, the copy of a; the directory has a itself.
    assert layers[5] == {"": OLD - 9, "newer": OLD + 904, "newer/b": OLD + 2}
    minidock.build(folder, "--target", "nothing", "-t", "nothing")
    base = minidock.inspect("busybox")["Created"]
    made, text = [{name: entry.mtime for name, entry in layer.items()} for layer in tar_entries(minidock, "nothing")][
        1:
    ]
    assert len({made[name] for name in ("older", "older/x", "older/x/y")}) == 1
    assert text["newer/f"] == made["older/x"], "the base's own time"
    assert minidock.inspect("nothing")["Created"] == base


@pytest.mark.parametrize("layers", ["auto", "tree"])
def test_nothing_new_makes_no_layer(minidock: Any, tmp_path: Path) -> None:
    """Neither files nor links that are there already give their directory another time."""
    folder = make_context(tmp_path / "context", range(COUNT))
    os.symlink("a", folder / "tree/link")
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY tree /x/\nCOPY tree /x/\nWORKDIR /x\n")
    minidock.build(folder, "-t", "it")
    assert len(tar_entries(minidock, "it")) == 1


@pytest.mark.parametrize("layers", ["auto", "tree"])
def test_an_epoch_cuts_times_and_is_known_to_run(minidock: Any, tmp_path: Path) -> None:
    folder = make_context(tmp_path / "context", range(COUNT))
    (folder / "Dockerfile").write_text(
        "FROM busybox\nCOPY tree/sub /s/\nRUN echo $SOURCE_DATE_EPOCH > /new && touch /etc/passwd && mkdir /s/e\n"
        "RUN echo 1 > /now && stat -c %Y /now /s/c /new > /times\nRUN touch /new\n"
    )
    minidock.build(folder, "-t", "it", "--timestamp", str(EPOCH))
    copy, run, _ = tar_entries(minidock, "it")
    assert {entry.mtime for entry in copy.values()} == {EPOCH, OLD + 4, OLD + 10}
    assert {entry.mtime for entry in run.values()} == {EPOCH}
    shown = minidock.out(
        "run", "--rm", "--network", "none", "it", "sh", "-c", "cat /new /times; stat -c %Y / /etc /s/c /now"
    )
    lines = shown.splitlines()
    assert lines[0] == lines[2] == lines[3] == str(EPOCH), "what a step made is cut before the next one sees it"
    assert int(lines[1]) > EPOCH
    assert set(lines[4:]) == {str(EPOCH)}
    # Touched again, it is the same; and each epoch has a cache of its own.
    again = minidock.build(folder, "-t", "it", "--timestamp", str(EPOCH))
    assert again.count("CACHED") == 5
    other = minidock.build(folder, "-t", "other", "--timestamp", str(EPOCH + 1))
    assert other.count("CACHED") == 1
    assert minidock.build(folder, "-t", "none").count("CACHED") == 1


def test_the_epoch_comes_from_where_docker_takes_it(minidock: Any, tmp_path: Path) -> None:
    text = "FROM busybox\nRUN echo ${SOURCE_DATE_EPOCH:-none} > /e\n"
    (tmp_path / "Dockerfile").write_text(text)

    def built(*arguments: str) -> str:
        minidock.build(tmp_path, "-t", "it", *arguments)
        return (
            minidock.out("run", "--rm", "--network", "none", "it", "cat", "/e")
            + " "
            + minidock.inspect("it")["Created"]
        )

    base = minidock.inspect("busybox")["Created"]
    assert built() == f"none {base}"
    assert built("--build-arg", "SOURCE_DATE_EPOCH=5") == "5 1970-01-01T00:00:05Z"
    minidock.environment["SOURCE_DATE_EPOCH"] = "7"
    assert built() == "7 1970-01-01T00:00:07Z"
    assert built("--build-arg", "SOURCE_DATE_EPOCH=5") == "5 1970-01-01T00:00:05Z"
    assert built("--build-arg", "SOURCE_DATE_EPOCH=") == f"none {base}"
    del minidock.environment["SOURCE_DATE_EPOCH"]
    (tmp_path / "Dockerfile").write_text(f"ARG SOURCE_DATE_EPOCH=9\n{text}")
    assert built() == "9 1970-01-01T00:00:09Z"
    (tmp_path / "Dockerfile").write_text(text.replace("RUN", "ENV SOURCE_DATE_EPOCH=11\nRUN"))
    assert built("--timestamp", "5") == "11 1970-01-01T00:00:05Z"
    for wrong in ("soon", "-1", "1.5", "999999999999", "٣"):
        done = minidock("build", "--build-arg", f"SOURCE_DATE_EPOCH={wrong}", tmp_path, status=125)
        assert done.stderr.splitlines()[-2] == (
            f"minidock: SOURCE_DATE_EPOCH is {wrong!r}, which is no time in seconds since 1970"
        )


def test_stubs_of_mounts_leave_no_trace_however_fast_the_command_is(minidock: Any, tmp_path: Path) -> None:
    """/etc has a new time where the command changed it, and only there."""
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nRUN true\nRUN --mount=type=tmpfs,target=/etc/deep/er --mount=type=cache,target=/new/cache true\n"
        "RUN rm /etc/passwd\nRUN touch /etc/x && rm /etc/x\n"
    )
    minidock.build(tmp_path, "-t", "it", "--timestamp", str(EPOCH))
    # What only touches /etc again makes no layer: it is cut to the time that /etc has.
    (removed,) = tar_entries(minidock, "it")
    assert sorted(removed) == ["", "etc", "etc/.wh.passwd"]
    assert removed["etc"].mtime == EPOCH


def test_created_is_when_an_image_was_stored(minidock: Any, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nENV a=b\n")
    minidock.build(tmp_path, "-t", "it", "--timestamp", "5")
    assert minidock.inspect("it")["Created"] == "1970-01-01T00:00:05Z"
    stored = minidock.inspect("it")["Metadata"]["LastTagTime"]
    shown = minidock.out("images", "--format", "{{.CreatedSince}}|{{.CreatedAt}}", "it").split("|")
    assert "second" in shown[0]
    assert shown[1][:4] == stored[:4] != "1970"
    # Made once more, it is the same image, stored when it was.
    minidock.build(tmp_path, "-t", "it", "--timestamp", "5", "--no-cache")
    assert minidock.inspect("it")["Metadata"]["LastTagTime"] == stored
    minidock.build(tmp_path, "-t", "again", "--timestamp", "5")
    assert minidock.inspect("again")["Metadata"]["LastTagTime"] == stored
    assert "it" in minidock.out("images", "--filter", "until=0s")


class TestVerify:
    def test_says_that_it_is_the_same(self, minidock: Any, tmp_path: Path) -> None:
        folder = make_context(tmp_path / "context", range(COUNT))
        before = sorted(os.listdir(minidock.root / "images/blobs/sha256"))
        out = minidock.build(
            folder, "--verify", "--timestamp", str(EPOCH), "-t", "it", "-o", "type=local,dest=" + str(tmp_path / "out")
        )
        (told,) = [line for line in out.splitlines() if "verified: 11 layers, digest sha256:" in line]
        assert not any(name.startswith("again") for name in os.listdir(minidock.root / "tmp"))
        assert "minidock: verified: " in out
        assert (tmp_path / "out/copy").read_text() == "a"
        assert told.split()[-1] in out.splitlines()[-1]
        assert before

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            ("RUN head -c 9 /dev/urandom > /f && touch -d @1 /f /", "/f had the content sha256:"),
            ("RUN touch /f", "/f had the mtime "),
            ("RUN mkdir /d", "/d had the mtime "),
            ("RUN touch -d @1 /$(cat /proc/sys/kernel/random/uuid) /", "was nothing and not a file"),
        ],
    )
    def test_names_what_differs(self, minidock: Any, tmp_path: Path, line: str, told: str) -> None:
        (tmp_path / "Dockerfile").write_text(f"FROM busybox\nCOPY Dockerfile /\n{line}\nRUN date > /later\n")
        done = minidock("build", "--verify", "-t", "it", tmp_path, status=11)
        message = done.stderr.splitlines()[-2]
        assert message.startswith("minidock: the build is not reproducible: when it was done again, ")
        assert told in message
        assert line[4:20] in message
        assert minidock("inspect", "it", status=1).stdout.strip() in ("", "[]")
        hint = done.stderr.splitlines()[-1]
        assert ("SOURCE_DATE_EPOCH" in hint) == ("mtime" in told)

    def test_finds_what_the_cache_holds_and_nobody_else_gets(self, minidock: Any, tmp_path: Path) -> None:
        folder = make_context(tmp_path / "context", range(COUNT))
        (folder / "Dockerfile").write_text("FROM busybox\nCOPY tree/a /\n")
        minidock.build(folder)
        os.utime(folder / "tree/a", (LATE, LATE))
        done = minidock("build", "--verify", folder, status=11)
        assert "/a had the mtime 2030-03-17T17:46:40Z and not 2017-07-14T02:40:01Z" in done.stderr
        assert done.stderr.splitlines()[-1].endswith("build with --no-cache")
        minidock.build(folder, "--verify", "--no-cache")

    def test_a_second_build_that_fails_is_told(self, minidock: Any, tmp_path: Path) -> None:
        """A cache mount is empty the second time."""
        (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=cache,target=/c touch /c/there\n")
        minidock.build(tmp_path)
        (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=cache,target=/c cat /c/there\n")
        done = minidock("build", "--verify", tmp_path, status=1)
        assert "minidock: the build succeeded once, and failed when it was done again: " in done.stderr

    def test_standard_input_is_there_once(self, minidock: Any) -> None:
        done = minidock("build", "--verify", "-", stdin="FROM busybox\n", status=125)
        assert "--verify reads the context twice" in done.stderr

    def test_two_layers_at_a_time(self, minidock: Any, tmp_path: Path) -> None:
        """What differs is told of the first step that differs, and of the configuration where no step does."""
        (tmp_path / "Dockerfile").write_text(
            "FROM busybox AS a\nRUN touch /a\nFROM busybox AS b\nRUN date > /b\n"
            "FROM busybox\nCOPY --from=b /b /\nCOPY --from=a /a /\n"
        )
        done = minidock("build", "--verify", tmp_path, "--jobs", "1", status=11)
        assert "/b had the content" in done.stderr
        assert "after 'COPY /b / # buildkit'" in done.stderr


def test_every_driver_makes_the_same_image(tmp_path: Path, busybox_tar: bytes, open_storage: Any, shop_of: Any) -> None:
    """Whether a layer is written straight to its tar, or found by a walk over an upper directory or a whole tree."""
    made = []
    for storage in ("overlay2-tarball", "overlay2", "vfs"):
        (tmp_path / storage).mkdir()
        shop = shop_of(tmp_path / storage, busybox_tar, partial(open_storage, storage=storage))
        make_context(shop.context, range(COUNT))
        image = shop.build(DOCKERFILE, build_args=(("SOURCE_DATE_EPOCH", str(EPOCH)), ("WHO", "me")))
        made.append((image.id, image.manifest_digest, image.config.diff_ids))
    assert made[0] == made[1] == made[2]
