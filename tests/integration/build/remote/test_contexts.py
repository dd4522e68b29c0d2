"""Contexts: standard input, tars behind URLs, named ones; the ignore rules; and what none of them can reach."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import re
import shutil
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from minidock.model.digest import digest_of
from minidock.store.layout import DataRoot
from tests.integration.build.remote.servers import Repository, Server

Context = Callable[..., Path]
TIME = 1_400_000_000
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
}


def tar_of(*members: tuple[str, bytes | None, dict[str, Any]]) -> bytes:
    """A tar of (name, content, other fields); a directory where there is no content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content, fields in members:
            member = tarfile.TarInfo(name)
            member.mtime, member.mode = TIME, 0o644 if content is not None else 0o755
            member.type = tarfile.REGTYPE if content is not None else tarfile.DIRTYPE
            member.size = len(content or b"")
            for field, value in fields.items():
                setattr(member, field, value)
            tar.addfile(member, io.BytesIO(content or b""))
    return stream.getvalue()


def dockerfile(text: str) -> tuple[str, bytes, dict[str, Any]]:
    return ("Dockerfile", text.encode(), {})


def build_from(minidock: Any, data: bytes, *arguments: str, status: int = 0) -> str:
    """Build with ``data`` on standard input; what was said."""
    command = [minidock.command, "build", *arguments]
    done = subprocess.run(command, env=minidock.environment, input=data, capture_output=True, timeout=60)
    text = done.stderr.decode(errors="replace")
    assert "Traceback" not in text
    assert done.returncode == status, text
    return text


def shown(minidock: Any, command: str) -> str:
    return str(minidock.out("run", "--rm", "--network", "none", "t", "sh", "-c", command))


@pytest.mark.parametrize("packer", PACKERS)
def test_tar_on_standard_input(clean: Any, packer: str) -> None:
    data = tar_of(
        dockerfile("FROM busybox\nCOPY sub /d/\nCOPY --chmod=600 top /\n"),
        ("sub/file", b"content", {"uid": 1234, "gid": 5, "mode": 0o640}),
        ("top", b"top", {}),
    )
    assert "load build context from standard input" in build_from(clean, PACKERS[packer](data), "-t", "t", "-")
    text = shown(clean, "stat -c '%a %u:%g %Y %n' /d/file /top; cat /d/file")
    assert text.splitlines() == [f"640 0:0 {TIME} /d/file", f"600 0:0 {TIME} /top", "content"]
    assert build_from(clean, PACKERS[packer](data), "-").count("CACHED") == 3


def test_dockerfile_on_standard_input_has_an_empty_context(clean: Any) -> None:
    build_from(clean, b"FROM busybox\nRUN echo x > /f\n", "-t", "t", "-")
    assert shown(clean, "cat /f") == "x"
    assert "'f' is not found in the build context" in build_from(clean, b"FROM busybox\nCOPY f /\n", "-", status=1)


@pytest.mark.parametrize(
    ("data", "arguments", "reason"),
    [
        (b"", (), "it is empty"),
        (b"FROM busybox\0\n", (), "neither a tar archive nor a Dockerfile"),
        (b"\xff\xfe\n", (), "is not UTF-8"),
        (b"FROM busybox\n", ("-f", "other"), "is a Dockerfile, and another one is named"),
        (b"FROM busybox\n", ("-f", "-"), "cannot be both"),
        (gzip.compress(b"FROM busybox\n"), (), "tar"),
        (gzip.compress(tar_of(dockerfile("FROM busybox\n")))[:-20], (), "ends too early|end-of-stream|truncated|ended"),
        (tar_of(dockerfile("FROM busybox\n"))[:1024], (), "no end-of-archive mark"),
        (tar_of(("other", b"", {})), (), "there is no Dockerfile in 'standard input'"),
        (tar_of(("../Dockerfile", b"FROM busybox\n", {})), (), "tar"),
        (bytes(10240), (), "there is no Dockerfile in 'standard input'"),
        (tar_of(("Dockerfile", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})), (), "it is not there"),
        (tar_of(dockerfile("FROM busybox\n")), ("-f", "../../etc/passwd"), "it is not there"),
    ],
)
def test_standard_input_that_is_no_context(clean: Any, data: bytes, arguments: tuple[str, ...], reason: str) -> None:
    command = [clean.command, "build", *arguments, "-"]
    done = subprocess.run(command, env=clean.environment, input=data, capture_output=True, timeout=60)
    text = done.stderr.decode(errors="replace")
    assert "Traceback" not in text
    assert done.returncode in (1, 125)
    assert re.search(reason, text), text


def test_a_tar_reaches_nothing_outside(clean: Any, tmp_path: Path) -> None:
    """Row 48: links of a context are copied as links and never followed out of it."""
    sentinel = tmp_path / "sentinel"
    sentinel.write_text("sentinel")
    data = tar_of(
        dockerfile("FROM busybox\nCOPY out up passwd /d/\nCOPY through/sentinel* /e/\n"),
        ("out", b"", {"type": tarfile.SYMTYPE, "linkname": str(sentinel)}),
        ("up", b"", {"type": tarfile.SYMTYPE, "linkname": "../../../../../../etc/passwd"}),
        ("passwd", b"mine", {}),
        ("through", b"", {"type": tarfile.SYMTYPE, "linkname": str(tmp_path)}),
        ("through/written", b"x", {}),
    )
    text = build_from(clean, data, "-", status=1)
    assert "'out' is not found" in text
    assert sorted(os.listdir(tmp_path)) == sorted({*os.listdir(tmp_path)} - {"written"})
    data = data.replace(b"COPY out up passwd /d/\n", b"COPY . /d/            \n")
    build_from(clean, data, "-t", "t", "-")
    assert shown(clean, "readlink /d/out; readlink /d/through; ls /e 2>/dev/null; true").splitlines() == [
        str(sentinel),
        str(tmp_path),
    ]


def test_dockerignore_in_a_tar(clean: Any) -> None:
    data = tar_of(
        dockerfile("FROM busybox\nCOPY . /d/\n"),
        (".dockerignore", b"*\n!keep\n", {}),
        ("keep", b"", {}),
        ("drop", b"", {}),
        ("sub/Dockerfile", b"FROM busybox\nCOPY . /s/\n", {}),
        ("sub/Dockerfile.dockerignore", b"keep\nsub\nDockerfile\n", {}),
    )
    build_from(clean, data, "-t", "t", "-")
    assert shown(clean, "ls -A /d") == "keep"
    build_from(clean, data, "-t", "t", "-f", "sub/Dockerfile", "-")
    assert shown(clean, "ls -A /s").split() == [".dockerignore", "drop"]


@pytest.mark.parametrize("packer", ["plain", "zstd"])
def test_tar_behind_an_url(clean: Any, web: Server, packer: str) -> None:
    url = web.file("/c.tar", PACKERS[packer](tar_of(dockerfile("FROM busybox\nCOPY . /d/\n"))), ETag='"1"')
    clean("build", "-t", "t", url)
    assert shown(clean, "ls /d") == "Dockerfile"
    clean("build", url)
    assert len(web.sent) == 1, "an unchanged context is not fetched again"


def test_dockerfile_behind_an_url(clean: Any, web: Server) -> None:
    clean("build", "-t", "t", web.file("/Dockerfile", b"FROM busybox\nRUN echo x > /f\n"))
    assert shown(clean, "cat /f") == "x"


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ("ftp://example.org/x", "scheme that cannot be fetched"),
        ("https://user:pw/x@h/", "invalid URL 'https://xxxxx@h/'"),
        ("git@-oProxyCommand=touch x:y", "cannot use the build context|blank"),
        ("ext::sh -c id", "cannot use the build context"),
        ("https://example.org/x.git#--output=x", "is no branch"),
        ("/nowhere", "cannot use the build context '/nowhere': No such file"),
    ],
)
def test_no_context(clean: Any, context: str, reason: str) -> None:
    assert re.search(reason, clean("build", context, status=125).stderr)


def test_named_directory(clean: Any, context: Context) -> None:
    other = context("", {"file": "other", ".dockerignore": "file\n", "sub/x": "x"})
    os.symlink("/etc/passwd", other / "link")
    folder = context("FROM busybox\nCOPY --from=other . /d/\nCOPY --from=other sub /s\n", {"file": "main"})
    clean.build(folder, "-t", "t", "--build-context", f"other={other}")
    assert shown(clean, "cat /d/file; ls -A /d; readlink /d/link; stat -c %u /d/file").split() == (
        ["other.dockerignore", "Dockerfile", "file", "link", "sub", "/etc/passwd", "0"]
    )
    assert clean.build(folder, "--build-context", f"other={other}").count("CACHED") == 3
    (other / "file").write_text("changed")
    clean.build(folder, "-t", "t", "--build-context", f"other={other}")
    assert shown(clean, "cat /d/file") == "changed"
    again = clean.build(folder, status=1)
    assert "no image 'other'" in again


def test_from_a_directory(clean: Any, context: Context, busybox_tree: Path) -> None:
    folder = context('FROM base AS first\nRUN echo more > /more\nFROM first\nCMD ["cat", "/more"]\n')
    clean.build(folder, "-t", "t", "--build-context", f"base={busybox_tree}")
    assert clean.out("run", "--rm", "--network", "none", "t") == "more"
    found = clean.inspect("t")
    assert found["Config"]["Env"][0].startswith("PATH=")
    assert len(found["RootFS"]["Layers"]) == 2


@pytest.mark.parametrize("name", ["busybox", "busybox:latest", "docker.io/library/busybox"])
def test_a_name_wins_over_an_image(clean: Any, context: Context, name: str) -> None:
    clean.build(context("FROM busybox\nRUN echo mine > /who\n"), "-t", "mine")
    folder = context("FROM busybox\nCOPY --from=busybox:latest /who /copied\n")
    clean.build(folder, "-t", "t", "--build-context", f"{name}=docker-image://mine")
    assert shown(clean, "cat /who /copied").split() == ["mine", "mine"]


def test_a_name_wins_over_a_stage(clean: Any, context: Context) -> None:
    """Docker's manual, "docker buildx build", --build-context: a stage of the name is overwritten."""
    other = context("", {"f": "other"})
    text = "FROM nowhere AS dep\nRUN false\nFROM busybox\nCOPY --from=dep /f /f\nCOPY --from=0 f /g\nFROM dep AS last\n"
    folder = context(text)
    clean.build(folder, "-t", "t", "--target", "2", "--build-context", f"dep={other}", status=None)
    clean.build(folder, "-t", "u", "--build-context", f"DEP={other}", "--target", "1")
    assert clean.out("run", "--rm", "--network", "none", "u", "cat", "/f", "/g") == "otherother"
    assert "no image 'nowhere'" in clean.build(folder, "--target", "1", status=1)


def test_named_url_and_git(clean: Any, context: Context, web: Server, repository: Callable[[str], Repository]) -> None:
    made = repository("r.git")
    made.commit(file="git", sub__file="below")
    url = web.file("/c.tar.gz", gzip.compress(tar_of(("file", b"tar", {}))))
    folder = context("FROM busybox\nCOPY --from=t file /t\nCOPY --from=g file /g\nCOPY --from=s file /s\n")
    named = [f"t={url}", f"g={web.url}/git/r.git", f"s={web.url}/git/r.git#main:sub"]
    log = clean.build(folder, "-t", "t", *(part for name in named for part in ("--build-context", name)))
    assert shown(clean, "cat /t /g /s") == "targitbelow"
    assert f"[context t] {url}" in log


def layout_of(minidock: Any, image: str, folder: Path, *, pack: Callable[[bytes], bytes], tag: str = "latest") -> None:
    """The image as an OCI layout with packed layers."""
    blobs = minidock.root / "images/blobs/sha256"
    target = folder / "blobs/sha256"
    target.mkdir(parents=True)
    index = json.loads((minidock.root / "images/index.json").read_text())
    name = "org.opencontainers.image.ref.name"
    entry = next(e for e in index["manifests"] if f"/{image}:" in e["annotations"].get(name, ""))
    manifest = json.loads((blobs / entry["digest"][7:]).read_text())

    def put(data: bytes) -> dict[str, Any]:
        digest = digest_of(data)
        (target / digest[7:]).write_bytes(data)
        return {"digest": digest, "size": len(data)}

    for layer in manifest["layers"]:
        layer.update(put(pack((blobs / layer["digest"][7:]).read_bytes())))
        layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip"
    put((blobs / manifest["config"]["digest"][7:]).read_bytes())
    chosen = put(json.dumps(manifest).encode()) | {"mediaType": entry["mediaType"]}
    chosen["annotations"] = {name: tag}
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [chosen]}))


@pytest.mark.parametrize("packer", ["plain", "gzip", "zstd"])
def test_oci_layout(clean: Any, context: Context, tmp_path: Path, packer: str) -> None:
    clean.build(context("FROM busybox\nENV A=from-layout\nRUN echo layout > /who\n"), "-t", "mine")
    layout_of(clean, "mine", tmp_path / "layout", pack=PACKERS[packer], tag="v1")
    clean("rmi", "mine")
    folder = context("FROM base\nRUN echo $A >> /who\nCOPY --from=base /who /copied\n")
    before = clean.out("images", "-aq")
    clean.build(folder, "-t", "t", "--build-context", f"base=oci-layout://{tmp_path}/layout:v1")
    assert shown(clean, "cat /who /copied").split() == ["layout", "from-layout", "layout"]
    assert len(clean.out("images", "-aq").split()) == len(before.split()) + 1, "the base itself is no image here"
    assert clean.build(folder, "--build-context", f"base=oci-layout://{tmp_path}/layout").count("CACHED") == 3
    failed = clean.build(folder, "--build-context", f"base=oci-layout://{tmp_path}/layout:v2", status=1)
    assert "has no image 'v2'" in failed
    assert clean("system", "check").stdout


def test_damaged_oci_layout(clean: Any, context: Context, tmp_path: Path) -> None:
    clean.build(context("FROM busybox\nRUN echo layout > /who\n"), "-t", "mine")
    layout_of(clean, "mine", tmp_path / "layout", pack=gzip.compress)
    clean("rmi", "mine")
    shutil.rmtree(clean.root / "cache/build")
    manifest = json.loads((tmp_path / "layout/index.json").read_text())["manifests"][0]["digest"]
    layers = json.loads((tmp_path / "layout/blobs/sha256" / manifest[7:]).read_text())["layers"]
    path = tmp_path / "layout/blobs/sha256" / layers[-1]["digest"][7:]
    whole = path.read_bytes()
    folder = context("FROM base\nRUN cat /who\n")
    named = ("--build-context", f"base=oci-layout://{tmp_path}/layout")
    for content in (whole + b"x", gzip.compress(tar_of(("who", b"other", {}))), whole[:-30], b""):
        path.write_bytes(content)
        assert "damaged" in (said := clean.build(folder, *named, status=1)) or "truncated" in said, said
    path.unlink()
    os.mkfifo(path)
    assert "minidock:" in clean.build(folder, *named, status=1)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("x", "'x' is no named context"),
        ("=x", "'' is no name of a context"),
        ("x=", "'x=' is no named context"),
        ("../x=/", "is no name of a context"),
        ("scratch=/", "always is the empty image"),
        ("x=/nowhere", "there is no directory '/nowhere'"),
        ("x=docker-image://-x", "'library/-x' is not a repository name"),
    ],
)
def test_named_contexts_that_make_no_sense(clean: Any, context: Context, value: str, reason: str) -> None:
    assert reason in clean.build(context("FROM scratch\n"), "--build-context", value, status=125)


def test_ignorefile(clean: Any, context: Context, tmp_path: Path) -> None:
    folder = context("FROM busybox\nCOPY . /d\n", {"a": "", "b": "", ".dockerignore": "a\n"})
    rules = tmp_path / "rules"
    rules.write_text("b\n.dockerignore\nDockerfile\n")
    clean.build(folder, "-t", "t", "--ignorefile", str(rules))
    assert shown(clean, "ls -A /d") == "a"
    rules.write_text("a\n[\n")
    assert "rules:2" in clean.build(folder, "--ignorefile", str(rules), status=1)
    assert "it is not there" in clean.build(folder, "--ignorefile", str(tmp_path / "none"), status=125)


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "large"])
def test_ignore_rules_are_a_regular_file(clean: Any, context: Context, kind: str) -> None:
    """Row 49."""
    folder = context("FROM busybox\nCOPY . /d\n")
    path = folder / ".dockerignore"
    if kind == "link":
        os.symlink("/etc/passwd", path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_bytes(b"x\n" * (4 << 20))
    assert "cannot read the ignore rules" in clean.build(folder, status=125)


def test_many_and_evil_patterns_end(clean: Any, context: Context) -> None:
    """Row 49: a hundred thousand lines, and stars that would take a naive matcher for ever."""
    folder = context("FROM busybox\nCOPY . /d\n", {"a" * 200: "", "keep": ""})
    lines = [f"none{number}" for number in range(100_000)] + ["*a*a*a*a*a*a*a*a*a*a*a*a*b", "**/" * 50 + "x", "!keep"]
    (folder / ".dockerignore").write_text("\n".join(lines) + "\n")
    clean.build(folder, "-t", "t", timeout=60)
    assert "keep" in shown(clean, "ls /d").split()


def test_killed_while_a_context_comes_in(minidock: Any) -> None:
    build = minidock.popen("build", "-", stdin=subprocess.PIPE)
    assert build.stdin is not None
    build.stdin.write(tar_of(dockerfile("FROM busybox\n"), ("large", bytes(8_000_000), {}))[:4_000_000])
    build.stdin.flush()
    root = DataRoot(str(minidock.root))
    deadline = time.monotonic() + 20
    while not any(path.stat().st_size for path in Path(root.tmp).glob("build-*/context-*/tree/large")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    build.send_signal(signal.SIGKILL)
    build.communicate(timeout=10)
    build_from(minidock, tar_of(dockerfile("FROM busybox\n")), "-")
    assert os.listdir(root.tmp) == []


def test_interrupted_while_a_context_is_fetched(clean: Any, web: Server) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(b"FROM")
        begun.set()
        go_on.wait(30)

    web.actions["/f"] = slow
    build = clean.popen("build", f"{web.url}/f")
    try:
        assert begun.wait(30)
        build.send_signal(signal.SIGINT)
        _, said = build.communicate(timeout=10)
    finally:
        go_on.set()
    assert b"CANCELED" in said
    assert b"Traceback" not in said


def test_the_library_in_a_process_with_threads(clean: Any, web: Server) -> None:
    """The launcher gets the contexts, too."""
    url = web.file("/c.tar", tar_of(dockerfile("FROM busybox\nCOPY --from=x f /f\n")))
    named = web.file("/x.tar", tar_of(("f", b"f", {})))
    program = (
        "import threading, sys, time\n"
        "from minidock import Engine\n"
        "threading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n"
        f"print(Engine().build({url!r}, tags=['t'], contexts=['x={named}']))\n"
    )
    done = subprocess.run(
        [str(Path(clean.command).with_name("python")), "-c", program],
        env=clean.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert shown(clean, "cat /f") == "f"


def test_run_mounts_a_named_context(clean: Any, context: Context, web: Server) -> None:
    url = web.file("/x.tar", tar_of(("f", b"from a tar", {})))
    folder = context("FROM busybox\nRUN --mount=from=x,target=/m cat /m/f > /f\n")
    clean.build(folder, "-t", "t", "--build-context", f"x={url}")
    assert shown(clean, "cat /f") == "from a tar"
    assert clean.build(folder, "--build-context", f"x={url}").count("CACHED") == 2
