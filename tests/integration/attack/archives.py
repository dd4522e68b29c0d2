"""Hostile archives brought in by the real command, and what came of them as a container sees it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from tests.integration.attack import forger

APPLETS = ("sh", "cat", "ls", "stat", "find", "id", "grep", "wc", "readlink", "head", "sleep", "true")
# What a whole command may take of memory for its data, in bytes, and seconds for what it has to refuse.
MEMORY = 256 << 20
SECONDS = 5.0


class Archives:
    """``way`` is how archives get in: "import" makes an image of each, "add" unpacks it over busybox in a build."""

    def __init__(self, minidock: Any, folder: Path, way: str = "import") -> None:
        self.minidock = minidock
        self.way = way
        self._folder = folder / "archives"
        self._folder.mkdir()
        self._index = minidock.root / "images/index.json"
        self._count = 0

    def take(self, *parts: bytes, base: str = "busybox", to: str = "/", memory: int = 0) -> str:
        """Have the engine take an archive, which has to succeed; returns the name of the image."""
        done = self._bring(parts, base, to, memory)
        assert done.returncode == 0, done.stderr
        return f"evil{self._count}"

    def refuse(self, reason: str, *parts: bytes, base: str = "busybox", to: str = "/", closed: bool = True) -> str:
        """Have the engine refuse an archive for a ``reason``, within SECONDS and MEMORY, and leave nothing of it;
        returns what it said. ``closed`` puts the end of the archive after the parts."""
        before = self._index.read_bytes()
        start = time.monotonic()
        done = self._bring(parts, base, to, MEMORY, closed=closed)
        took = time.monotonic() - start
        assert done.returncode == 1, (done.returncode, done.stderr)
        assert reason in done.stderr
        assert "Traceback" not in done.stderr
        assert took < SECONDS
        assert self._index.read_bytes() == before
        assert list((self.minidock.root / "tmp").iterdir()) == []
        return str(done.stderr)

    def __enter__(self) -> Archives:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Nothing half-made is left, and all that is there is whole."""
        if kind is None:
            assert list((self.minidock.root / "tmp").iterdir()) == []
            self.minidock("system", "check")

    def sh(self, image: str, script: str, *flags: str, status: int = 0) -> str:
        """What a shell in a container of the image prints, or says when it fails."""
        done = self.minidock("run", "--rm", "--network", "none", *flags, image, "sh", "-c", script, status=status)
        return str(done.stderr if status else done.stdout.rstrip("\n"))

    def contents(self, image: str, *names: str) -> str:
        """The contents, joined, of all files of these names, wherever they are in the image; name by name."""
        finds = (f"find / -xdev -type f -name {name} -exec cat {{}} + 2>/dev/null" for name in names)
        return self.sh(image, "; ".join((*finds, "true")))

    def _bring(
        self, parts: tuple[bytes, ...], base: str, to: str, memory: int, *, closed: bool = True
    ) -> subprocess.CompletedProcess[str]:
        self._count += 1
        archive = b"".join(parts) + (forger.END if closed else b"")
        if self.way == "import":
            tar = self._folder / f"{self._count}.tar"
            tar.write_bytes(root_tree() + archive if closed else archive)
            return self.limited(memory, "import", str(tar), f"evil{self._count}")
        context = self._folder / f"context{self._count}"
        context.mkdir()
        (context / "evil.tar").write_bytes(archive)
        (context / "Dockerfile").write_text(f"FROM {base}\nADD evil.tar {to}\n")
        return self.limited(memory, "build", "-t", f"evil{self._count}", str(context))

    def limited(self, memory: int, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """The command with at most so many bytes of data (0: any)."""
        limit = ["prlimit", f"--data={memory}"] if memory else []
        return subprocess.run(
            [*limit, self.minidock.command, *arguments],
            env=self.minidock.environment,
            stdin=subprocess.DEVNULL if "stdin" not in options else options.pop("stdin"),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            **options,
        )


def root_tree() -> bytes:
    """The beginning of an archive: a busybox, its most needed applets and an empty /tmp."""
    busybox = forger.file(b"bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755)
    links = (forger.hard_link(f"bin/{applet}".encode(), b"bin/busybox") for applet in APPLETS)
    return b"".join((forger.directory(b"bin"), busybox, *links, forger.directory(b"tmp", mode=0o1777)))


def long_chain(outside: bytes) -> list[bytes]:
    """CVE-2025-4517: a path so long that realpath no longer follows it, then "escape", a link out of what was not
    followed, to the absolute path ``outside``."""
    component, steps = b"d" * 247, [bytes((letter,)) for letter in b"abcdefghijklmnop"]
    parts, path = [], b""
    for step in steps:
        parts.append(forger.named(path + component, forger.directory(b"x")))
        parts.append(forger.pax({b"path": path + step, b"linkpath": component}) + forger.symlink(b"x", b"x"))
        path += component + b"/"
    long_link = b"/".join(steps) + b"/" + b"l" * 100
    up = forger.pax({b"path": long_link, b"linkpath": b"../" * len(steps)}) + forger.symlink(b"x", b"x")
    escape = long_link + b"/../../../../../../../.." + outside
    return [*parts, up, forger.pax({b"path": b"escape", b"linkpath": escape}) + forger.symlink(b"x", b"x")]
