"""Rows 46 and 50 to 53 of SECURITY.md, section 2: mounts of RUN, their stubs, entitlements and secrets."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock.store.layout import DataRoot
from tests.integration.attack.tools import until

TOKEN = "dont-tell-9f3b-anybody"


@pytest.fixture
def swapped(
    minidock: Any, context: Callable[..., Path], build_static: Callable[..., Path], sentinel: Any
) -> Iterator[None]:
    """Somebody's RUN that swaps ``sel`` of a shared cache, a directory and a link to the sentinel, without pause."""
    folder = context(
        "FROM busybox\nRUN --mount=type=cache,id=x,target=/c --mount=source=swapper,target=/swapper "
        f"mkdir -p /c/sel; ln -sfn {sentinel.path} /c/other; touch /c/ready; exec /swapper /c/sel /c/other\n",
        {"swapper": build_static("swapper").read_bytes()},
    )
    (folder / "swapper").chmod(0o755)
    build = minidock.popen("build", "--no-cache", "--network", "none", folder, stdout=subprocess.DEVNULL)
    ready = Path(minidock.root, "cache/mounts")
    for _ in until(60):
        if list(ready.glob("*/data/ready")):
            break
        assert build.poll() is None
    yield
    assert build.poll() is None, build.communicate()[1]
    build.terminate()
    build.communicate(timeout=30)


@pytest.mark.race
@pytest.mark.usefixtures("swapped")
def test_row_50_a_subpath_that_becomes_a_link(
    minidock: Any, context: Callable[..., Path], seconds: float, sentinel: Any
) -> None:
    folder = context(
        "FROM busybox\nRUN --mount=type=cache,id=x,source=sel,target=/t "
        "ls -A /t; cat /t/secret 2>/dev/null; echo evil > /t/evil; mkdir -p /t/made\n"
    )
    for _ in until(seconds):
        done = minidock("build", "--no-cache", "--network", "none", folder, status=None)
        text = done.stdout + done.stderr
        assert sentinel.secret.strip() not in text
        assert done.returncode in (0, 1), text
        if done.returncode:
            assert "cannot mount 'sel' on /t" in text or "did not complete successfully" in text, text
        assert sentinel.changes() == []


@pytest.mark.parametrize("link", ["{}", "../../../../../../../../..{}", "up/../../../../../..{}"])
def test_row_50_a_subpath_that_is_a_link(minidock: Any, context: Callable[..., Path], sentinel: Any, link: str) -> None:
    folder = context(
        "FROM busybox\nRUN --mount=type=cache,id=x,target=/c mkdir /c/up; "
        f"ln -s {link.format(sentinel.path)} /c/sel\n"
        "RUN --mount=type=cache,id=x,source=sel,target=/t ls /t; touch /t/x\n"
    )
    text = minidock.build(folder, "--network", "none", status=1)
    assert "cannot mount 'sel' on /t: no such file or directory" in text


@pytest.mark.parametrize("target", ["/victim/private/empty", "/victim/empty", "/victim/sub/file"])
def test_row_51_a_parent_that_becomes_a_link(
    minidock: Any, context: Callable[..., Path], sentinel: Any, target: str
) -> None:
    """The step swaps the directory in which its stub lies for a link to a tree that has the same names."""
    (sentinel.path.parent / "f").write_text("")
    kind = "type=secret,id=none" if target.endswith("file") else "type=tmpfs"
    folder = context(
        f"FROM busybox\nRUN --mount={kind},target={target} mkdir -p /victim; mv /victim /moved && "
        f"ln -s {sentinel.path} /victim; true\nRUN ls -ld /victim\n"
    )
    minidock.build(folder, "-t", "t", "--network", "none")
    assert sentinel.changes() == []
    shown = minidock.out("run", "--rm", "--network", "none", "t", "readlink", "/victim")
    assert shown == str(sentinel.path)


def test_row_51_a_stub_that_becomes_something_else(minidock: Any, context: Callable[..., Path], sentinel: Any) -> None:
    """Only what is still the empty file or directory that was made is taken away."""
    folder = context(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/a/b/c mv /a /kept; mkdir -p /a/b; "
        f"ln -s {sentinel.path}/empty /a/b/c; mkdir /kept/b/d\nRUN true\n"
    )
    minidock.build(folder, "-t", "t", "--network", "none")
    shown = minidock.out("run", "--rm", "--network", "none", "t", "sh", "-c", "readlink /a/b/c; find /kept | sort")
    assert shown.splitlines()[0] == f"{sentinel.path}/empty"
    assert "/kept/b/d" in shown


@pytest.mark.parametrize(
    ("flag", "entitlement"),
    [("--network=host", "network.host"), ("--security=insecure", "security.insecure")],
)
@pytest.mark.parametrize(
    "text",
    [
        "FROM busybox\nRUN {} true\n",
        "FROM busybox\nRUN --mount=type=tmpfs,target=/t {} true\n",
        "FROM busybox\nRUN {} <<EOF\n#!/bin/sh\ntrue\nEOF\n",
        "FROM busybox AS one\nRUN {} true\nFROM busybox\nCOPY --from=one /etc /e\n",
        "FROM busybox AS one\nRUN {} true\nFROM busybox\nRUN --mount=from=one,target=/e true\n",
        "FROM busybox AS one\nONBUILD RUN {} true\nFROM one\n",
        "# escape=`\nFROM busybox\nRUN `\n {} true\n",
    ],
)
def test_row_52_nothing_is_given_that_was_not_allowed(
    minidock: Any, context: Callable[..., Path], text: str, flag: str, entitlement: str
) -> None:
    folder = context(re.sub(r"(?m)^(FROM .*\n)", r"\1RUN touch /ran\n", text.format(flag), count=1))
    other = "security.insecure" if entitlement == "network.host" else "network.host"
    for given in (("--network", "none"), ("--allow", other)):
        done = minidock("build", "-t", "t", *given, folder, status=1)
        assert f"{entitlement} is not allowed: RUN {flag} asks for it" in done.stderr
        assert f"--allow {entitlement}" in done.stderr
        assert ">>>" in done.stderr
        assert "touch /ran" not in done.stderr.partition("Dockerfile:")[0], "nothing has run"
    assert minidock.out("images", "-q", "t") == ""
    minidock.build(folder, "--allow", entitlement)


def test_row_52_what_is_not_needed_needs_no_permission(minidock: Any, context: Callable[..., Path]) -> None:
    folder = context("FROM busybox AS one\nRUN --security=insecure true\nFROM busybox\nRUN true\n")
    minidock.build(folder)


def test_row_52_what_was_not_allowed_does_not_come_from_the_cache(minidock: Any, context: Callable[..., Path]) -> None:
    folder = context("FROM busybox\nRUN --network=host true\n")
    minidock.build(folder, "--allow", "network.host")
    assert "network.host is not allowed" in minidock.build(folder, status=1)


def test_row_52_insecure_is_insecure_and_nothing_else_is(minidock: Any, context: Callable[..., Path]) -> None:
    show = "grep -E '^(CapEff|Seccomp):' /proc/self/status; cat /proc/kcore | head -c 1 | wc -c"
    folder = context(f"FROM busybox\nRUN {show}\nRUN --security=insecure {show}\nRUN --security=sandbox true; {show}\n")
    text = minidock.build(folder, "--allow", "security.insecure", "--network", "none")
    effective = re.findall(r"CapEff:\t(\w+)", text)
    filters = re.findall(r"Seccomp:\t(\w+)", text)
    assert effective[0] == effective[2] == "00000000a80425fb"
    assert int(effective[1], 16) & (1 << 21), "CAP_SYS_ADMIN"
    assert filters == ["2", "0", "2"]


def test_row_53_a_source_is_in_its_root(minidock: Any, context: Callable[..., Path], sentinel: Any) -> None:
    """CVE-2024-1753: a link to / in an image was the host's root."""
    folder = context(
        "FROM busybox AS evil\nRUN ln -s / /root-link; ln -s ../../../../.. /up; "
        f"ln -s {sentinel.path} /away\nFROM busybox\n"
        "RUN --mount=from=evil,source=/root-link,target=/a,rw --mount=from=evil,source=up,target=/b,rw "
        f"ls -d /a{sentinel.path} /b{sentinel.path} 2>/dev/null; ls -ld /a/root-link /b/up; touch /a/x /b/x\n"
    )
    text = minidock.build(folder, "-t", "t", "--network", "none")
    assert f"/a{sentinel.path}\n" not in text
    assert f"/b{sentinel.path}\n" not in text
    (folder / "Dockerfile").write_text(
        "FROM busybox AS evil\nRUN ln -s / /root-link; ln -s ../../../../.. /up; "
        f"ln -s {sentinel.path} /away\nFROM busybox\nRUN --mount=from=evil,source=away,target=/a ls /a\n"
    )
    assert "cannot mount 'away' on /a" in minidock.build(folder, "--network", "none", status=1)


def test_row_53_links_of_the_context_do_not_lead_out(
    minidock: Any, context: Callable[..., Path], sentinel: Any
) -> None:
    folder = context("FROM busybox\nRUN --mount=source=S,target=/a cat /a /a/secret\n", {"d/f": "x"})
    (folder / "file").symlink_to(sentinel.path / "secret")
    (folder / "folder").symlink_to(sentinel.path)
    (folder / "up").symlink_to("../../../../../..")
    for source in ("file", "folder", "folder/secret", "up/etc", "../sentinel", "../../../../etc/shadow"):
        (folder / "Dockerfile").write_text(
            f"FROM busybox\nRUN --mount=source={source},target=/a cat /a /a/secret /a/shadow\n"
        )
        text = minidock.build(folder, "--network", "none", status=1)
        assert sentinel.secret.strip() not in text
        assert "is not found in the build context" in text
    (folder / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=target=/a cat /a/file /a/folder/secret 2>/dev/null; readlink /a/file\n"
    )
    text = minidock.build(folder, "--network", "none")
    assert sentinel.secret.strip() not in text
    assert str(sentinel.path / "secret") in text


@pytest.mark.parametrize(
    "cache_id",
    ["../../..", "../../../../../../../etc", "/etc/passwd", ".", "a/b", "x" * 4096, "-rf", "$(id)", "\u202e"],
)
def test_row_53_a_cache_id_is_no_path(
    minidock: Any, context: Callable[..., Path], sentinel: Any, cache_id: str
) -> None:
    folder = context(f"FROM busybox\nRUN --mount=type=cache,id='{cache_id}',target=/c ls -A /c; echo x > /c/passwd\n")
    folders = Path(minidock.root, "cache/mounts")
    minidock.build(folder, "--network", "none")
    (made,) = folders.iterdir()
    assert len(made.name) == 64
    assert (made / "data/passwd").read_text() == "x\n"
    assert minidock("system", "check").returncode == 0


@pytest.mark.parametrize(
    "target", ["../../../../../../{}/made", "/../../{}/made", "x/../../../../{}/made", "./../{}/made"]
)
def test_row_53_a_target_is_inside(minidock: Any, context: Callable[..., Path], sentinel: Any, target: str) -> None:
    inside = target.format(str(sentinel.path).lstrip("/"))
    folder = context(
        f"FROM busybox\nWORKDIR /w\nRUN --mount=type=cache,id=c,target={inside} ls -d {sentinel.path}/made; "
        f"touch {sentinel.path}/made/x\nRUN ! test -e {sentinel.path}\n"
    )
    minidock.build(folder, "--network", "none")


def test_row_53_a_target_through_links_of_the_image(minidock: Any, context: Callable[..., Path], sentinel: Any) -> None:
    folder = context(
        f"FROM busybox\nRUN ln -s {sentinel.path} /away; ln -s ../../../../..{sentinel.path} /up; ln -s /proc /p\n"
        "RUN --mount=type=cache,id=c,target=/up/there touch /up/there/x\n"
    )
    # The link leads to nothing inside of the image: nothing is made, inside or outside.
    text = minidock.build(folder, "--network", "none", status=1)
    assert "dangling symbolic link" in text
    (folder / "Dockerfile").write_text("FROM busybox\nRUN ln -s /proc /p\nRUN --mount=type=tmpfs,target=/p/sys true\n")
    assert "it leads into /proc" in minidock.build(folder, "--network", "none", status=1)


@pytest.mark.parametrize(
    "mount", ["type=bind,target=/x,bind-propagation=shared", "type=bind,target=/x,z", "type=devpts,target=/x"]
)
def test_row_53_an_option_that_is_not_known_is_refused(minidock: Any, context: Callable[..., Path], mount: str) -> None:
    done = minidock("build", context(f"FROM busybox\nRUN --mount={mount} true\n"), status=1)
    assert "unknown key" in done.stderr or "unsupported mount type" in done.stderr


def _holding(text: str, *places: str) -> list[str]:
    """The files below the places that hold the text, in their content or name."""
    found = []
    for place in places:
        for directory, _, names in os.walk(place):
            for path in (os.path.join(directory, name) for name in names):
                with contextlib.suppress(OSError):
                    if text in path or (os.path.isfile(path) and text.encode() in Path(path).read_bytes()):
                        found.append(path)
    return found


@pytest.mark.parametrize("how", ["file", "variable"])
def test_row_46_a_secret_is_in_no_message_and_on_no_disk(
    minidock: Any, context: Callable[..., Path], tmp_path: Path, how: str
) -> None:
    """A9.16: bytes of layers, history, records, caches and logs are looked at, while the step runs and afterwards."""
    folder = context(
        "FROM busybox\nRUN --mount=type=secret,id=s,env=TOKEN --mount=type=cache,target=/c "
        "--mount=type=secret,id=s,target=/run/secrets/s,required "
        'cat /run/secrets/s | md5sum; test "$TOKEN" = "$(cat /run/secrets/s)"; touch /made; echo now; cat /c/go\n'
        'RUN ! test -e /run/secrets; test -z "$TOKEN"\n'
    )
    secret = tmp_path / "elsewhere"
    secret.mkdir()
    (secret / "key").write_text(TOKEN)
    minidock.build(context("FROM busybox\nRUN --mount=type=cache,target=/c mkfifo /c/go\n"), "--network", "none")
    (fifo,) = Path(minidock.root, "cache/mounts").glob("*/data/go")
    source = f"src={secret}/key"
    if how == "variable":
        minidock.environment["SECRET_VARIABLE"] = TOKEN
        source = "env=SECRET_VARIABLE"
    build = minidock.popen("--debug", "build", "-t", "t", "--network", "none", "--secret", f"id=s,{source}", folder)
    run = DataRoot(str(minidock.root)).run
    try:
        with open(fifo, "w") as go:
            # The step is between its two commands now.
            assert _holding(TOKEN, str(minidock.root), run, "/run/minidock") == []
            go.write("x\n")
    finally:
        out, err = build.communicate(timeout=60)
    assert build.returncode == 0, err
    assert TOKEN.encode() not in out + err
    assert b"secret 's'" in err, "the steps are told with --debug"
    told = minidock.out("history", "--no-trunc", "t") + minidock("image", "inspect", "t").stdout
    told += minidock.out("builder", "du", "--verbose")
    assert TOKEN not in told
    assert _holding(TOKEN, str(minidock.root), run, "/run/minidock") == []


def test_row_46_a_failing_step_tells_no_secret(minidock: Any, context: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "key").write_text(TOKEN)
    given = ("--secret", f"id=s,src={tmp_path}/key", "--network", "none")
    for mount, message in (
        ("type=secret,id=s,target=/bin", "cannot mount a file on /bin"),
        ("type=secret,id=s,target=/proc/x", "nothing may be mounted inside /proc"),
        ("type=secret,id=s,env=T", "exit code: 3"),
    ):
        folder = context(f"FROM busybox\nRUN --mount={mount} exit 3\n")
        done = minidock("--debug", "build", *given, folder, status=1)
        assert message in done.stderr
        assert TOKEN not in done.stdout + done.stderr
    (tmp_path / "key").write_bytes(TOKEN.encode() + b"\0")
    done = minidock(
        "--debug", "build", *given, context("FROM busybox\nRUN --mount=type=secret,id=s,env=T x\n"), status=1
    )
    assert "holds a null character" in done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert _holding(TOKEN, str(minidock.root)) == []


def test_row_46_credentials_of_a_proxy_are_nowhere(minidock: Any, context: Callable[..., Path]) -> None:
    folder = context("FROM busybox\nRUN test ${#HTTPS_PROXY} -gt 20\n")
    proxy = f"HTTPS_PROXY=http://user:{TOKEN}@proxy:3128"
    done = minidock("--debug", "build", "-t", "t", "--network", "none", "--build-arg", proxy, folder)
    assert TOKEN not in done.stdout + done.stderr
    assert _holding(TOKEN, str(minidock.root)) == []
