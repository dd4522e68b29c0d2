"""Secrets and SSH agents of a build are in no layer, history, record, log or output, whatever becomes of the build.

Bytes are looked for over the whole data root, its folder below ``/run/minidock``, in everything that the command wrote,
and in what other processes of the host can see of it; as they are, and in the forms that they have on their way through
the engine and in archives: base64, hexadecimal, percent signs, compressed.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import pty
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
import urllib.parse
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock.store.layout import DataRoot
from tests.integration.attack.tools import reachable

# The second one has bytes that no text has, and a line's end.
TOKENS = {"file": b"file-9f3b+do/not?tell", "variable": b"variable-77ac&do=not;tell"}
ANSWER = b"agent-41e0-answers"
CLIENT = r"""
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", getenv("SSH_AUTH_SOCK"));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (void *)&address, sizeof address)) { perror("connect"); return 1; }
    char answer[4096];
    if (write(fd, "\0\0\0\1\13", 5) != 5) return 2;
    return read(fd, answer, sizeof answer) > 0 ? 0 : 3;
}
"""
# Each stage is a process of its own. What the first one leaves is copied whole.
TEXT = r"""FROM busybox AS one
COPY --chmod=755 client /client
RUN --mount=type=secret,id=file,required --mount=type=secret,id=variable,target=/deep/er/token,mode=0440,uid=5,gid=6 \
    --mount=type=secret,id=file,env=TOKEN,target=/etc/token --mount=type=ssh,required --mount=type=ssh,target=/agent \
    --mount=type=cache,id=c,target=/cache \
    test "$TOKEN" = "$(cat /run/secrets/file)" && cmp /etc/token /run/secrets/file && test -s /deep/er/token && \
    /client && SSH_AUTH_SOCK=/agent /client && touch /made && cat /cache/go && {end}
FROM busybox AS two
RUN --mount=type=secret,id=variable,env=TOKEN --mount=type=secret,id=file test -n "$TOKEN" && touch /made
FROM busybox
COPY --from=one / /one
COPY --from=two /made /two
RUN test -z "$TOKEN$SSH_AUTH_SOCK"; ! test -e /run/secrets && ! test -e /one/deep && ! test -e /one/etc/token && \
    ! test -e /one/agent && ! test -e /one/run/buildkit
"""


def forms(token: bytes) -> list[bytes]:
    """A secret's bytes as they are and as they may be written down, without what depends on what stands beside it."""
    found = [
        token,
        token.hex().encode(),
        urllib.parse.quote_plus(token).encode(),
        json.dumps(token.decode())[1:-1].encode(),
    ]
    for shift in range(3):
        # Some characters at both ends hold bits of the neighbours.
        text = base64.b64encode(b"\0" * shift + token)
        found.append(text[4 if shift else 0 : -4])
    return list(dict.fromkeys(found))


def test_the_forms_are_found() -> None:
    """The search finds what it is to find."""
    for token in TOKENS.values():
        for before in (b"", b"x", b"yz"):
            text = base64.b64encode(before + token + b"after")
            assert any(form in text for form in forms(token))
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            tar.addfile(tarfile.TarInfo(f"x{token.decode()}"))
        assert traces(stream.getvalue(), [token])
        assert not traces(stream.getvalue(), [b"another"])


def traces(data: bytes, tokens: Iterable[bytes]) -> list[bytes]:
    """The forms of the secrets that are in some bytes, also in compressed streams where an archive has its members."""
    parts = [data]
    for start in range(0, len(data), 512):
        if data.startswith(b"\x1f\x8b\x08", start):
            with contextlib.suppress(zlib.error):
                parts.append(zlib.decompressobj(31).decompress(data[start:], 1 << 26))
    return [form for token in tokens for form in forms(token) for part in parts if form in part]


def leaks(tokens: Iterable[bytes], *places: str | Path) -> list[str]:
    """The files and links below the places that hold a secret, in their content, name or target."""
    tokens, seen = list(tokens), set()
    found = []
    for place in map(str, places):
        for directory, folders, names in os.walk(place):
            for path in (os.path.join(directory, name) for name in (*folders, *names)):
                data = os.fsencode(os.path.basename(path))
                with contextlib.suppress(OSError):
                    if os.path.islink(path):
                        data += os.fsencode(os.readlink(path))
                    elif os.path.isfile(path) and (inode := (os.stat(path).st_dev, os.stat(path).st_ino)) not in seen:
                        seen.add(inode)
                        data += Path(path).read_bytes()
                found += [f"{path}: {form!r}" for form in traces(data, tokens)]
        if os.path.isfile(place):
            found += [f"{place}: {form!r}" for form in traces(Path(place).read_bytes(), tokens)]
    return found


def shown_to_others(tokens: Iterable[bytes]) -> list[str]:
    """The processes whose command line, which everybody may read, holds a secret."""
    tokens = list(tokens)
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if traces(line, tokens):
                found.append(f"{pid}: {line!r}")
    return found


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """The socket of an agent of the host, whose path and answers are secrets, too."""
    (tmp_path / "host").mkdir()
    path = tmp_path / "host/agent-c01d.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                while client.recv(100):
                    client.sendall(ANSWER)

    thread = threading.Thread(target=serve)
    thread.start()
    yield path
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


class Case:
    """A build with secrets, whose first RUN waits; ``tokens`` are not to be seen anywhere."""

    def __init__(self, minidock: Any, folder: Path, key: Path, agent: Path) -> None:
        self.minidock = minidock
        self.folder = folder
        self.secrets = [*TOKENS.values(), ANSWER]
        self.agent = str(agent)
        self.given = [f"id=file,src={key}", "id=variable,env=SECRET_VARIABLE"]
        self.builds: list[subprocess.Popen[bytes]] = []
        self._open = -1
        minidock.environment["SECRET_VARIABLE"] = TOKENS["variable"].decode()

    @property
    def tokens(self) -> list[bytes]:
        return [*self.secrets, os.fsencode(os.path.basename(self.agent))]

    @property
    def fifo(self) -> Path:
        """What a RUN waits at, in its cache."""
        (fifo,) = Path(self.minidock.root, "cache/mounts").glob("*/data/go")
        return fifo

    def start(self, *options: str, end: str = "true", debug: bool = False, **streams: Any) -> subprocess.Popen[bytes]:
        """Begin the build, whose RUN ends with the command ``end``."""
        (self.folder / "Dockerfile").write_text(TEXT.replace("{end}", end))
        words = [*(["--debug"] if debug else []), "build", "--network", "none", "--jobs", "2", "-t", "t", *options]
        words += [*(f"--secret={text}" for text in self.given), f"--ssh=default={self.agent}", str(self.folder)]
        self.builds.append(self.minidock.popen(*words, **streams))
        return self.builds[-1]

    def wait(self) -> None:
        """Until the RUN is at its fifo, which is held open then: until ``go``."""
        deadline = time.monotonic() + 60
        while self._open < 0:
            try:
                self._open = os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                assert self.builds[-1].poll() is None, self.builds[-1].communicate()
                assert time.monotonic() < deadline, "the RUN does not come to its fifo"
                time.sleep(0.02)

    def go(self) -> None:
        """Let the RUN go on; where nobody is to, nothing."""
        if self._open >= 0:
            os.close(self._open)
            self._open = -1

    def leaks(self, *places: str | Path) -> list[str]:
        run = DataRoot(str(self.minidock.root)).run
        return leaks(self.tokens, self.minidock.root, run, "/run/minidock/net", self.folder, *places)

    def check(self, told: bytes, *places: str | Path) -> None:
        assert traces(told, self.tokens) == []
        assert self.leaks(*places) == []


@pytest.fixture
def case(
    minidock: Any, context: Callable[..., Path], agent: Path, tmp_path: Path, build_static: Callable[..., Path]
) -> Iterator[Case]:
    key = tmp_path / "host/key"
    key.write_bytes(TOKENS["file"])
    (tmp_path / "client.c").write_text(CLIENT)
    folder = context("", {"client": build_static(tmp_path / "client.c").read_bytes()})
    minidock.build(
        context("FROM busybox\nRUN --mount=type=cache,id=c,target=/cache mkfifo /cache/go\n"), "--network", "none"
    )
    case = Case(minidock, folder, key, agent)
    yield case
    case.go()
    for build in case.builds:
        build.kill()
        build.communicate()


@pytest.mark.parametrize("progress", ["rawjson", "debug"])
def test_a_build_with_every_output(case: Case, tmp_path: Path, progress: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    outputs = ["type=image", f"type=local,dest={out}/tree"]
    outputs += [f"type={kind},dest={out}/{kind}.tar" for kind in ("tar", "oci", "docker")]
    files = ("--metadata-file", f"{out}/metadata", "--iidfile", f"{out}/id")
    debug = progress == "debug"
    build = case.start(
        *("--progress", "plain" if debug else progress), *files, *(f"--output={text}" for text in outputs), debug=debug
    )
    case.wait()
    assert case.leaks(out) == [], "while the command runs"
    assert shown_to_others(case.secrets) == []
    assert not any(reachable(path) for path in sockets(case.minidock.root))
    case.go()
    told = b"".join(build.communicate(timeout=60))
    assert build.returncode == 0, told
    case.check(told, out)
    assert sockets(out) == []
    shown = case.minidock("history", "--no-trunc", "t").stdout + case.minidock("image", "inspect", "t").stdout
    shown += case.minidock("builder", "du", "--verbose").stdout
    assert traces(shown.encode(), case.tokens) == []
    assert (out / "tree/one/made").exists()
    assert not (out / "tree/one/deep").exists()


def sockets(place: Path) -> list[Path]:
    found = []
    for directory, _, names in os.walk(place):
        for path in (Path(directory, name) for name in names):
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(path.lstat().st_mode):
                    found.append(path)
    return found


def test_the_live_view(case: Case) -> None:
    outer, inner = pty.openpty()
    build = case.start("--progress", "tty", stdout=inner, stderr=inner, stdin=inner)
    os.close(inner)
    case.wait()
    case.go()
    drawn = b""
    with contextlib.suppress(OSError):
        while data := os.read(outer, 65536):
            drawn += data
    os.close(outer)
    assert build.wait(60) == 0, drawn
    case.check(drawn)


def test_the_events(case: Case) -> None:
    """What a view is told, byte for byte, of a build that fails."""
    events = os.memfd_create("events")
    case.start(end="exit 3").kill()
    program = (
        "import os, sys\nfrom minidock import Engine\nsecrets = sys.argv[1:3]\nagent, folder = sys.argv[3:]\n"
        "Engine(may_fork=True).build(folder, network='none', secrets=secrets, ssh=[f'default={agent}'], "
        f"progress={events}, progress_form='events')\n"
    )
    build = subprocess.Popen(
        [sys.executable, "-c", program, *case.given, case.agent, str(case.folder)],
        env=case.minidock.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[events],
    )
    case.builds.append(build)
    case.wait()
    case.go()
    told = b"".join(build.communicate(timeout=60))
    assert b"exit code: 3" in told
    with open(events, "rb") as file:
        file.seek(0)
        said = file.read()
    assert b"RUN" in said
    # A chunk of output is base64 there.
    case.check(said + told)


@pytest.mark.parametrize("end", ["exit 3", "/not/there"])
def test_a_build_that_fails(case: Case, end: str) -> None:
    build = case.start(end=end, debug=True)
    case.wait()
    case.go()
    told = b"".join(build.communicate(timeout=60))
    assert build.returncode == 1
    assert b"did not complete successfully" in told
    case.check(told)
    assert traces(case.minidock("builder", "du", "--verbose").stdout.encode(), case.tokens) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_build_that_is_killed(case: Case, how: signal.Signals) -> None:
    """Also before any other command has looked at what it left."""
    build = case.start(debug=True)
    case.wait()
    build.send_signal(how)
    case.check(b"".join(build.communicate(timeout=60)))
    case.minidock("ps")
    assert sockets(case.minidock.root) == []
    assert case.leaks() == []


@pytest.mark.skipif(not shutil.which("ssh-agent"), reason="the host has no ssh-agent, which holds private keys")
def test_a_private_key(case: Case, tmp_path: Path) -> None:
    key = tmp_path / "host/private"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "comment-5d1", "-f", key], check=True)
    lines = key.read_bytes().splitlines()
    # The secret's part of it, which is base64 already.
    case.secrets += [lines[3][:40], lines[-2][:40]]
    case.agent = str(key)
    build = case.start(debug=True)
    case.wait()
    assert leaks(case.secrets, case.minidock.root, DataRoot(str(case.minidock.root)).run) == []
    assert shown_to_others(case.secrets) == []
    assert not any(reachable(path) for path in sockets(case.minidock.root))
    case.go()
    told = b"".join(build.communicate(timeout=60))
    assert build.returncode == 0, told
    assert traces(told, case.secrets) == []
    assert leaks(case.secrets, case.minidock.root, DataRoot(str(case.minidock.root)).run) == []
