"""What steps do to files, for real: links, owners, devices, hostile contexts, stubs, omission, the cache's promises."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from minidock.errors import BuildError
from minidock.store.blobs import Blobs


def test_context_links_never_lead_out(shop: Any, tmp_path: Any) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    shop.file("d/f")
    os.symlink(secret, shop.context / "d/absolute")
    os.symlink("../../secret", shop.context / "d/up")
    os.symlink(tmp_path, shop.context / "dir")
    image = shop.build("FROM scratch\nCOPY d /d\n")
    tree = shop.tree(image, "d")
    assert tree["absolute"][0] == f"link:{secret}", "a link below a source is copied as a link"
    assert tree["up"][0] == "link:../../secret"
    for source in ("d/absolute", "d/up", "dir/secret", "../secret", "../../secret", str(secret), "dir", "dir/*/.."):
        with pytest.raises(BuildError, match="is not found in the build context"):
            shop.build(f"FROM scratch\nCOPY {source} /x\n")
    assert list(shop.tree(shop.build("FROM scratch\nCOPY dir/* /x/\n"))) == []


def test_named_link_is_followed_inside_the_context(shop: Any) -> None:
    shop.file("real/f", "content")
    os.symlink("/real/f", shop.context / "file")
    os.symlink("../../../real", shop.context / "directory")
    image = shop.build("FROM scratch\nCOPY file /\nCOPY directory /d\nCOPY directory/f /g\n")
    assert {name: shown[0] for name, shown in shop.tree(image).items()} == {
        "file": "file:content",
        "d": "directory",
        "d/f": "file:content",
        "g": "file:content",
    }


def test_destination_links_stay_inside_the_root(shop: Any, tmp_path: Any) -> None:
    shop.file("f", "content")
    outside = tmp_path / "outside"
    outside.mkdir()
    image = shop.build(
        f"FROM busybox\nRUN ln -s {outside} /a && ln -s ../../../../../../../..{outside} /b\n"
        "COPY f /a/\nCOPY f /b/g\nWORKDIR /a/w\nADD f /b/\n"
    )
    assert os.listdir(outside) == []
    assert shop.tree(image, str(outside)).keys() == {"f", "g", "w"}


def test_links_devices_and_attributes_between_stages(shop: Any) -> None:
    image = shop.build(
        "FROM busybox AS one\nRUN mkdir /d && cd /d && echo x > a && ln a b && ln -s a c && mkfifo p && chmod 4711 a\n"
        "FROM scratch\nCOPY --from=one /d /e\n"
    )
    with shop.rootfs.open_root(image.config.diff_ids, None) as fd:
        a, b = (os.stat(f"e/{name}", dir_fd=fd, follow_symlinks=False) for name in "ab")
        assert (a.st_ino, a.st_nlink) == (b.st_ino, 2)
        assert stat.S_IMODE(a.st_mode) == 0o4711
        assert os.readlink("e/c", dir_fd=fd) == "a"
        assert stat.S_ISFIFO(os.stat("e/p", dir_fd=fd).st_mode)


def test_device_node_of_the_context(overlay_shop: Any) -> None:
    os.mknod(overlay_shop.context / "null", stat.S_IFCHR | 0o640, os.makedev(1, 3))
    image = overlay_shop.build("FROM scratch\nCOPY . /\n")
    with overlay_shop.rootfs.open_root(image.config.diff_ids, None) as fd:
        node = os.stat("null", dir_fd=fd)
        assert (stat.S_ISCHR(node.st_mode), node.st_rdev, node.st_mode & 0o777) == (True, os.makedev(1, 3), 0o640)


def test_file_capabilities_survive(shop: Any) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    os.setxattr(shop.file("f"), "security.capability", capability)
    image = shop.build("FROM scratch\nCOPY f /f\nFROM scratch\nCOPY --from=0 /f /g\n")
    with shop.rootfs.open_root(image.config.diff_ids, None) as fd:
        assert os.getxattr(f"/proc/self/fd/{fd}/g", "security.capability") == capability


def test_missing_parents_take_owner_and_mode(shop: Any) -> None:
    shop.file("f")
    image = shop.build("FROM busybox\nCOPY f /one/two/f\nCOPY --chown=7:8 --chmod=750 f /three/four/f\n")
    tree = shop.tree(image)
    assert tree["one/two"][1:] == (0o755, 0, 0)
    assert tree["three/four"][1:] == (0o750, 7, 8)
    assert tree["three/four/f"][1:] == (0o750, 7, 8)


def test_unknown_owner_fails_with_its_line(overlay_shop: Any) -> None:
    overlay_shop.file("f")
    with pytest.raises(BuildError, match="unable to find user nobody") as caught:
        overlay_shop.build("FROM busybox\nCOPY --chown=nobody f /\n")
    assert (caught.value.line, caught.value.exit_status) == (2, 1)


def test_user_and_workdir_of_run(shop: Any) -> None:
    image = shop.build("FROM busybox\nUSER bob\nWORKDIR /home/bob\nRUN id -un && id -gn && pwd && touch mine\n")
    assert shop.said() == ["bob", "bob", "/home/bob"]
    assert shop.tree(image, "home")["bob"][1:] == (0o755, 1000, 1000)
    assert shop.tree(image, "home/bob")["mine"][2:] == (1000, 1000)


def test_shell_forms(overlay_shop: Any) -> None:
    overlay_shop.build(
        'FROM busybox\nRUN ["echo", "exec $HOME"]\nSHELL ["/bin/busybox", "echo", "shell:"]\nRUN a  b\n'
        'SHELL ["/bin/sh", "-ec"]\nRUN <<EOF\nx=1\necho doc $x\nEOF\nRUN cat <<A - <<B\none\nA\ntwo\nB\n'
    )
    assert overlay_shop.said() == ["exec $HOME", "shell: a  b", "doc 1", "two"]


def test_command_that_is_not_there(overlay_shop: Any) -> None:
    with pytest.raises(BuildError, match="/nothere") as caught:
        overlay_shop.build('FROM busybox\nRUN ["/nothere"]\n')
    assert (caught.value.line, caught.value.exit_status) == (2, 1)


def test_run_leaves_no_stubs(shop: Any) -> None:
    image = shop.build("FROM busybox\nRUN true\nRUN echo x > /f\n")
    assert len(image.config.diff_ids) == 2, "a RUN that changes nothing makes no layer"
    assert [entry.empty_layer for entry in image.config.history] == [False, True, False]
    assert {name for name in shop.layer_names(image) if name != "."} == {"f"}


def test_what_is_alike_below_is_left_out(shop: Any) -> None:
    for name in "abc":
        shop.file(f"d/{name}", name)
    first = shop.build("FROM scratch\nCOPY d /d\n")
    shop.file("d/b", "changed")
    shop.images.tag(first, "first")
    second = shop.build("FROM first\nCOPY d /d\n")
    assert {name for name in shop.layer_names(second) if name != "."} == {"d", "d/b"}
    again = shop.build("FROM first\nCOPY d/a /d/\n")
    assert again.config.diff_ids == first.config.diff_ids
    assert again.config.history[-1].empty_layer


def test_heredocs(shop: Any) -> None:
    image = shop.build(
        'FROM busybox\nENV X=val\nCOPY <<"E" /kept\n$X\nE\nCOPY <<E /expanded\n$X\nE\n'
        "COPY <<-E /tabs/\n\t\ttab\n  space\n\tE\n"
        "COPY --chmod=600 <<one <<two /d/\n1\none\n2\ntwo\n"
    )
    tree = shop.tree(image)
    assert tree["kept"] == ("file:$X\n", 0o644, 0, 0)
    assert tree["expanded"][0] == "file:val\n"
    assert tree["tabs/E"][0] == "file:tab\n  space\n"
    assert (tree["d/one"][0], tree["d/two"][1]) == ("file:1\n", 0o600)
    shop.build('FROM busybox\nENV X=val\nCOPY <<"E" /kept\n$X\nE\nCOPY <<E /expanded\n$X!\nE\n')
    assert shop.steps("DONE") == ["[3/3] COPY <<E /expanded"]


def test_ignored_files(overlay_shop: Any) -> None:
    shop = overlay_shop
    for name in ("src/a", "src/deep/b", "doc/c", ".dockerignore.bak"):
        shop.file(name)
    shop.file(".dockerignore", "*\n!src/**\n")
    image = shop.build("FROM scratch\nCOPY . /x\n")
    assert sorted(shop.tree(image, "x")) == ["src", "src/a", "src/deep", "src/deep/b"]
    with pytest.raises(BuildError, match="'doc/c' is not found") as caught:
        shop.build("FROM scratch\nCOPY doc/c /\n")
    assert "ignore" in caught.value.hint
    assert list(shop.tree(shop.build("FROM scratch\nCOPY d*/c /x/\n"))) == []


def test_ignore_file_beside_the_dockerfile_wins(overlay_shop: Any, tmp_path: Any) -> None:
    shop = overlay_shop
    shop.file("a")
    shop.file("b")
    shop.file(".dockerignore", "a\n")
    (tmp_path / "My.Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (tmp_path / "My.Dockerfile.dockerignore").write_text("b\n")
    image = shop.build(None, dockerfile=str(tmp_path / "My.Dockerfile"))
    assert sorted(shop.tree(image)) == [".dockerignore", "a"]


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_hostile_ignore_file(overlay_shop: Any, kind: str) -> None:
    path = overlay_shop.context / ".dockerignore"
    os.symlink("/etc/passwd", path) if kind == "link" else os.mkfifo(path)
    with pytest.raises(Exception, match="cannot read the ignore rules"):
        overlay_shop.build("FROM scratch\nCOPY . /\n")


def test_onbuild_runs_in_the_child_only(overlay_shop: Any) -> None:
    overlay_shop.file("f", "content")
    overlay_shop.build("FROM busybox\nONBUILD COPY f /f\nONBUILD RUN cat /f > /g\n", tags=["base"])
    child = overlay_shop.build("FROM base\n", tags=["child"])
    assert overlay_shop.content(child, "g") == "content"
    (overlay_shop.context / "f").unlink()
    assert overlay_shop.build("FROM child\nENV a=1\n").config.diff_ids == child.config.diff_ids


def test_data_below_a_volume_is_kept(shop: Any) -> None:
    image = shop.build("FROM busybox\nVOLUME /v\nRUN mkdir -p /v && echo late > /v/f\n")
    assert shop.content(image, "v/f") == "late\n"


def test_removed_files_stay_removed(shop: Any) -> None:
    shop.file("d/a")
    shop.file("d/b")
    image = shop.build("FROM busybox\nCOPY d /d\nRUN rm -r /d && mkdir /d && echo new > /d/c\nCOPY d/a /d/\n")
    assert sorted(shop.tree(image, "d")) == ["a", "c"]


def test_copy_of_a_stage_is_found_by_content(overlay_shop: Any) -> None:
    text = (
        "FROM busybox AS one\nRUN echo {} > /noise; touch -d @1 /out\n"
        "FROM busybox\nCOPY --from=one /out /\nRUN date +%N\n"
    )
    overlay_shop.build(text.format(1))
    overlay_shop.build(text.format(2))
    assert "[stage-1 2/3] COPY --from=one /out /" in overlay_shop.steps("CACHED")
    assert "[stage-1 3/3] RUN date +%N" in overlay_shop.steps("CACHED")


def test_owner_in_a_stage_is_part_of_the_content(shop: Any) -> None:
    text = "FROM busybox AS one\nRUN touch -d @1 /f; chown {} /f\nFROM scratch\nCOPY --from=one /f /\n"
    assert shop.tree(shop.build(text.format("55:66")))["f"][2:] == (55, 66)
    assert shop.tree(shop.build(text.format("77:88")))["f"][2:] == (77, 88)


def test_a_layer_is_adopted_not_built(overlay_shop: Any) -> None:
    overlay_shop.build("FROM busybox\nRUN echo x > /f\n", tags=["one"])
    blobs = set(Blobs(overlay_shop.root).all())
    second = overlay_shop.build("FROM busybox\nRUN echo x > /f\nLABEL other=1\n", tags=["two"])
    new = set(Blobs(overlay_shop.root).all()) - blobs
    assert new == {second.id, second.manifest_digest}


def test_sparse_file_and_large_file(shop: Any) -> None:
    data = os.urandom(3 << 20)
    shop.file("large", data)
    with (shop.context / "sparse").open("wb") as file:
        file.truncate(64 << 20)
    image = shop.build("FROM scratch\nCOPY large sparse /\n")
    with shop.rootfs.open_root(image.config.diff_ids, None) as fd:
        assert os.stat("sparse", dir_fd=fd).st_size == 64 << 20
        if shop.rootfs.driver.form.name == "tree":
            # A layer's tar holds a file's holes as zeros.
            assert os.stat("sparse", dir_fd=fd).st_blocks < 10_000
        with open(os.open("large", os.O_RDONLY, dir_fd=fd), "rb") as file:
            assert file.read() == data


def test_nothing_is_left_on_the_host(overlay_shop: Any) -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    fds = len(os.listdir("/proc/self/fd"))
    overlay_shop.file("f")
    overlay_shop.build(
        "FROM busybox AS one\nRUN echo x > /f\nFROM busybox\nCOPY --from=one /f /\nCOPY f /g\nWORKDIR /w\n"
    )
    with pytest.raises(BuildError):
        overlay_shop.build("FROM busybox\nCOPY f /\nRUN exit 3\n")
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert len(os.listdir("/proc/self/fd")) == fds
    assert os.listdir(overlay_shop.root.tmp) == []


def test_ten_thousand_files(overlay_shop: Any) -> None:
    for directory in range(100):
        (overlay_shop.context / f"d{directory}").mkdir()
        for number in range(100):
            (overlay_shop.context / f"d{directory}/f{number}").write_text(f"{directory} {number}")
    image = overlay_shop.build("FROM scratch\nCOPY . /all\n")
    with overlay_shop.rootfs.open_root(image.config.diff_ids, None) as fd:
        found = subprocess.run(["diff", "-r", overlay_shop.context, f"/proc/self/fd/{fd}/all"], pass_fds=[fd])
    assert found.returncode == 0
    overlay_shop.build("FROM scratch\nCOPY . /all\n")
    assert overlay_shop.steps("CACHED") == ["[1/1] COPY . /all"]


def test_two_builds_side_by_side(overlay_shop: Any) -> None:
    overlay_shop.file("f", "content")
    text = "FROM busybox\nCOPY f /a/\nWORKDIR /w\nCOPY f /b/\n"
    images: list[Any] = []
    threads = [threading.Thread(target=lambda: images.append(overlay_shop.build(text))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(images) == 3
    assert overlay_shop.content(images[0], "b/f") == "content"
    assert os.listdir(overlay_shop.root.tmp) == []
