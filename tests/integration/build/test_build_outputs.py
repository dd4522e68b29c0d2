"""What a build leaves behind: folders, tars, archives that others read, files for scripts; whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock import Engine
from minidock.errors import UsageError
from minidock.model.digest import digest_of

DOCKER = "/usr/bin/docker"
DOCKERFILE = """FROM busybox
COPY --chown=7:8 --chmod=640 a /data/a
RUN ln /data/a /data/b && ln -s a /data/c && chmod 4755 /bin/busybox && mkfifo /data/p && mkdir -m 1777 /data/d
LABEL from=file
"""


@pytest.fixture
def folder(context: Callable[..., Path]) -> Path:
    made = context(DOCKERFILE, {"a": "A"})
    os.setxattr(made / "a", "user.note", b"kept")
    return made


def read_json(archive: Path, name: str) -> Any:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return json.load(file)


def blob(archive: Path, digest: str) -> bytes:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(f"blobs/sha256/{digest[7:]}")
        assert file is not None
        return file.read()


def skopeo(*arguments: str | Path) -> str:
    done = subprocess.run(["skopeo", *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_tree(tree: Path) -> None:
    a = (tree / "data/a").lstat()
    assert (tree / "data/a").read_text() == "A"
    assert (stat.S_IMODE(a.st_mode), a.st_uid, a.st_gid, a.st_nlink) == (0o640, 7, 8, 2)
    assert (tree / "data/b").lstat().st_ino == a.st_ino
    assert os.readlink(tree / "data/c") == "a"
    assert os.getxattr(tree / "data/a", "user.note") == b"kept"
    assert stat.S_IMODE((tree / "bin/busybox").lstat().st_mode) == 0o4755
    assert stat.S_ISFIFO((tree / "data/p").lstat().st_mode)
    assert stat.S_IMODE((tree / "data/d").lstat().st_mode) == 0o1777


def test_a_folder_is_the_final_tree(minidock: Any, folder: Path, tmp_path: Path) -> None:
    before = minidock("images", "-q").stdout
    minidock("build", "-t", "unheard", "-o", tmp_path / "new/out", folder)
    check_tree(tmp_path / "new/out")
    assert os.listdir(tmp_path / "new") == ["out"]
    assert minidock("images", "-q").stdout == before, "the image is in the store only if an output says so"


def test_a_folder_that_is_there_keeps_what_the_tree_has_not(minidock: Any, folder: Path, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (out / "mine/f", out / "data/old", out / "etc/passwd"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    (out / "bin").symlink_to(elsewhere)
    out.chmod(0o700)
    minidock("build", "-o", f"type=local,dest={out}", folder)
    check_tree(out)
    assert (out / "mine/f").read_text() == (out / "data/old").read_text() == "mine"
    assert (out / "etc/passwd").read_text().startswith("root:")
    assert os.listdir(elsewhere) == [], "a link in the folder leads nowhere else"
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert not [name for name in os.listdir(out) if name.endswith(".tmp")]


def test_a_folder_where_a_file_is_to_be_is_refused_before_anything_is_replaced(
    minidock: Any, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "data/a").mkdir(parents=True)
    (out / "etc").mkdir()
    (out / "etc/passwd").write_text("mine")
    done = minidock("build", "-o", out, folder, status=1)
    assert f"cannot write {out}/data/a: there is a folder of that name" in done.stderr
    assert (out / "etc/passwd").read_text() == "mine"
    assert sorted(os.listdir(out)) == ["data", "etc"]


def test_a_tar_is_the_final_tree_and_the_same_each_time(minidock: Any, folder: Path, tmp_path: Path) -> None:
    minidock("build", "-o", f"type=tar,dest={tmp_path}/a.tar", folder)
    with open(tmp_path / "b.tar", "wb") as out:
        process = minidock.popen("build", "-o", "-", folder, stdout=out)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 0
    assert b"exporting to client tarball" in told
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    (tmp_path / "tree").mkdir()
    subprocess.run(
        ["tar", "-C", tmp_path / "tree", "--xattrs", "--xattrs-include=*", "-xpf", tmp_path / "a.tar"], check=True
    )
    check_tree(tmp_path / "tree")


def test_an_oci_archive_is_the_image(minidock: Any, folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.oci"
    minidock("build", "-t", "one:1", "-o", f"type=oci,dest={archive}", "-o", "type=image", folder)
    found = json.loads(skopeo("inspect", f"oci-archive:{archive}"))
    assert found["Labels"] == {"from": "file"}
    skopeo("copy", f"oci-archive:{archive}", f"dir:{tmp_path}/copied")
    (entry,) = read_json(archive, "index.json")["manifests"]
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "docker.io/library/one:1"
    assert entry["platform"]["os"] == "linux"
    manifest = json.loads(blob(archive, entry["digest"]))
    assert manifest["config"]["digest"] == minidock.inspect("one:1")["Id"]
    for part in (manifest["config"], *manifest["layers"]):
        assert digest_of(blob(archive, part["digest"])) == part["digest"]
    again = tmp_path / "again.oci"
    minidock("build", "-t", "one:1", "-o", f"type=oci,dest={again}", folder)
    assert archive.read_bytes() == again.read_bytes()


def test_a_docker_archive_is_what_docker_load_reads(minidock: Any, folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.docker"
    minidock("build", "-t", "one:1", "-o", f"type=docker,dest={archive},name=two", folder)
    assert json.loads(skopeo("inspect", f"docker-archive:{archive}"))["Labels"] == {"from": "file"}
    skopeo("copy", f"docker-archive:{archive}:one:1", f"dir:{tmp_path}/copied")
    skopeo("inspect", f"oci-archive:{archive}:docker.io/library/two:latest")
    (entry,) = read_json(archive, "manifest.json")
    assert entry["RepoTags"] == ["one:1", "two:latest"]
    with tarfile.open(archive) as tar:
        names = tar.getnames()
    assert {entry["Config"], *entry["Layers"]} <= set(names)


def test_several_outputs_labels_annotations_and_files_for_scripts(minidock: Any, folder: Path, tmp_path: Path) -> None:
    done = minidock(
        "build",
        "-q",
        *("-t", "a", "-o", f"type=oci,dest={tmp_path}/a.oci", "-o", "type=image,name=b:2", "-o", tmp_path / "tree"),
        *("--label", "by=flag", "--label", "from=flag", "--annotation", "k=v", "--annotation", "index:i=j"),
        *("--iidfile", tmp_path / "iid", "--metadata-file", tmp_path / "metadata"),
        folder,
    )
    image = minidock.inspect("a")
    assert minidock.inspect("b:2")["Id"] == image["Id"] == done.stdout.strip() == (tmp_path / "iid").read_text()
    assert image["Config"]["Labels"] == {"from": "flag", "by": "flag"}
    check_tree(tmp_path / "tree")
    index = read_json(tmp_path / "a.oci", "index.json")
    assert index["annotations"] == {"i": "j"}
    metadata = json.loads((tmp_path / "metadata").read_text())
    assert metadata["containerimage.config.digest"] == image["Id"]
    assert metadata["image.name"] == "docker.io/library/a:latest,docker.io/library/b:2"
    assert metadata["containerimage.descriptor"]["digest"] == metadata["containerimage.digest"]
    assert index["manifests"][0]["digest"] == metadata["containerimage.digest"]
    manifest = json.loads((minidock.root / "images/blobs/sha256" / metadata["containerimage.digest"][7:]).read_bytes())
    assert manifest["annotations"] == {"k": "v"}
    assert image["RepoDigests"][0].endswith(metadata["containerimage.digest"])


def test_an_image_without_layers_has_outputs_too(minidock: Any, context: Callable[..., Path], tmp_path: Path) -> None:
    folder = context("FROM scratch\nENV a=1\n")
    minidock("build", "-o", tmp_path / "tree", "-o", f"type=tar,dest={tmp_path}/a.tar", folder)
    minidock("build", "-o", f"type=oci,dest={tmp_path}/a.oci", folder)
    assert os.listdir(tmp_path / "tree") == []
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getnames() == []
    assert json.loads(skopeo("inspect", f"oci-archive:{tmp_path}/a.oci"))["Env"][-1] == "a=1"


def test_a_build_that_fails_leaves_nothing(minidock: Any, context: Callable[..., Path], tmp_path: Path) -> None:
    folder = context("FROM busybox\nRUN false\n")
    out = tmp_path / "out"
    out.mkdir()
    (out / "iid").write_text("sha256:old")
    (out / "a.tar").write_text("old")
    minidock(
        *("build", "-t", "t", "-o", out / "tree", "-o", f"type=tar,dest={out}/a.tar", "-o", "type=image"),
        *("--iidfile", out / "iid", "--metadata-file", out / "metadata", folder),
        status=1,
    )
    assert os.listdir(out) == ["a.tar"], "an ID of an earlier build is not left for this one's"
    assert (out / "a.tar").read_text() == "old"
    assert os.listdir(minidock.root / "tmp") == []


def test_a_file_is_old_or_whole_whenever_the_build_is_killed(minidock: Any, folder: Path, tmp_path: Path) -> None:
    minidock("build", "-o", f"type=tar,dest={tmp_path}/whole", folder)
    whole, file = (tmp_path / "whole").read_bytes(), tmp_path / "file"
    for instant in range(12):
        file.write_bytes(b"old")
        process = minidock.popen("build", "-o", f"type=tar,dest={file}", folder)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1 + instant * 0.03)
        process.kill()
        process.communicate(timeout=60)
        assert file.read_bytes() in (b"old", whole)
    minidock("build", "-o", f"type=tar,dest={file}", folder)
    assert file.read_bytes() == whole
    assert os.listdir(minidock.root / "tmp") == []


def test_a_device_is_written_to_and_not_replaced(minidock: Any, folder: Path) -> None:
    minidock("build", "-o", "type=tar,dest=/dev/null", "--iidfile", "/dev/null", folder)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_full_disk_is_one_sentence(minidock: Any, folder: Path) -> None:
    done = minidock("build", "-o", "type=tar,dest=/dev/full", folder, status=1)
    assert "minidock: cannot write to /dev/full: No space left on device" in done.stderr


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["-o", "type=zip"], "invalid output 'type=zip': there is no type 'zip'"),
        (["-o", "type=tar,dest=/nowhere/a.tar"], "cannot write /nowhere/a.tar: there is no folder /nowhere"),
        (["-o", "type=oci,dest=/tmp"], "cannot write /tmp: it is a folder"),
        (["-o", "/dev/null"], "cannot write to /dev/null: /dev/null is not a folder"),
        (["-o", "type=image,name=UPPER"], "invalid image reference 'UPPER'"),
        (["-q", "-o", "-"], "cannot both go to standard output"),
        (["--annotation", "index:a=b"], "an annotation of an index needs an output that has one"),
        (["--annotation", "a"], "invalid annotation 'a'"),
        (["--label", "=x"], "invalid value '=x' for --label"),
        (["--iidfile", "/nowhere/iid"], "cannot write /nowhere/iid: there is no folder /nowhere"),
        (["--progress", "loud"], "there is no progress 'loud'"),
        (["--progress", "tty"], "--progress=tty needs a terminal"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(
    minidock: Any, folder: Path, flags: list[str], sentence: str
) -> None:
    done = minidock("build", *flags, folder, status=125)
    assert sentence in done.stderr
    assert "#1" not in done.stderr


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[list[str]]:
    """The command line of a docker whose daemon is the test's own."""
    daemon = shutil.which("dockerd")
    if daemon is None or not Path(DOCKER).exists():
        pytest.skip("docker is not installed: apt-get install docker.io")
    command = [DOCKER, "-H", f"unix://{tmp_path}/docker.sock"]
    folders = [f"--{name}={tmp_path}/docker-{name}" for name in ("data-root", "exec-root", "pidfile")]
    with open(tmp_path / "dockerd.log", "wb") as log:
        process = subprocess.Popen(
            [daemon, *command[1:], *folders, "--bridge=none", "--iptables=false"], stdout=log, stderr=log
        )
    try:
        for _ in range(300):
            if subprocess.run([*command, "info"], capture_output=True).returncode == 0:
                break
            assert process.poll() is None, (tmp_path / "dockerd.log").read_text()
            time.sleep(0.1)
        yield command
    finally:
        process.terminate()
        process.wait(60)


def test_docker_load_makes_the_same_image(minidock: Any, folder: Path, tmp_path: Path, docker: list[str]) -> None:
    minidock("build", "-t", "one:1", "-o", f"type=docker,dest={tmp_path}/a", "--iidfile", tmp_path / "iid", folder)
    loaded = subprocess.run([*docker, "load", "-i", tmp_path / "a"], check=True, capture_output=True, text=True)
    assert loaded.stdout.strip() == "Loaded image: one:1"
    shown = subprocess.run([*docker, "inspect", "one:1"], check=True, capture_output=True, text=True)
    assert json.loads(shown.stdout)[0]["Id"] == (tmp_path / "iid").read_text()


SQUASHED = """FROM busybox
RUN mkdir /a /gone && echo 1 > /a/kept && echo 2 > /a/removed && ln /a/kept /a/link && echo x > /gone/x
RUN rm /a/removed && rm -r /gone && echo 3 > /a/new && rm /etc/group && ln -s new /a/to
RUN rm -r /home && mkdir /home && echo 4 > /home/four && chmod 700 /a
ENV a=1
"""


@pytest.mark.parametrize("base", ["busybox", "scratch"])
def test_squash_makes_one_layer_with_the_same_tree(
    minidock: Any, context: Callable[..., Path], tmp_path: Path, base: str
) -> None:
    text = SQUASHED if base == "busybox" else "FROM scratch\nCOPY a /a\nCOPY b /b\nCOPY a /b/\nWORKDIR /c\n"
    folder = context(text, {"a": "A", "b/b": "B"})
    minidock("build", "-t", "whole", "-o", f"type=tar,dest={tmp_path}/whole", "-o", "type=image", folder)
    minidock("build", "-t", "one", "--squash", "-o", f"type=tar,dest={tmp_path}/one", "-o", "type=image", folder)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "one").read_bytes()
    below = 1 if base == "busybox" else 0
    whole, one = minidock.inspect("whole"), minidock.inspect("one")
    assert len(whole["RootFS"]["Layers"]) > below + 1
    assert len(one["RootFS"]["Layers"]) == below + 1
    assert one["RootFS"]["Layers"][:below] == whole["RootFS"]["Layers"][:below]
    assert one["Config"] == whole["Config"]
    lines = minidock("history", "one").stdout
    assert "squash" in lines
    if below:
        assert "mkdir /a /gone" in lines
        assert minidock.out("run", "--rm", "--network", "none", "one", "cat", "/home/four", "/a/to") == "4\n3"
    again = minidock("build", "-q", "--squash", folder).stdout.strip()
    assert again == one["Id"]


def test_squash_of_one_layer_changes_nothing(minidock: Any, context: Callable[..., Path]) -> None:
    folder = context("FROM busybox\nRUN echo 1 > /f\n")
    assert minidock.out("build", "-q", folder) == minidock.out("build", "-q", "--squash", folder)


def test_a_program_gets_outputs_too(minidock: Any, folder: Path, tmp_path: Path) -> None:
    engine = Engine(str(minidock.root))
    with open(tmp_path / "a.tar", "wb") as out:
        engine.build(
            str(folder), outputs=["-", str(tmp_path / "tree")], stdout=out.fileno(), iidfile=str(tmp_path / "iid")
        )
    check_tree(tmp_path / "tree")
    assert tarfile.is_tarfile(tmp_path / "a.tar")
    assert (tmp_path / "iid").read_text().startswith("sha256:")
    with pytest.raises(UsageError, match="no destination"):
        engine.build(str(folder), outputs=["-"])
