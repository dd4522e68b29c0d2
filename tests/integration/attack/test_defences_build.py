"""Each defence of RUN's mounts, entitlements and of git matters (rows 50 to 54).

As in test_defences_matter.py, in an engine in a child of the test. The list of all pairs is docs/security-tests.md.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock.build.executors import run as run_executor
from minidock.build.sources import git, remote
from minidock.drivers import stubs
from minidock.runtime import tree_steps
from minidock.store import cache_mounts
from tests.integration.attack.tools import apart, engine_apart, naive_open


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A directory of the host that an attack is to reach."""
    path = tmp_path / "victim"
    (path / "sub/empty").mkdir(parents=True)
    (path / "treasure").write_text("treasure\n")
    return path


def building(folder: Path, **options: Any) -> Callable[[Any], str]:
    def build(engine: Any) -> str:
        return str(engine.build(str(folder), tags=["built"], no_cache=True, network="none", **options))

    return build


def followed() -> None:
    """The parts of trees that a step mounts are found without a wall around their tree."""
    tree_steps.open_in_root = naive_open


def test_row_50_a_subpath_that_is_a_link(minidock: Any, context: Callable[..., Path], victim: Path) -> None:
    folder = context(
        f"FROM busybox\nRUN --mount=type=cache,id=x,target=/c ln -sfn {victim} /c/sel\n"
        "RUN --mount=type=cache,id=x,source=sel,target=/t cp /t/treasure /copied\n"
    )
    assert "cannot mount 'sel' on /t" in engine_apart(minidock.root, building(folder))
    assert engine_apart(minidock.root, building(folder), followed).startswith("sha256:")
    assert minidock.out("run", "--rm", "--network", "none", "built", "cat", "/copied") == "treasure"


def test_row_51_a_parent_that_becomes_a_link(minidock: Any, context: Callable[..., Path], victim: Path) -> None:
    folder = context(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/victim/sub/empty mkdir -p /victim; mv /victim /moved && "
        f"ln -s {victim} /victim\n"
    )

    def patch() -> None:
        stubs.open_beneath = naive_open

    assert engine_apart(minidock.root, building(folder)).startswith("sha256:")
    assert (victim / "sub/empty").is_dir()
    assert engine_apart(minidock.root, building(folder), patch).startswith("sha256:")
    assert not (victim / "sub/empty").exists()


@pytest.mark.parametrize(
    ("flag", "proof"),
    [
        ("--security=insecure", "grep -q 'CapEff:.*ffff' /proc/self/status"),
        ("--network=host", "grep -q minidock0 /proc/net/dev"),
    ],
)
def test_row_52_what_was_not_allowed(minidock: Any, context: Callable[..., Path], flag: str, proof: str) -> None:
    minidock("run", "--rm", "busybox", "true")
    folder = context(f"FROM busybox\nRUN {flag} {proof}\n")

    def patch() -> None:
        run_executor._check_allowed = lambda *_: None

    assert "is not allowed" in engine_apart(minidock.root, building(folder))
    assert engine_apart(minidock.root, building(folder), patch).startswith("sha256:")


def test_row_53_a_source_leads_out_of_its_stage(minidock: Any, context: Callable[..., Path], victim: Path) -> None:
    """CVE-2024-1753."""
    folder = context(
        f"FROM busybox AS evil\nRUN ln -s {victim} /away; ln -s / /root-link\nFROM busybox\n"
        "RUN --mount=from=evil,source=root-link,target=/a,rw ls -d /a/root-link\n"
        "RUN --mount=from=evil,source=away,target=/b,rw cp /b/treasure /copied; echo hello > /b/written\n"
    )
    assert "cannot mount 'away' on /b" in engine_apart(minidock.root, building(folder))
    assert not (victim / "written").exists()
    (folder / "Dockerfile").write_text(
        (folder / "Dockerfile").read_text().replace("ls -d /a/root-link", f"ls -d /a{victim}")
    )
    assert engine_apart(minidock.root, building(folder), followed).startswith("sha256:")
    assert (victim / "written").read_text() == "hello\n"


def test_row_53_a_cache_id_is_a_path(minidock: Any, context: Callable[..., Path], victim: Path) -> None:
    folder = context("FROM busybox\nRUN --mount=type=cache,id=../../../victim,target=/c echo hello > /c/written\n")

    def patch() -> None:
        cache_mounts.cache_name = lambda cache_id: cache_id

    assert engine_apart(minidock.root, building(folder)).startswith("sha256:")
    assert not list(victim.rglob("written"))
    assert engine_apart(minidock.root, building(folder), patch).startswith("sha256:")
    assert [path.read_text() for path in victim.rglob("written")] == ["hello\n"]


def git_of(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=n", "-c", "user.email=e", "-c", "protocol.allow=always", "-c", "init.defaultBranch=m")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def allowing(*protocols: str) -> Callable[[], None]:
    """Git may use these, too."""

    def patch() -> None:
        before = git._environment

        def environment(home: str, scheme: str) -> dict[str, str]:
            found = before(home, scheme)
            return found | {"GIT_ALLOW_PROTOCOL": ":".join((found["GIT_ALLOW_PROTOCOL"], *protocols))}

        git._environment = environment

    return patch


def test_row_54_a_submodule_is_a_command(tmp_path: Path) -> None:
    """What git may speak is told to it: neither files of the host nor commands."""
    marker, inner, outer = tmp_path / "marker", tmp_path / "inner", tmp_path / "outer"
    for folder in (inner, outer):
        folder.mkdir()
        git_of(folder, "init", "--quiet")
        (folder / "file").write_text("file")
        git_of(folder, "add", "file")
        git_of(folder, "commit", "--quiet", "-m", "x")
    git_of(outer, "submodule", "--quiet", "add", "--name", "in", str(inner), "inner")
    text = (outer / ".gitmodules").read_text().replace(str(inner), f"ext::sh -c touch% {marker}")
    (outer / ".gitmodules").write_text(text)
    git_of(outer, "commit", "--quiet", "-a", "-m", "y")
    source = remote.GitSource(f"file://{outer}", "https")

    def fetch() -> str:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        commit = git.find_commit(source, home=str(home), tell=lambda _: None)
        git.check_out(source, commit, f"{tmp_path}/tree-{marker.exists()}", home=str(home), keep=False, tell=print)
        return "checked out"

    assert "transport 'file' not allowed" in apart(fetch)
    assert "transport 'ext' not allowed" in apart(fetch, allowing("file"))
    assert not marker.exists()
    apart(
        fetch, lambda: (subprocess.run(["rm", "-rf", tmp_path / "tree-False"], check=True), allowing("file", "ext")())
    )
    assert marker.exists()


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("https://h/a.git#--upload-pack=x", "--upload-pack=x"),
        ("-x@h:a.git", "-x@h"),
        ("ssh://-oProxyCommand=x/a.git", "-oProxyCommand=x"),
    ],
)
def test_row_54_no_part_of_an_url_is_an_option(text: str, option: str) -> None:
    """The grammar of references, users and hosts: with any text in their place, options reach git and ssh."""

    def read() -> str:
        found = remote.parse_remote(text)
        return f"given to git: {found}"

    def patch() -> None:
        anything = remote.re.compile(".*")
        remote._REF = remote._HOST = remote._USER = anything
        remote._SCP = remote.re.compile("(?P<user>[^@/]*)@(?P<host>[^:]*):(?P<path>[^#]*)(?:#(?P<rest>.*))?")

    answer = apart(read)
    assert answer.startswith("UsageError") or answer == "given to git: None"
    answer = apart(read, patch)
    assert answer.startswith("given to git")
    assert option in answer.lower() or option.lower() in answer
