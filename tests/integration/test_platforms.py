"""Other platforms for real: a busybox for arm64 that qemu runs through binfmt_misc, and what is said without one."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock.kernel import binfmt, mount
from minidock.runtime.emulation import elf_head
from tests.conftest import CACHE

QEMU = "/usr/bin/qemu-aarch64-static"
HANDLER = "minidock-test-aarch64"
MASK = "ffffffffffffff00fffffffffffffffffeffffff"

pytestmark = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="arm64 is this host's own, or not what it emulates"
)


@pytest.fixture(scope="module")
def busybox_arm64(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return fetch("arm64", tmp_path_factory.mktemp("apt"))


@pytest.fixture(scope="module")
def busybox_i386(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return fetch("i386", tmp_path_factory.mktemp("apt"))


def fetch(architecture: str, folder: Path) -> bytes:
    """Debian's static busybox for an architecture, fetched once a machine by apt, whose own state stays as it is."""
    kept = CACHE / f"busybox-{architecture}"
    if kept.exists():
        return kept.read_bytes()
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "conf").write_text(
        f'Dir::State "{folder}/state";\nDir::State::status "{folder}/status";\nDir::Cache "{folder}/cache";\n'
        f'APT::Architecture "{architecture}";\nAPT::Architectures {{ "{architecture}"; }};\n'
        'Acquire::Languages "none";\n'
    )
    environment = {**os.environ, "APT_CONFIG": f"{folder}/conf"}
    for words in (["update"], ["download", "busybox-static"]):
        done = subprocess.run(
            ["apt-get", "-qq", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
        )
        # The list of one archive may not be to be had, and another has the package.
        if done.returncode and words[0] == "download":
            pytest.skip(f"apt has no busybox-static for {architecture}: {done.stderr.strip()[-200:]}")
    package = next(folder.glob("*.deb"))
    subprocess.run(["dpkg-deb", "-x", package, folder / "tree"], check=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    part = CACHE / f"busybox-{architecture}.part"
    shutil.copy(folder / "tree/bin/busybox", part)
    part.rename(kept)
    return kept.read_bytes()


@pytest.fixture
def place() -> Iterator[str]:
    """binfmt_misc, mounted for this test alone."""
    try:
        fd = mount.new_mount(binfmt.FILE_SYSTEM, source=binfmt.FILE_SYSTEM)
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.EPERM, errno.ENOSYS):
            pytest.skip(f"binfmt_misc cannot be had here: {error.strerror}")
        raise
    yield f"/proc/self/fd/{fd}"
    os.close(fd)


def fitting(place: str) -> list[binfmt.Handler]:
    return [handler for handler in binfmt.handlers(place) or [] if handler.matches(elf_head("arm64"))]


@pytest.fixture
def without_handler(place: str) -> None:
    if fitting(place):
        pytest.skip(f"this host has a handler for arm64: {fitting(place)[0].name}")


@pytest.fixture
def register(place: str) -> Iterator[Callable[[str], None]]:
    """Register qemu for arm64 with these flags; it is gone when the test ends."""
    if not os.path.exists(QEMU):
        pytest.skip("qemu is not installed: apt-get install qemu-user-static")
    if fitting(place):
        pytest.skip(f"this host has a handler for arm64: {fitting(place)[0].name}")
    magic = elf_head("arm64")[:20].hex()

    def escaped(text: str) -> str:
        return "".join(f"\\x{text[at : at + 2]}" for at in range(0, len(text), 2))

    def do(flags: str) -> None:
        Path(place, "register").write_text(f":{HANDLER}:M::{escaped(magic)}:{escaped(MASK)}:{QEMU}:{flags}")

    yield do
    if os.path.exists(f"{place}/{HANDLER}"):
        Path(place, HANDLER).write_text("-1")


@pytest.fixture
def arm64(minidock: Any, context: Callable[..., Path], busybox_arm64: bytes) -> str:
    """An image for arm64, built here without a command of its own."""
    text = "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY --chmod=755 busybox /bin/busybox\n"
    text += 'COPY --chmod=755 busybox /bin/sh\nCMD ["/bin/busybox","uname","-m"]\n'
    minidock.build(context(text, {"busybox": busybox_arm64}), "-t", "arm", "--platform", "aarch64")
    found = minidock.inspect("arm")
    assert (found["Os"], found["Architecture"], found["Config"]["Labels"]) == ("linux", "arm64", {"arch": "arm64"})
    return "arm"


def test_commands_of_another_architecture_run_through_binfmt(
    minidock: Any, context: Callable[..., Path], arm64: str, register: Callable[[str], None]
) -> None:
    register("F")
    told = minidock.build(
        context(f'FROM {arm64}\nRUN ["/bin/busybox", "uname", "-m"]\nRUN echo built > /made\n'),
        "-t",
        "made",
        "--platform=linux/arm64/v8",
    )
    assert "aarch64" in told
    assert "InvalidBaseImagePlatform" not in told
    assert minidock.inspect("made")["Architecture"] == "arm64"
    done = minidock("run", "--rm", "--network", "none", "--platform", "linux/arm64", "made")
    assert (done.stdout, done.stderr) == ("aarch64\n", "")
    told = minidock("run", "--rm", "--network", "none", "made", "/bin/busybox", "cat", "/made")
    assert told.stdout == "built\n"
    assert "platform (linux/arm64) does not match the detected host platform (linux/amd64)" in told.stderr


def test_without_a_handler_one_sentence_says_what_is_missing(
    minidock: Any, context: Callable[..., Path], arm64: str, without_handler: None
) -> None:
    folder = context(f"FROM {arm64} AS first\nENV a=b\nRUN busybox uname -m\n")
    told = minidock.build(folder, status=1)
    assert (
        "cannot run linux/arm64 commands on this x86_64 host: binfmt_misc has no handler with flag F for arm64" in told
    )
    assert "install the Debian packages qemu-user-static and binfmt-support" in told
    assert "   3 | >>> RUN busybox uname -m" in told
    assert "exec format error" not in told
    assert "InvalidBaseImagePlatform" in told
    done = minidock("run", "--rm", "--network", "none", arm64, status=126)
    assert "it is built for aarch64, this host is x86_64" in done.stderr
    assert "qemu-user-static" in done.stderr
    assert minidock.out("ps", "-aq") == ""


def test_a_handler_without_flag_f_is_named(
    minidock: Any, context: Callable[..., Path], arm64: str, register: Callable[[str], None]
) -> None:
    register("")
    told = minidock.build(context(f"FROM {arm64}\nRUN busybox uname -m\n"), status=1)
    assert f"the handler {HANDLER} of binfmt_misc has no flag F, so that its {QEMU} is not found inside" in told
    done = minidock("run", "--rm", "--network", "none", arm64, status=126)
    assert "it is built for aarch64, this host is x86_64" in done.stderr


def test_the_32_bits_of_the_same_processor_need_no_handler(
    minidock: Any, context: Callable[..., Path], busybox_i386: bytes
) -> None:
    text = (
        'FROM scratch\nCOPY --chmod=755 busybox /bin/sh\nRUN echo $((1 + 1)) > /two\nCMD ["/bin/sh","-c","echo ran"]\n'
    )
    minidock.build(context(text, {"busybox": busybox_i386}), "-t", "small", "--platform", "i386")
    assert minidock.inspect("small")["Architecture"] == "386"
    told = minidock.build(context("FROM small\nRUN echo again > /three\n"), "-t", "smaller")
    assert "InvalidBaseImagePlatform" not in told
    assert minidock.inspect("smaller")["Architecture"] == "386"
    done = minidock("run", "--rm", "--network", "none", "smaller")
    assert (done.stdout, done.stderr) == ("ran\n", "")


def test_an_image_for_another_platform_than_asked_for(minidock: Any, context: Callable[..., Path]) -> None:
    for verb in ("run", "create"):
        done = minidock(verb, "--platform", "linux/arm64", "busybox", "true", status=125)
        assert "the image 'busybox' on this host is for linux/amd64, and linux/arm64 is asked for" in done.stderr
        assert "--platform linux/amd64" in done.stderr
    assert "invalid platform 'x/y/z/w'" in minidock("run", "--platform", "x/y/z/w", "busybox", status=125).stderr
    assert minidock.out("ps", "-aq") == ""
    minidock("run", "--rm", "--network", "none", "--platform", "x86_64", "busybox", "true")
    told = minidock.build(context("FROM busybox\nRUN true\n"), "--platform", "linux/arm64", status=1)
    assert "linux/arm64 is asked for" in told
    told = minidock.build(context("FROM busybox\n"), "--platform", "linux/amd64,linux/arm64", status=125)
    assert "cannot build for several platforms at once" in told


def test_compiling_for_another_platform(minidock: Any, context: Callable[..., Path]) -> None:
    text = (
        "FROM --platform=$BUILDPLATFORM busybox AS compiler\nARG TARGETOS TARGETARCH TARGETVARIANT\n"
        "RUN echo $TARGETOS $TARGETARCH $TARGETVARIANT > /program\nFROM scratch\nCOPY --from=compiler /program /\n"
    )
    minidock.build(context(text), "-t", "cross", "--platform", "linux/arm/v7")
    found = minidock.inspect("cross")
    assert (found["Architecture"], found["Variant"]) == ("arm", "v7")
    out = minidock.root.parent / "out"
    minidock.build(context(text), "-o", str(out), "--platform", "linux/arm/v7")
    assert (out / "program").read_text() == "linux arm v7\n"


def test_flags_that_ask_for_what_is_so_anyway(minidock: Any, context: Callable[..., Path], tmp_path: Path) -> None:
    folder = context("FROM busybox\nRUN echo A > /a\n")
    plain = minidock.build(folder, "-t", "one")
    assert "CACHED" in minidock.build(
        folder, "-t", "two", "--rm", "--force-rm=false", "--compress", "--pull", "--call=build"
    )
    assert minidock.inspect("one")["Id"] == minidock.inspect("two")["Id"]
    assert "cannot be pulled" not in plain
    minidock.build(folder, "-t", "three", "--load", "-o", f"type=tar,dest={tmp_path}/t.tar")
    assert (tmp_path / "t.tar").exists()
    assert minidock.inspect("three")["Id"] == minidock.inspect("one")["Id"]
    assert "clone" in minidock.build(folder, "--no-cache", "-D")
    assert "Check complete, no warnings found." in minidock("build", "--call", "check", folder).stdout
    assert "it is build or check" in minidock.build(folder, "--call", "outline", status=125)
    minidock.build(folder, "-t", "bare", "--unsetenv", "PATH")
    assert minidock.inspect("bare")["Config"]["Env"] == []
