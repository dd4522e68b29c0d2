"""ADD of files behind URLs: what lands in the image, when they are fetched, and what is refused."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock.model.digest import digest_of
from minidock.store.layout import DataRoot
from tests.integration.build.remote.servers import Server, date

Context = Callable[..., Path]
TIME = 1_400_000_000


def added(minidock: Any, folder: Path, *arguments: str) -> str:
    return str(minidock.build(folder, "-t", "t", *arguments))


def shown(minidock: Any, command: str) -> str:
    return str(minidock.out("run", "--rm", "--network", "none", "t", "sh", "-c", command))


def archive(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = len(content), TIME, 0o640
        tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def test_mode_time_owner_and_name(clean: Any, context: Context, web: Server) -> None:
    web.file("/a/f%20g.txt", b"hello", Last_Modified=date(TIME), Content_Disposition='attachment; filename="evil"')
    url = f"{web.url}/a/f%20g.txt?x=1#part"
    folder = context(f"FROM busybox\nADD {url} /d/\nADD {url} /e/name\n")
    added(clean, folder)
    text = shown(clean, "stat -c '%a %u:%g %Y %n' /d/* /e/*; cat /d/*")
    assert text.splitlines() == [f"600 0:0 {TIME} /d/f g.txt", f"600 0:0 {TIME} /e/name", "hello"]


def test_flags(clean: Any, context: Context, web: Server) -> None:
    url = web.file("/t.tgz", archive("inner", b"packed"))
    text = f"FROM busybox\nADD --chmod=750 --chown=7:8 {url} /a/\nADD {url} /plain/\nADD --unpack {url} /b/\n"
    added(clean, context(text + f"ADD --unpack --chown=3 {url} /c/\n"))
    found = shown(clean, "stat -c '%a %u:%g %Y %n' /a/* /plain/* /b/* /c/*; cat /b/inner")
    assert found.splitlines() == [
        "750 7:8 0 /a/t.tgz",
        "600 0:0 0 /plain/t.tgz",
        f"640 0:0 {TIME} /b/inner",
        f"640 3:3 {TIME} /c/inner",
        "packed",
    ]


def test_symbolic_modes_excluded_files_and_links(clean: Any, context: Context, web: Server) -> None:
    url = web.file("/t.tgz", archive("inner", b"packed"))
    lines = (
        f"ADD --chmod=a+r,u+x {url} /a/\nADD --link --chown=7 --chmod=g=u --exclude=t.tgz {url} /link/\n"
        f"ADD --unpack --chmod=go=u {url} /c/\nADD --unpack --exclude=in* {url} /d/\n"
    )
    added(clean, context(f"FROM busybox\nRUN ln -s /etc /link\n{lines}"))
    found = shown(clean, "stat -c '%a %u:%g %n' /a/* /link /link/* /c/*; ls /d")
    assert found.splitlines() == [
        "744 0:0 /a/t.tgz", "775 7:7 /link", "660 7:7 /link/t.tgz", "666 0:0 /c/inner",
    ]  # fmt: skip
    # What is linked is no other on another base.
    text = added(clean, context(f"FROM busybox\nRUN mkdir /other\n{lines}"))
    assert "CACHED\n" in text.split("ADD --link", 1)[1].split("ADD", 1)[0]


def test_beside_files_of_the_context_and_heredocs(clean: Any, context: Context, web: Server) -> None:
    url = web.file("/u", b"u")
    folder = context(f"FROM busybox\nADD l {url} t.tgz <<H /d/\nheredoc\nH\n", {"l": "l", "t.tgz": archive("x", b"x")})
    added(clean, folder)
    found = " ".join(shown(clean, "cd /d && head *").split())
    assert found == "==> H <== heredoc ==> l <== l ==> u <== u ==> x <== x"
    (folder / "l").write_text("changed")
    assert "CACHED\n" not in added(clean, folder).split("ADD", 1)[1]
    assert shown(clean, "cat /d/l") == "changed"


@pytest.mark.parametrize("version", [{"ETag": '"v1"'}, {"Last_Modified": date(TIME)}])
def test_unchanged_is_not_fetched_again(clean: Any, context: Context, web: Server, version: dict[str, str]) -> None:
    url = web.file("/f", b"one" * 1000, **version)
    folder = context(f"FROM busybox\nADD {url} /f\nRUN echo ran\n")
    added(clean, folder)
    assert web.sent == [3000]
    again = added(clean, folder)
    assert (again.count("CACHED"), web.sent) == (3, [3000])
    assert "if-none-match" in web.asked[-1].headers or "if-modified-since" in web.asked[-1].headers
    # Not even with --no-cache, which runs the step.
    assert "CACHED" not in added(clean, folder, "--no-cache").split("ADD", 1)[1]
    assert web.sent == [3000]
    assert shown(clean, "wc -c < /f").strip() == "3000"
    new = {name: '"v2"' if name == "ETag" else date(TIME + 1) for name in version}
    web.file("/f", b"two", **new)
    assert added(clean, folder).count("CACHED") == 1
    assert shown(clean, "cat /f") == "two"


def test_same_content_hits_whatever_its_version(clean: Any, context: Context, web: Server) -> None:
    url = web.file("/f", b"same", ETag='"1"')
    folder = context(f"FROM busybox\nADD {url} /f\n")
    added(clean, folder)
    web.file("/f", b"same", ETag='"2"')
    assert added(clean, folder).count("CACHED") == 2


def test_a_server_that_ignores_conditions_is_believed_by_its_etag(clean: Any, context: Context, web: Server) -> None:
    body = b"x" * 4_000_000

    def answer(handler: Any) -> None:
        web.reply(handler, 200, body, ETag='"fixed"')

    web.actions["/f"] = answer
    folder = context(f"FROM busybox\nADD {web.url}/f /f\n")
    added(clean, folder)
    assert added(clean, folder).count("CACHED") == 2


def test_checksum(clean: Any, context: Context, web: Server) -> None:
    url = web.file("/f", b"known")
    digest = digest_of(b"known")
    folder = context(f"FROM busybox\nADD --checksum={digest} {url} /f\n")
    added(clean, folder)
    asked = len(web.asked)
    assert added(clean, folder).count("CACHED") == 2
    assert len(web.asked) == asked, "what its checksum tells is not asked for"
    web.file("/f", b"other")
    failed = clean.build(folder, "--no-cache", status=1)
    assert digest in failed
    assert digest_of(b"other") in failed
    assert ">>> ADD" in failed


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("ADD --checksum=sha256:12 {url}/f /f", "it is no digest"),
        ("ADD --checksum=md5:{zeros} {url}/f /f", "it is no digest"),
        ("ADD --checksum=sha256:{zeros} {url}/f {url}/g /d/", "exactly one source"),
        ("ADD --checksum=sha256:{zeros} Dockerfile /d/", "exactly one source"),
        ("ADD --keep-git-dir Dockerfile /d/", "needs a git repository"),
        ("ADD {url}/f {url}/f /d", "needs a directory as destination"),
        ("ADD {url}/ /d/", "has no file name"),
        ("ADD {url}/missing /d/", "the server answers 404 Not Found"),
        ("ADD ftp://example.org/f /d/", "scheme that cannot be fetched"),
        ("ADD file:///etc/passwd /d/", "scheme that cannot be fetched"),
        ("COPY {url}/f /d/", "write ADD instead of COPY"),
        ("COPY git@example.org:x.git /d/", "write ADD instead of COPY"),
        ("ADD --unpack {url}/f /d/", "is not a tar archive"),
    ],
)
def test_refusals(clean: Any, context: Context, web: Server, line: str, reason: str) -> None:
    web.file("/f", b"f")
    folder = context(f"FROM busybox\n{line.format(url=web.url, zeros='0' * 64)}\n")
    assert reason in clean.build(folder, "-t", "t", status=1)
    assert "t" not in clean.out("images").split()


def test_redirects_are_followed_but_not_for_ever(clean: Any, context: Context, web: Server, other_web: Server) -> None:
    other_web.file("/real", b"there")
    web.actions["/a"] = lambda handler: web.reply(handler, 302, Location="b")
    web.actions["/b"] = lambda handler: web.reply(handler, 308, Location=f"{other_web.url}/real")
    web.actions["/loop"] = lambda handler: web.reply(handler, 301, Location="/loop")
    web.actions["/out"] = lambda handler: web.reply(handler, 301, Location="file:///etc/passwd")
    web.actions["/none"] = lambda handler: web.reply(handler, 301)
    added(clean, context(f"FROM busybox\nADD {web.url}/a /d/\n"))
    assert shown(clean, "cat /d/a") == "there"
    assert "more than 10 redirects" in clean.build(context(f"FROM busybox\nADD {web.url}/loop /\n"), status=1)
    assert "redirects to 'file:///etc/passwd'" in clean.build(context(f"FROM busybox\nADD {web.url}/out /\n"), status=1)
    assert "redirects to ''" in clean.build(context(f"FROM busybox\nADD {web.url}/none /\n"), status=1)


def test_credentials_stay_with_their_host_and_out_of_sight(
    *, clean: Any, context: Context, web: Server, other_web: Server
) -> None:
    other_web.file("/real", b"there")
    web.actions["/a"] = lambda handler: web.reply(handler, 302, Location="/b")
    web.actions["/b"] = lambda handler: web.reply(handler, 302, Location=f"{other_web.url}/real")
    folder = context(
        f"FROM busybox\nADD http://me:hu%73h-hush@{web.place}/a /d/\nADD http://me:hu%73h-hush@{web.place}/a /\n"
    )
    log = added(clean, folder)
    assert [asked.headers.get("authorization") for asked in web.asked[:2]] == ["Basic bWU6aHVzaC1odXNo"] * 2
    assert "authorization" not in other_web.asked[0].headers
    log += clean.build(context(f"FROM busybox\nADD http://me:hush-hush@{web.place}/gone /\n"), status=1)
    for word in ("hush-hush", "hu%73h-hush"):
        assert word not in log
        assert word not in clean.out("history", "--no-trunc", "t")
        found = subprocess.run(["grep", "-rl", word, clean.root], capture_output=True, text=True).stdout
        assert found == ""


def test_broken_answers(clean: Any, context: Context, web: Server) -> None:
    def short(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"only this")
        handler.close_connection = True

    def nonsense(handler: Any) -> None:
        handler.wfile.write(b"hello there\r\n\r\n")
        handler.close_connection = True

    def huge(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 40))
        handler.end_headers()
        handler.close_connection = True

    web.actions |= {"/short": short, "/nonsense": nonsense, "/huge": huge}
    for path, reason in (("short", "too early"), ("nonsense", "cannot fetch"), ("huge", "bytes allowed")):
        assert reason in clean.build(context(f"FROM busybox\nADD {web.url}/{path} /\n"), status=1)
    assert not (clean.root / "cache/http").exists()


def test_no_one_there(clean: Any, context: Context, web: Server) -> None:
    web.close()
    failed = clean.build(context(f"FROM busybox\nADD {web.url}/f /\n"), status=1)
    assert f"cannot fetch {web.url}/f: Connection refused" in failed


def test_certificates_are_checked(
    *, clean: Any, context: Context, secure_web: Server, web: Server, certificate: Path
) -> None:
    url = secure_web.file("/f", b"safe")
    folder = context(f"FROM busybox\nADD {url} /f\n")
    assert "its certificate is not valid: self-signed certificate" in clean.build(folder, status=1)
    clean.environment["SSL_CERT_FILE"] = str(certificate)
    added(clean, folder)
    assert shown(clean, "cat /f") == "safe"
    secure_web.actions["/down"] = lambda handler: secure_web.reply(handler, 302, Location=f"{web.url}/f")
    failed = clean.build(context(f"FROM busybox\nADD {secure_web.url}/down /f\n"), status=1)
    assert f"redirects from https to {web.url}/f" in failed
    assert web.asked == []


def test_proxy_of_the_environment(clean: Any, context: Context, web: Server) -> None:
    web.actions["http://example.invalid/f"] = lambda handler: web.reply(handler, 200, b"by proxy")
    folder = context("FROM busybox\nADD http://example.invalid/f /f\n")
    clean.environment["http_proxy"] = f"http://u:p@{web.place}"
    added(clean, folder)
    assert shown(clean, "cat /f") == "by proxy"
    assert web.asked[0].headers["proxy-authorization"] == "Basic dTpw"
    clean.environment |= {"no_proxy": "example.invalid"}
    assert "cannot fetch http://example.invalid/f" in clean.build(folder, status=1)


def test_what_a_server_says_drives_no_terminal(clean: Any, context: Context, web: Server) -> None:
    web.actions["/f"] = lambda handler: web.reply(handler, 302, Location="\x1b]52;c;x\x07")
    assert "\x1b" not in clean.build(context(f"FROM busybox\nADD {web.url}/f /\n"), status=1)


def test_killed_while_it_fetches(minidock: Any, context: Context, web: Server) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "8000000")
        handler.send_header("ETag", '"1"')
        handler.end_headers()
        handler.wfile.write(bytes(4_000_000))
        begun.set()
        go_on.wait(30)
        handler.wfile.write(bytes(4_000_000))

    web.actions["/f"] = slow
    folder = context(f"FROM busybox\nADD {web.url}/f /f\n")
    build = minidock.popen("build", folder)
    try:
        assert begun.wait(30)
        build.send_signal(signal.SIGKILL)
        build.communicate(timeout=10)
    finally:
        go_on.set()
    root = DataRoot(str(minidock.root))
    assert os.listdir(root.tmp) != []
    minidock("volume", "ls")
    minidock("images")
    added(minidock, folder)
    assert os.listdir(root.tmp) == []
    assert shown(minidock, "wc -c < /f").strip() == "8000000"


def test_builder_du_and_prune(clean: Any, context: Context, web: Server) -> None:
    url = web.file("/f?x".partition("?")[0], b"x" * 1000, ETag='"1"') + "?token=hush"
    added(clean, context(f"FROM busybox\nADD {url} /f\n"))
    listed = clean.out("builder", "du", "--verbose")
    assert web.url + "/f" in listed
    assert "hush" not in listed
    clean("builder", "prune", "--force", "--filter", "type=http")
    assert os.listdir(clean.root / "cache/http") == []
    added(clean, context(f"FROM busybox\nADD {url} /f\n"))
    assert len(web.sent) == 2
