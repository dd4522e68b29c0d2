"""Pulls from Debian's registry of what skopeo has put there, in each form that there is."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock.model.oci import LAYER_GZIP
from minidock.store.blobs import Blobs
from minidock.store.layout import DataRoot
from tests.conftest import Minidock
from tests.integration.registry.conftest import RealRegistry
from tests.integration.registry.evilreg import EvilRegistry, Layer, digest_of, layer, tar_of

FORMS = {
    "oci-gzip": ("--format", "oci"),
    "oci-zstd": ("--format", "oci", "--dest-compress-format", "zstd"),
    "docker-gzip": ("--format", "v2s2"),
    "oci-plain": ("--format", "oci", "--preserve-digests"),
}
_ENDINGS = {"oci-gzip": "gzip", "oci-zstd": "zstd", "docker-gzip": "gzip", "oci-plain": "layer.v1.tar"}


@pytest.fixture(scope="session")
def source(busybox_root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The busybox image with a second layer, as skopeo reads it; its layers are not compressed."""
    root = tmp_path_factory.mktemp("source") / "root"
    subprocess.run(["cp", "-a", busybox_root, root], check=True)
    minidock = Minidock(root)
    folder = root.with_name("context")
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM busybox\nCOPY --chmod=640 f /etc/f\nRUN mkdir -m 700 /d && ln -s f /d/l\n")
    (folder / "f").write_text("content\n")
    minidock.build(folder, "-t", "source:1", "--network=none")
    archive = root.with_name("source.tar")
    minidock.build(folder, "-t", "source:1", "--network=none", "-o", f"type=oci,dest={archive}")
    minidock.close()
    return f"oci-archive:{archive}"


# The size of a directory is its file system's.
TREE = """cd /; find bin d root etc/f etc/passwd -exec stat -c '%n %F %a %u %g' {} + | sort
find bin d root etc/f etc/passwd ! -type d -exec stat -c '%n %s' {} + | sort; cat /etc/f; readlink /d/l"""


@pytest.fixture(scope="session")
def tree(source: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the image holds, as umoci unpacks it."""
    folder = tmp_path_factory.mktemp("tree")
    subprocess.run(["skopeo", "copy", "-q", source, f"oci:{folder}/layout:1"], check=True, capture_output=True)
    line = ["umoci", "unpack", "--image", f"{folder}/layout:1", str(folder / "bundle")]
    subprocess.run(line, check=True, capture_output=True)
    line = ["chroot", str(folder / "bundle/rootfs"), "/bin/sh", "-c", TREE]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("form", FORMS)
def test_what_skopeo_pushed_is_pulled_bit_for_bit(
    fresh_real: RealRegistry, command: Minidock, source: str, tree: str, form: str
) -> None:
    real, name = fresh_real, f"matrix/{form}"
    real.push(source, f"{name}:1", *FORMS[form])
    manifest = json.loads(real.raw(f"{name}:1"))
    assert all(one["mediaType"].endswith(_ENDINGS[form]) for one in manifest["layers"])
    full = f"{real.host}/{name}:1"
    digest = real.digest(f"{name}:1")
    done = command("pull", full)
    assert done.stdout.splitlines()[0] == f"1: Pulling from {name}"
    assert done.stdout.splitlines()[-3:] == [
        f"Digest: {digest}",
        f"Status: Downloaded newer image for {full}",
        full,
    ]
    blobs = Blobs(DataRoot(str(command.root)))
    assert blobs.read(digest) == real.raw(f"{name}:1")
    shown = command.inspect(full)
    assert shown["Id"] == manifest["config"]["digest"]
    assert shown["RepoDigests"] == [f"{real.host}/{name}@{digest}"]
    for one in manifest["layers"]:
        with blobs.open(one["digest"]) as file:
            assert f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" == one["digest"]
    assert command("run", "--rm", "--network=none", full, "sh", "-c", TREE).stdout == tree
    assert command.out("image", "verify").endswith(": ok")
    again = command("pull", full)
    assert f"Status: Image is up to date for {full}" in again.stdout
    assert command.out("pull", "-q", full) == full


def test_by_digest(real: RealRegistry, command: Minidock, source: str) -> None:
    digest = real.push(source, "by/digest:1", "--format", "oci")
    name = f"{real.host}/by/digest@{digest}"
    done = command("pull", name)
    assert f"{digest}: Pulling from by/digest" in done.stdout
    assert done.stdout.splitlines()[-1] == name
    assert command.out("run", "--rm", "--network=none", name, "cat", "/etc/f") == "content"
    assert command.inspect(name)["RepoDigests"] == [name]
    assert command.inspect(name)["RepoTags"] == []
    missing = f"{real.host}/by/digest@sha256:{'0' * 64}"
    error = command("pull", missing, status=1).stderr
    assert error.splitlines()[0].endswith(f"cannot pull {missing}: {real.host} has no such image")


def test_a_tag_beside_a_digest_means_nothing_here(real: RealRegistry, command: Minidock, source: str) -> None:
    digest = real.push(source, "by/both:1", "--format", "oci")
    command("pull", f"{real.host}/by/both:other@{digest}")
    assert "other" not in command.out("images")


def test_a_tag_that_has_moved(real: RealRegistry, command: Minidock, source: str, busybox_root: Path) -> None:
    """The name means the new image, and the old one is there without a name."""
    real.push(source, "moved:1", "--format", "oci")
    name = f"{real.host}/moved:1"
    command("pull", name)
    old = command.inspect(name)["Id"]
    real.push(f"oci:{busybox_root}/images:docker.io/library/busybox:latest", "moved:1", "--format", "oci")
    assert f"Status: Downloaded newer image for {name}" in command("pull", name).stdout
    new = command.inspect(name)["Id"]
    assert new != old
    assert command.inspect(old)["RepoTags"] == []
    assert set(command.out("images", "-aq", "--no-trunc").split()) == {old, new}


def test_all_tags(real: RealRegistry, command: Minidock, source: str) -> None:
    for tag in ("1", "2", "latest"):
        real.push(source, f"several:{tag}", "--format", "oci")
    name = f"{real.host}/several"
    command("pull", "-a", name)
    assert sorted(command.inspect(f"{name}:1")["RepoTags"]) == [f"{name}:1", f"{name}:2", f"{name}:latest"]
    error = command("pull", "-a", f"{name}:1", status=1).stderr
    assert "names one image, and --all-tags asks for all" in error
    assert "has no such repository" in command("pull", "-a", f"{real.host}/nothing/there", status=1).stderr


def test_what_is_not_there(real: RealRegistry, command: Minidock, source: str) -> None:
    real.push(source, "there:1", "--format", "oci")
    for name in ("there:2", "not/there:1"):
        done = command("pull", f"{real.host}/{name}", status=1)
        assert f"cannot pull {real.host}/{name}: {real.host} has no such image" in done.stderr
        assert "look at the tag or digest" in done.stderr
    assert command.out("images", "-q") == ""


def test_nobody_there(command: Minidock) -> None:
    done = command("pull", "127.0.0.1:1/a", status=1)
    assert "cannot pull 127.0.0.1:1/a:latest: 127.0.0.1:1: Connection refused" in done.stderr


def test_with_tls_and_a_password(
    guarded_real: RealRegistry,
    command: Minidock,
    source: str,
    certificate: Path,
    tmp_path: Path,
) -> None:
    digest = guarded_real.push(source, "secret/app:1", "--format", "oci")
    name = f"{guarded_real.host}/secret/app:1"
    done = command("pull", name, status=1)
    assert f"{guarded_real.host}: its certificate is not valid" in done.stderr
    certs = tmp_path / "certs" / guarded_real.host
    certs.mkdir(parents=True)
    (certs / "ca.crt").write_bytes((certificate.parent / "cert.pem").read_bytes())
    (tmp_path / "config.toml").write_text(f'registry_certificates = ["{tmp_path}/certs"]\n')
    done = command("pull", name, status=1)
    assert f"cannot pull {name}: {guarded_real.host} denies access" in done.stderr
    assert f"`minidock login {guarded_real.host}`" in done.stderr
    auth = tmp_path / "auth.json"
    command.environment["MINIDOCK_AUTH_FILE"] = str(auth)
    for password, status in (("wrong", 1), ("s3cret", 0)):
        auth.write_text(json.dumps({"auths": {guarded_real.host: {"username": "somebody", "password": password}}}))
        done = command("--debug", "pull", name, status=status)
        assert password not in done.stdout + done.stderr
    assert f"Digest: {digest}" in done.stdout


def _indexed(evil: EvilRegistry, *platforms: dict[str, Any], docker: bool = False) -> dict[str, str]:
    """An index ``multi:1``; the digest for each architecture."""
    entries = []
    for platform in platforms:
        one = layer({"platform": json.dumps(platform).encode()})
        fields = {key: platform[key] for key in ("os", "architecture", "variant") if key in platform}
        text = "-".join(str(value) for value in platform.values())
        entries.append((evil.image("multi", one, tag=text, docker=docker, **fields), platform))
    evil.index("multi", entries, tag="1", docker=docker)
    return {"/".join(str(value) for value in platform.values()): digest for digest, platform in entries}


AMD = {"os": "linux", "architecture": "amd64"}
ARM = {"os": "linux", "architecture": "arm64", "variant": "v8"}
ARM_7 = {"os": "linux", "architecture": "arm", "variant": "v7"}
UNKNOWN = {"os": "unknown", "architecture": "unknown"}


@pytest.mark.parametrize("docker", [False, True])
def test_the_platform_is_chosen_from_an_index(evil: EvilRegistry, puller: Any, docker: bool) -> None:
    digests = _indexed(evil, UNKNOWN, ARM, AMD, ARM_7, docker=docker)
    index = hashlib.sha256(evil.manifests["multi", "1"][1]).hexdigest()
    for platform, key in (
        ("linux/amd64", "linux/amd64"),
        ("linux/arm64", "linux/arm64/v8"),
        ("arm", "linux/arm/v7"),
        ("", "linux/amd64"),
    ):
        evil.asked.clear()
        found = puller(f"{evil.host}/multi:1", platform=platform)[0]
        assert found.digest == f"sha256:{index}"
        assert evil.paths("manifests")[-1].endswith(digests[key])
        image = next(image for image in puller.images() if image.id == found.id)
        assert image.manifest_digest == digests[key]
        assert image.repo_digests == (f"{evil.host}/multi@sha256:{index}",)


def test_a_platform_that_is_missing_is_named_with_those_that_are_there(evil: EvilRegistry, puller: Any) -> None:
    _indexed(evil, UNKNOWN, ARM, ARM_7)
    error = puller.refuse(f"{evil.host}/multi:1", platform="linux/s390x")
    assert error.message == f"{evil.host}/multi is not there for linux/s390x"
    assert error.hint == "it is there for linux/arm64, linux/arm/v7"
    assert not evil.paths("blobs")


def test_a_platform_of_no_possible_name_drives_no_terminal(evil: EvilRegistry, puller: Any) -> None:
    _indexed(evil, {"os": "linux\x1b[2J", "architecture": "x\ny"})
    error = puller.refuse(f"{evil.host}/multi:1")
    assert error.hint == "it is there for one of no possible name"


def test_an_index_of_skopeo(real: RealRegistry, command: Minidock, evil: EvilRegistry, tmp_path: Path) -> None:
    """The whole of one, through Debian's registry."""
    digests = _indexed(evil, ARM, AMD)
    target = f"docker://{real.host}/multi:1"
    line = ["skopeo", "copy", "-q", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"]
    subprocess.run([*line, f"docker://{evil.host}/multi:1", target], check=True, capture_output=True)
    done = command("pull", "--platform", "linux/arm64", f"{real.host}/multi:1")
    assert f"Digest: {real.digest('multi:1')}" in done.stdout
    shown = command.inspect(f"{real.host}/multi:1")
    assert shown["Architecture"] == "arm64"
    assert Blobs(DataRoot(str(command.root))).has(digests["linux/arm64/v8"])
    assert (
        "is not there for linux/s390x"
        in command("pull", "--platform", "s390x", f"{real.host}/multi:1", status=1).stderr
    )


def test_what_was_pulled_is_a_base(
    real: RealRegistry, command: Minidock, source: str, context: Callable[..., Path]
) -> None:
    real.push(source, "base:1", "--format", "oci")
    command("pull", f"{real.host}/base:1")
    command.build(context(f"FROM {real.host}/base:1\nRUN echo more >>/etc/f\n"), "-t", "app", "--network=none")
    assert command.out("run", "--rm", "--network=none", "app", "cat", "/etc/f") == "content\nmore"


def test_a_tar_with_more_behind_its_end(evil: EvilRegistry, puller: Any) -> None:
    """The padding belongs to what is hashed."""
    tar = tar_of({"f": b"x"}) + bytes(512 * 300)
    evil.image("a", Layer(gzip.compress(tar, mtime=0), LAYER_GZIP, digest_of(tar)))
    assert puller(f"{evil.host}/a")[0].fresh
