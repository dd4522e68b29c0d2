"""Git repositories as sources of ADD and as contexts."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.build.remote.servers import Repository, Server

Context = Callable[..., Path]
Repositories = Callable[[str], Repository]
TIME = 1_500_000_000


def shown(minidock: Any, command: str) -> str:
    return str(minidock.out("run", "--rm", "--network", "none", "t", "sh", "-c", command))


@pytest.fixture
def source(repository: Repositories) -> Repository:
    """Two commits on main, the first with a tag of each kind, and a branch that is called as one of them."""
    made = repository("app.git")
    made.commit(file="first", sub__deep__name="below")
    made.git("tag", "light")
    made.git("tag", "--annotate", "--message=x", "heavy")
    (made.work / "run").write_text("#!/bin/sh\n")
    (made.work / "run").chmod(0o755)
    os.symlink("file", made.work / "link")
    made.commit(file="second")
    made.git("branch", "both", "main")
    made.git("tag", "both", "light")
    made.git("push", "--quiet", "--all", "origin")
    made.git("push", "--quiet", "--tags", "origin")
    return made


def test_add(clean: Any, context: Context, web: Server, source: Repository) -> None:
    url = f"{web.url}/git/app.git"
    clean.build(context(f"FROM busybox\nADD {url} /d/\nADD --chown=5 {url}#:sub /e\n"), "-t", "t")
    text = shown(
        clean,
        "cd /d; find . -mindepth 1 | sort | xargs stat -c '%a %u:%g %Y %n'; cat link; stat -c '%u %Y' /e/deep/name",
    )
    assert text.splitlines() == [
        f"644 0:0 {TIME} ./file",
        f"777 0:0 {TIME} ./link",
        f"755 0:0 {TIME} ./run",
        f"755 0:0 {TIME} ./sub",
        f"755 0:0 {TIME} ./sub/deep",
        f"644 0:0 {TIME} ./sub/deep/name",
        f"second5 {TIME}",
    ]


def test_add_with_flags(clean: Any, context: Context, web: Server, source: Repository) -> None:
    url = f"{web.url}/git/app.git"
    lines = f"ADD --link --chmod=go=,u=rwX --exclude=sub/deep --exclude=l* {url} /d/\n"
    clean.build(context(f"FROM busybox\n{lines}"), "-t", "t")
    text = shown(clean, "cd /d; find . -mindepth 1 | sort | xargs stat -c '%a %u:%g %n'")
    assert text.splitlines() == ["600 0:0 ./file", "700 0:0 ./run", "700 0:0 ./sub"]


@pytest.mark.parametrize(
    ("ref", "content"),
    [
        ("main", "second"),
        ("light", "first"),
        ("heavy", "first"),
        ("both", "second"),
        ("refs/tags/both", "first"),
        ("tags/both", "first"),
        ("refs/heads/main", "second"),
        ("HEAD", "second"),
        ("COMMIT", "first"),
    ],
)
def test_what_a_reference_means(
    *, clean: Any, context: Context, web: Server, source: Repository, ref: str, content: str
) -> None:
    ref = source.git("rev-parse", "light") if ref == "COMMIT" else ref
    clean.build(context(f"FROM busybox\nADD {web.url}/git/app.git#{ref} /d\n"), "-t", "t")
    assert shown(clean, "cat /d/file") == content


def test_query(clean: Any, context: Context, web: Server, source: Repository) -> None:
    url = f"{web.url}/git/app.git?tag=light&subdir=sub&keep-git-dir=false"
    clean.build(context(f"FROM busybox\nADD {url} /d\n"), "-t", "t")
    assert shown(clean, "ls -A /d") == "deep"


def test_what_has_not_moved_is_not_fetched(clean: Any, context: Context, web: Server, source: Repository) -> None:
    folder = context(f"FROM busybox\nADD {web.url}/git/app.git /d\n")
    clean.build(folder, "-t", "t")
    before = len(web.asked)
    assert clean.build(folder).count("CACHED") == 2
    asked = web.paths()[before:]
    assert len(asked) == 2, f"the references, and no more: {asked}"
    source.commit(file="third")
    assert clean.build(folder, "-t", "t").count("CACHED") == 1
    assert shown(clean, "cat /d/file") == "third"


def test_checksum_is_the_beginning_of_a_commit(clean: Any, context: Context, web: Server, source: Repository) -> None:
    url, commit = f"{web.url}/git/app.git#light", source.git("rev-parse", "light")
    tag = source.git("rev-parse", "heavy")
    for text in (commit, commit[:7]):
        clean.build(context(f"FROM busybox\nADD --checksum={text} {url} /d\n"))
    clean.build(context(f"FROM busybox\nADD --checksum={tag[:12]} {web.url}/git/app.git#heavy /d\n"))
    failed = clean.build(context(f"FROM busybox\nADD --checksum={'0' * 40} {url} /d\n"), status=1)
    assert f"is at the commit {commit}, not at 000" in failed
    for bad in (commit[:6], "sha256:" + "0" * 64, "--output=x"):
        assert "is no commit" in clean.build(context(f"FROM busybox\nADD --checksum={bad} {url} /d\n"), status=1)


def test_keep_git_dir(clean: Any, context: Context, web: Server, source: Repository) -> None:
    url = f"http://u:hush-hush@{web.place}/git/app.git"
    clean.build(context(f"FROM busybox\nADD --keep-git-dir {url} /d\n"), "-t", "t")
    assert shown(clean, "cat /d/.git/HEAD") == source.git("rev-parse", "main")
    assert "hush-hush" not in shown(clean, "cat /d/.git/config")
    assert shown(clean, "ls /d/.git/hooks 2>/dev/null | wc -l") == "0"


def test_submodules(clean: Any, context: Context, web: Server, repository: Repositories, source: Repository) -> None:
    outer = repository("outer.git")
    outer.git("submodule", "--quiet", "add", "--name", "in", f"{web.url}/git/app.git", "inner")
    outer.git("submodule", "--quiet", "add", "--name", "rel", "../app.git", "relative")
    outer.commit(file="outer")
    clean.build(context(f"FROM busybox\nADD {web.url}/git/outer.git /d\n"), "-t", "t")
    assert shown(clean, "cat /d/file /d/inner/file /d/relative/file") == "outersecondsecond"
    assert shown(clean, "find /d -name .git") == ""
    clean.build(context(f"FROM busybox\nADD {web.url}/git/outer.git?submodules=0 /d\n"), "-t", "t")
    assert shown(clean, "ls -A /d/inner") == ""


@pytest.mark.parametrize("kind", ["file", "ext"])
def test_a_submodule_reaches_nothing_of_the_host(
    *,
    clean: Any,
    context: Context,
    web: Server,
    repository: Repositories,
    source: Repository,
    tmp_path: Path,
    kind: str,
) -> None:
    outer = repository("outer.git")
    outer.git("submodule", "--quiet", "add", "--name", "in", f"{web.url}/git/app.git", "inner")
    marker = tmp_path / "marker"
    url = f"file://{source.bare}" if kind == "file" else f"ext::sh -c touch% {marker}"
    text = (outer.work / ".gitmodules").read_text().replace(f"{web.url}/git/app.git", url)
    (outer.work / ".gitmodules").write_text(text)
    outer.commit(file="outer")
    failed = clean.build(context(f"FROM busybox\nADD {web.url}/git/outer.git /d\n"), status=1)
    assert f"transport '{kind}' not allowed" in failed
    assert not marker.exists()


def test_the_users_configuration_and_hooks_have_no_say(
    *, clean: Any, context: Context, web: Server, source: Repository, tmp_path: Path
) -> None:
    home, marker = tmp_path / "home", tmp_path / "marker"
    hooks = home / "hooks"
    hooks.mkdir(parents=True)
    for name in ("post-checkout", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {marker}\n")
        (hooks / name).chmod(0o755)
    (home / ".gitconfig").write_text(
        f'[core]\nhooksPath={hooks}\n[filter "evil"]\nsmudge=touch {marker}\n[init]\ntemplateDir={home}\n'
    )
    (source.work / ".gitattributes").write_text("* filter=evil\n")
    source.commit(file="filtered")
    clean.environment |= {"HOME": str(home), "GIT_DIR": "/nowhere", "GIT_CONFIG_PARAMETERS": "'core.bare'='true'"}
    clean.build(context(f"FROM busybox\nADD {web.url}/git/app.git /d\n"), "-t", "t")
    assert shown(clean, "cat /d/file") == "filtered"
    assert not marker.exists()


def test_credentials(clean: Any, context: Context, web: Server, source: Repository) -> None:
    web.password = base64.b64encode(b"me:hush-hush").decode()
    failed = clean.build(context(f"FROM busybox\nADD {web.url}/git/app.git /d\n"), status=1)
    assert "wants a user and password" in failed
    log = clean.build(context(f"FROM busybox\nADD http://me:hush-hush@{web.place}/git/app.git /d\n"), "-t", "t")
    assert "hush-hush" not in log + clean.out("history", "--no-trunc", "t")
    found = subprocess.run(["grep", "-rl", "hush-hush", clean.root], capture_output=True, text=True).stdout
    assert found == ""
    log = clean.build(context(f"FROM busybox\nADD http://me:wrong-one@{web.place}/git/app.git /d\n"), status=1)
    assert "wrong-one" not in log


def test_credentials_do_not_follow_a_redirect(
    *, clean: Any, context: Context, web: Server, other_web: Server, source: Repository
) -> None:
    other_web.password = "nobody knows"
    target = f"{other_web.url}/git/app.git/info/refs?service=git-upload-pack"
    web.actions["/git/app.git/info/refs"] = lambda handler: web.reply(handler, 302, Location=target)
    clean.build(context(f"FROM busybox\nADD http://me:hush-hush@{web.place}/git/app.git /d\n"), status=1)
    assert other_web.asked
    assert not [asked for asked in other_web.asked if "authorization" in asked.headers]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("{git}#--upload-pack=touch${{IFS}}x", "is no branch, tag or commit"),
        ("{git}#main:../..", "leads out of the repository"),
        ("{git}#main:%2e%2e/x", "leads out of the repository"),
        ("{git}#main:missing", "has no directory 'missing'"),
        ("{git}#main:file", "has no directory 'file'"),
        ("{git}#nothing", "has no branch, tag or reference 'nothing'"),
        ("{git}#main:out", "has no directory 'out'"),
        ("ssh://-oProxyCommand=x/y", "is no host name"),
        ("git@-oProxyCommand=x:y", "is no host name"),
        ("{git}?upload-pack=x", "nothing that the query of a git URL may say"),
        ("{url}/git/none.git", "not found"),
    ],
)
def test_refusals(*, clean: Any, context: Context, web: Server, source: Repository, url: str, reason: str) -> None:
    os.symlink("/etc", source.work / "out")
    source.commit(file="x")
    folder = context(f"FROM busybox\nADD {url.format(git=f'{web.url}/git/app.git', url=web.url)} /d\n")
    assert reason in clean.build(folder, "-t", "t", status=1)
    assert "t" not in clean.out("images").split()


def test_context(clean: Any, web: Server, source: Repository) -> None:
    dockerfile = "FROM busybox\nCOPY . /d\n"
    source.commit(
        Dockerfile=dockerfile, sub__Dockerfile="FROM busybox\nCOPY . /sub\n", _dockerignore="link\nDockerfile\n"
    )
    url = f"{web.url}/git/app.git"
    log = clean("build", "-t", "t", url).stderr
    assert f"[internal] load remote build context {url}" in log
    assert shown(clean, "cd /d; ls -A").split() == [".dockerignore", "file", "run", "sub"]
    clean("build", "-t", "t", f"{url}#main:sub")
    assert shown(clean, "cd /sub; find . -type f | sort").split() == ["./Dockerfile", "./deep/name"]
    clean("build", "-t", "t", "-f", "sub/Dockerfile", url)
    assert shown(clean, "ls -A /sub").split() == [".dockerignore", "file", "run", "sub"]
    clean("build", "-t", "t", "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", url)
    assert ".git" in shown(clean, "ls -A /d").split()
    assert "it is not there" in clean("build", "-f", "/etc/passwd", url, status=125).stderr


def test_git_protocol(clean: Any, context: Context, source: Repository) -> None:
    """git-daemon(1) from its own inetd mode, one connection after the other on a port of the kernel's."""
    listener = socket.create_server(("127.0.0.1", 0))
    command = ["git", "daemon", "--inetd", "--export-all", f"--base-path={source.bare.parent}"]

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                subprocess.run(command, stdin=connection, stdout=connection, stderr=subprocess.DEVNULL)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        url = f"git://127.0.0.1:{listener.getsockname()[1]}/app.git"
        clean.build(context(f"FROM busybox\nADD {url}#light /d\n"), "-t", "t")
        assert shown(clean, "cat /d/file") == "first"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_killed_while_git_fetches(minidock: Any, context: Context, web: Server, source: Repository) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def stall(handler: Any) -> None:
        begun.set()
        go_on.wait(30)
        web.reply(handler, 500)

    web.actions["/git/app.git/git-upload-pack"] = stall
    build = minidock.popen("build", context(f"FROM busybox\nADD {web.url}/git/app.git /d\n"))
    try:
        assert begun.wait(30)
        build.send_signal(signal.SIGKILL)
        build.communicate(timeout=10)
        deadline = time.monotonic() + 10
        while left := processes(web.place):
            assert time.monotonic() < deadline, f"git outlives its build: {left}"
            time.sleep(0.02)
    finally:
        go_on.set()
    del web.actions["/git/app.git/git-upload-pack"]
    minidock.build(context(f"FROM busybox\nADD {web.url}/git/app.git /d\n"), "-t", "t")
    assert os.listdir(minidock.root / "tmp") == []


def processes(word: str) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if word in command and "git" in command.split("\0")[0]:
            found.append(command)
    return found
