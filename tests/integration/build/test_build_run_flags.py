"""The flags of ``build`` about RUN, cache mounts in use, and ``builder``, with the real command."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock.kernel.pinned import Pinned
from minidock.store.cache_mounts import cache_name
from minidock.store.layout import DataRoot
from minidock.store.staging import sweep

AGENT_CLIENT = r"""
#include <sys/socket.h>
#include <sys/un.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", getenv("SSH_AUTH_SOCK"));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (void *)&address, sizeof address)) { perror("connect"); return 1; }
    /* SSH_AGENTC_REQUEST_IDENTITIES; the answer ends with the key's comment. */
    if (write(fd, "\0\0\0\1\13", 5) != 5) return 2;
    char answer[4096];
    ssize_t got = read(fd, answer, sizeof answer);
    for (ssize_t i = 0; i < got; i++) putchar(answer[i] >= ' ' && answer[i] < 127 ? answer[i] : '.');
    putchar('\n');
    return 0;
}
"""


def said(text: str) -> list[str]:
    """What RUN steps printed, without number and time."""
    found = [re.fullmatch(r"#\d+ [\d.]+ (.*)", line) for line in text.splitlines()]
    return [match[1] for match in found if match and not match[1].startswith(("writing image", "naming to"))]


@pytest.fixture(scope="session")
def agent_client(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("agent-client")
    (folder / "client.c").write_text(AGENT_CLIENT)
    subprocess.run(["gcc", "-static", "-O1", "-o", folder / "client", folder / "client.c"], check=True)
    return (folder / "client").read_bytes()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """The socket of something that answers every message with its length and text, upper-case."""
    path = tmp_path / "agent.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    path.chmod(0o600)

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                while data := client.recv(100):
                    client.sendall(b"the agent of the host got %d bytes" % len(data))

    thread = threading.Thread(target=serve)
    thread.start()
    yield path
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def client_context(context: Callable[..., Path], client: bytes, lines: str) -> Path:
    folder = context(f"FROM busybox\nCOPY --chmod=755 client /client\n{lines}", {"client": client})
    return Path(folder)


def test_ssh(minidock: Any, context: Callable[..., Path], agent: Path, agent_client: bytes) -> None:
    folder = client_context(
        context,
        agent_client,
        "RUN --mount=type=ssh echo $SSH_AUTH_SOCK; stat -c '%a %u %g' $SSH_AUTH_SOCK; /client; /client\n"
        "USER 1000:1000\n"
        "RUN --mount=type=ssh ! /client 2>/dev/null\n"
        "RUN --mount=type=ssh,id=default,target=/tmp/s,mode=0666,required test $SSH_AUTH_SOCK = /tmp/s && /client\n"
        "RUN --mount=type=ssh,uid=1000,gid=5 stat -c '%a %u %g' $SSH_AUTH_SOCK; /client\n"
        'RUN --mount=type=ssh,id=other test -z "$SSH_AUTH_SOCK"\n'
        'RUN test -z "$SSH_AUTH_SOCK"; ! test -e /run/buildkit\n',
    )
    text = minidock.build(folder, "-t", "t", "--network", "none", "--ssh", f"default={agent}")
    answer = "the agent of the host got 5 bytes"
    assert said(text) == ["/run/buildkit/ssh_agent.0", "600 0 0", answer, answer, answer, "600 1000 5", answer]
    assert oct(agent.stat().st_mode & 0o777) == "0o600", "the host's own socket is as it was"
    layers = [line.split()[0] for line in minidock.out("history", "t").splitlines() if "RUN" in line]
    assert layers
    minidock.environment["SSH_AUTH_SOCK"] = str(agent)
    assert answer in minidock.build(folder, "--no-cache", "--network", "none", "--ssh", "default")


@pytest.mark.skipif(not shutil.which("ssh-agent"), reason="the host has no ssh-agent, which holds private keys")
def test_ssh_with_a_private_key(
    minidock: Any, context: Callable[..., Path], tmp_path: Path, agent_client: bytes
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "key-of-test", "-f", key], check=True)
    folder = client_context(context, agent_client, "RUN --mount=type=ssh /client\nRUN --mount=type=ssh exec /client\n")
    text = minidock.build(folder, "--network", "none", "--ssh", f"default={key}")
    assert [line.endswith("key-of-test") for line in said(text)] == [True, True]
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret words", "-f", locked], check=True)
    text = minidock.build(folder, "--no-cache", "--network", "none", "--ssh", f"default={locked}", status=1)
    assert f"cannot use the private key '{locked}'" in text
    for directory, _, names in os.walk(minidock.root):
        for name in names:
            path = Path(directory, name)
            assert not path.is_file() or b"PRIVATE KEY" not in path.read_bytes()
    processes = subprocess.run(["ps", "-e", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert f"ssh-agent -D -a agent-{0}" not in processes


def test_ssh_that_is_not_there(minidock: Any, context: Callable[..., Path], tmp_path: Path) -> None:
    folder = context("FROM busybox\nRUN true\n")
    minidock.environment.pop("SSH_AUTH_SOCK", None)
    assert "SSH_AUTH_SOCK is not set" in minidock.build(folder, "--ssh", "default", status=125)
    assert "there is no '/nope'" in minidock.build(folder, "--ssh", "default=/nope", status=125)
    assert "invalid SSH agent ''" in minidock.build(folder, "--ssh", "", status=125)


def test_secrets_that_are_not_there(minidock: Any, context: Callable[..., Path]) -> None:
    folder = context("FROM busybox\nRUN true\n")
    assert "there is no file '/nope'" in minidock.build(folder, "--secret", "id=s,src=/nope", status=1)
    assert "the variable NOPE_X is not set" in minidock.build(folder, "--secret", "id=s,env=NOPE_X", status=1)
    assert "gives 's' twice" in minidock.build(folder, "--secret", "id=s,env=PATH", "--secret", "id=s", status=125)
    assert "it has no id" in minidock.build(folder, "--secret", "src=x", status=125)


def test_secret_sources(minidock: Any, context: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("from a file of that name")
    minidock.environment["TOKEN_X"] = "from a variable"
    folder = context(
        "FROM busybox\nRUN --mount=type=secret,id=TOKEN_X --mount=type=secret,id=plain --mount=type=secret,id=v "
        "for f in TOKEN_X plain v; do cat /run/secrets/$f; echo; done\n"
    )
    given = ("--secret", "id=TOKEN_X", "--secret", "id=plain", "--secret", "id=v,type=env,src=TOKEN_X")
    done = minidock("build", "--network", "none", *given, folder, cwd=tmp_path)
    assert said(done.stderr) == ["from a variable", "from a file of that name", "from a variable"]
    big = tmp_path / "big"
    big.write_bytes(b"x" * (500 * 1024 + 1))
    folder = context("FROM busybox\nRUN --mount=type=secret,id=big true\n")
    assert "larger than 500 KiB" in minidock.build(folder, "--secret", f"id=big,src={big}", status=1)


def test_hosts_and_shared_memory(minidock: Any, context: Callable[..., Path]) -> None:
    folder = context("FROM busybox\nRUN grep -v localhost /etc/hosts; df -k /dev/shm | tail -1 | awk '{print $2}'\n")
    hosts = ("--add-host", "db:10.9.8.7", "--add-host", "six=::1", "--add-host", "host:host-gateway")
    text = minidock.build(folder, *hosts, "--shm-size", "3m")
    found = said(text)
    assert found[:2] == ["10.9.8.7\tdb", "::1\tsix"]
    assert re.fullmatch(r"[0-9.]+\thost", found[2])
    assert found[-1] == "3072"
    again = ("--add-host", "db:1.1.1.1", "--add-host", "six=::2", "--add-host", "host:host-gateway", "--shm-size", "3m")
    assert said(minidock.build(folder, *again)) == [], "addresses are no part of the key"
    assert said(minidock.build(folder, *again, "--add-host", "new:1.1.1.1")) != []
    assert said(minidock.build(folder, *again[:-1], "4m")) != []
    assert "invalid host" in minidock.build(folder, "--add-host", "db", status=125)
    assert "--shm-size" in minidock.build(folder, "--shm-size", "huge", status=125)


def test_networks(minidock: Any, context: Callable[..., Path]) -> None:
    links = "ls /sys/class/net | tr '\\n' ' '; echo"
    folder = context(f"FROM busybox\nRUN {links}\nRUN --network=none {links}\nRUN --network=default true; {links}\n")
    assert said(minidock.build(folder)) == ["eth0 lo ", "lo ", "eth0 lo "]
    assert said(minidock.build(folder, "--no-cache", "--network", "none")) == ["lo ", "lo ", "lo "]
    found = said(minidock.build(folder, "--no-cache", "--network", "host"))
    assert "minidock0" in found[0]
    assert found[1] == "lo ", "RUN's own choice stands"
    assert "minidock0" in found[2]
    done = minidock.build(context(f"FROM busybox\nRUN --network=host {links}; true\n"), "--allow", "network.host")
    assert "minidock0" in said(done)[0]
    assert "network 'nope' is not there yet" in minidock.build(folder, "--network", "nope", status=125)
    assert "unknown entitlement 'all'" in minidock.build(folder, "--allow", "all", status=125)


def test_volumes_of_a_build(minidock: Any, context: Callable[..., Path], tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "f").write_text("F\n")
    folder = context(
        "FROM busybox\nRUN cat /v/f; echo w > /v/w; ! touch /ro/x 2>/dev/null; ls /v/secret 2>/dev/null\n"
        "RUN --mount=type=tmpfs,target=/v ls -A /v; true\n".replace("; ls /v/secret 2>/dev/null", "")
    )
    done = minidock(
        "build", "-t", "t", "--network", "none", "-v", "./host:/v", "-v", f"{host}:/ro:ro", folder, cwd=tmp_path
    )
    assert said(done.stderr) == ["F"]
    assert (host / "w").read_text() == "w\n"
    assert minidock("run", "--rm", "--network", "none", "t", "ls", "/v", status=1)
    for value, message in (
        ("/not-there:/v", "bind source path does not exist: /not-there"),
        ("name:/v", "it is no directory of the host"),
        (f"{host}:/proc/x", "nothing may be mounted inside /proc"),
        ("x", "invalid mount path"),
    ):
        assert message in minidock.build(folder, "-v", value, status=125)
    assert minidock.out("volume", "ls", "-q") == ""


def _started(build: subprocess.Popen[bytes], file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert build.poll() is None, build.communicate()[1]
        assert time.monotonic() < deadline, f"{file} does not appear"
        time.sleep(0.02)


def _data(minidock: Any, cache_id: str, number: str = "data") -> Path:
    return Path(minidock.root, "cache/mounts", cache_name(cache_id), number)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_step_leaves_its_caches_free(
    minidock: Any, context: Callable[..., Path], tmp_path: Path, how: signal.Signals
) -> None:
    (tmp_path / "s").write_text("S")
    folder = context(
        "FROM busybox AS one\nRUN mkdir /d\nFROM busybox\n"
        "RUN --mount=type=cache,id=l,target=/l,sharing=locked --mount=type=cache,id=p,target=/p,sharing=private "
        "--mount=target=/ctx,rw --mount=from=one,target=/one,rw --mount=type=secret,id=s --mount=type=tmpfs,target=/t "
        "echo kept > /l/kept; touch /p/started; exec sleep 98766\n"
    )
    build = minidock.popen("build", "--network", "none", "--secret", f"id=s,src={tmp_path}/s", folder)
    _started(build, _data(minidock, "p") / "started")
    assert not _usage(minidock)["l"]["Free"]
    build.send_signal(how)
    build.communicate(timeout=20)
    deadline = time.monotonic() + 10
    while not all(entry["Free"] for entry in _usage(minidock).values()):
        assert time.monotonic() < deadline, "the locks stay"
        time.sleep(0.02)
    assert str(minidock.root) not in Path("/proc/self/mountinfo").read_text()
    root = DataRoot(str(minidock.root))
    sweep(root)
    assert os.listdir(root.tmp) == []
    (folder / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=type=cache,id=l,target=/l,sharing=locked "
        "--mount=type=cache,id=p,target=/p,sharing=private cat /l/kept; ls /p\n"
    )
    assert said(minidock.build(folder, "--network", "none")) == ["kept", "started"]
    assert not _data(minidock, "p", "data-2").exists(), "the first one was free"
    assert Pinned(f"{root.run}/layers").names() is not None


def _usage(minidock: Any) -> dict[str, dict[str, Any]]:
    """Cache mounts by ID, as ``builder du`` lists them."""
    lines = minidock.out("builder", "du", "--filter", "type=cachemount", "--format", "json", "--verbose").splitlines()
    found = [json.loads(line) for line in lines]
    return {entry["Description"].split("'")[1]: {**entry, "Free": not entry["InUse"]} for entry in found}


def test_sharing_between_builds(minidock: Any, context: Callable[..., Path]) -> None:
    """Who comes second waits for a locked cache, has a private one of its own, and shares the others."""
    folder = context(
        "FROM busybox\nRUN --mount=type=cache,id=g,target=/g --mount=type=cache,id=l,target=/l,sharing=locked "
        "--mount=type=cache,id=p,target=/p,sharing=private --mount=type=cache,id=s,target=/s "
        "mkfifo /g/go; echo one > /p/who; echo one > /s/who; echo one > /l/who; cat /g/go; echo done >> /l/who\n"
    )
    first = minidock.popen("build", "--network", "none", folder)
    go = _data(minidock, "g") / "go"
    _started(first, go)
    _started(first, _data(minidock, "l") / "who")
    other = context(
        "FROM busybox\nRUN --mount=type=cache,id=p,target=/p,sharing=private --mount=type=cache,id=s,target=/s "
        "ls -A /p; cat /s/who\n"
    )
    assert said(minidock.build(other, "--network", "none")) == ["one"]
    assert _data(minidock, "p", "data-2").is_dir()
    late = context("FROM busybox\nRUN --mount=type=cache,id=l,target=/l,sharing=locked cat /l/who\n")
    second = minidock.popen("build", "--network", "none", late)
    deadline = time.monotonic() + 30
    while not any("->" in line and "FLOCK" in line for line in Path("/proc/locks").read_text().splitlines()):
        assert second.poll() is None, second.communicate()[1]
        assert time.monotonic() < deadline, "it does not wait"
        time.sleep(0.02)
    go.write_text("go\n")
    assert first.communicate(timeout=30)[1]
    waited = "waiting for the cache mount 'l': another RUN uses it"
    assert said(second.communicate(timeout=30)[1].decode()) == [waited, "one", "done"]


def test_builder_du_and_prune(minidock: Any, context: Callable[..., Path]) -> None:
    folder = context(
        "FROM busybox\nRUN --mount=type=cache,id=big,target=/c dd if=/dev/zero of=/c/x bs=1k count=3000 2>/dev/null\n"
        "RUN echo a > /a\n"
    )
    minidock.build(folder, "-t", "t", "--network", "none")
    minidock.build(
        context("FROM busybox\nRUN dd if=/dev/zero of=/y bs=1k count=2000 2>/dev/null\n"), "--network", "none"
    )
    table = minidock.out("builder", "du")
    assert "cache mount 'big'" in table
    assert "RUN /bin/sh -c echo a > /a" in table
    assert "Reclaimable:" in table
    entries = [json.loads(line) for line in minidock.out("builder", "du", "--format", "json").splitlines()]
    assert {entry["Type"] for entry in entries} == {"cachemount", "step"}
    assert minidock.out("builder", "prune", "-f", "--filter", "until=1h") == "Total reclaimed space: 0B"
    assert minidock.out("builder", "prune", "-f", "--keep-storage", "1g") == "Total reclaimed space: 0B"
    assert "invalid filter" in minidock("builder", "prune", "-f", "--filter", "x=y", status=125).stderr
    asked = minidock("builder", "prune", stdin="n\n")
    assert "WARNING!" in asked.stdout + asked.stderr
    assert _data(minidock, "big").is_dir()
    pruned = minidock.out("builder", "prune", "-f", "--filter", "type=cachemount").splitlines()
    assert pruned[0] == cache_name("big")
    assert "3." in pruned[-1]
    assert "MB" in pruned[-1]
    assert os.listdir(Path(minidock.root, "cache/mounts")) == []
    minidock("builder", "prune", "-f")
    kept = [json.loads(line) for line in minidock.out("builder", "du", "--format", "json").splitlines()]
    assert [entry["Shared"] for entry in kept] == [True, True], "the layers of the two images"
    assert minidock.build(folder, "--network", "none").count("CACHED") == 2
    minidock("builder", "prune", "-a", "-f")
    assert [
        entry for entry in minidock.out("builder", "du", "--format", "json").splitlines() if "echo a" in entry
    ] == []
    assert minidock.out("run", "--rm", "--network", "none", "t", "cat", "/a") == "a"
    minidock("system", "check")


def test_what_a_run_uses_is_not_pruned(minidock: Any, context: Callable[..., Path]) -> None:
    folder = context("FROM busybox\nRUN --mount=type=cache,id=g,target=/g mkfifo /g/go; cat /g/go; ls /g\n")
    build = minidock.popen("build", "--network", "none", folder)
    go = _data(minidock, "g") / "go"
    _started(build, go)
    minidock("builder", "prune", "-a", "-f")
    assert go.exists()
    go.write_text("x\n")
    assert said(build.communicate(timeout=30)[1].decode()) == ["x", "go"]


def test_system_check_tells_of_damaged_cache_mounts(minidock: Any, context: Callable[..., Path]) -> None:
    minidock.build(context("FROM busybox\nRUN --mount=type=cache,id=g,target=/g touch /g/x\n"), "--network", "none")
    assert "all is well" in minidock.out("system", "check")
    (_data(minidock, "g").parent / "mount.json").write_text("nonsense")
    Path(minidock.root, "cache/mounts/file").write_text("")
    told = minidock("system", "check", status=1).stdout
    assert told.count("the cache mount") == 2
    assert "is damaged" in told
    repaired = minidock.out("system", "check", "--repair")
    assert "2 repaired" in repaired
    assert os.listdir(Path(minidock.root, "cache/mounts")) == []
    minidock("info")


def test_an_error_of_the_grammar(minidock: Any, context: Callable[..., Path]) -> None:
    done = minidock("build", context("FROM busybox\nRUN true\nRUN --mount=type=cahce,target=/x \\\n  make\n"), status=1)
    assert done.stderr.endswith(
        "Dockerfile:3\n--------------------\n   2 |     RUN true\n   3 | >>> RUN --mount=type=cahce,target=/x \\\n"
        "   4 | >>>   make\n--------------------\n"
        "minidock: dockerfile parse error on line 3: unsupported mount type 'cahce' in --mount=type=cahce,target=/x\n"
        "did you mean cache?\n"
    )
