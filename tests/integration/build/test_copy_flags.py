"""COPY and ADD with --link, --parents, --exclude and symbolic --chmod, on each storage driver and form of layers."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from minidock.errors import BuildError
from minidock.store.blobs import Blobs
from tests.conftest import STORAGES
from tests.integration.build.conftest import Shop

OLD = 1_500_000_000
USERS = "root:x:0:0::/:/bin/sh\\neve:x:{uid}:100::/:/bin/sh\\n"


def age(root: Path) -> None:
    """Give everything below ``root`` a time in the past, each its own."""
    for number, (directory, _, files) in enumerate(os.walk(root, topdown=False)):
        for name in files:
            os.utime(os.path.join(directory, name), (OLD, OLD + number), follow_symlinks=False)
        os.utime(directory, (OLD, OLD + 100 + number))


def owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid, member.gid = 5, 7
    return member


def names_of(shop: Any, image: Any, number: int = -1) -> list[str]:
    """What the tar of a layer holds, but for the root."""
    return [name for name in shop.layer_names(image, number) if name not in ("", ".", "./")]


def modes(shop: Any, image: Any, below: str = "") -> dict[str, str]:
    return {path: f"{shown[1]:o}" for path, shown in shop.tree(image, below).items()}


def owners(shop: Any, image: Any, below: str = "") -> dict[str, tuple[int, int]]:
    return {path: shown[2:] for path, shown in shop.tree(image, below).items()}


def blobs(shop: Any) -> dict[str, tuple[int, int]]:
    """Every blob with its inode and time."""
    directory = os.path.dirname(Blobs(shop.root).path("sha256:" + "0" * 64))
    found = {}
    for name in os.listdir(directory):
        status = os.stat(os.path.join(directory, name))
        found[name] = (status.st_ino, status.st_mtime_ns)
    return found


# --link


def test_a_linked_layer_serves_on_other_bases_and_is_not_stored_again(shop: Any) -> None:
    shop.file("d/file", "content")
    age(shop.context)
    lines = "COPY --link d /etc/conf/\nRUN cat /etc/conf/file /etc/passwd\n"
    one = shop.build(f"FROM busybox\nRUN echo one > /etc/passwd\n{lines}")
    linked = one.config.diff_ids[-1]
    assert names_of(shop, one) == ["etc", "etc/conf", "etc/conf/file"]
    assert shop.said() == ["contentone"], "what is beneath shows through"
    before = blobs(shop)
    other = shop.build(f"FROM busybox\nRUN echo two > /etc/passwd && mkdir /x\n{lines}")
    assert shop.steps("CACHED")[-1] == "[3/4] COPY --link d /etc/conf/"
    assert other.config.diff_ids[-1] == linked
    assert shop.said() == ["contenttwo"]
    after = blobs(shop)
    assert {name: after[name] for name in before} == before
    assert linked.removeprefix("sha256:") in before
    # On a stage that stands on nothing it is the whole.
    alone = shop.build("FROM scratch\nCOPY --link d /etc/conf/\n")
    assert list(alone.config.diff_ids) == [linked]
    assert sorted(shop.tree(alone)) == ["etc", "etc/conf", "etc/conf/file"]


def test_all_of_a_linked_layer_is_kept(shop: Any) -> None:
    shop.file("d/same", "the same")
    shop.file("d/sub/other", "x")
    age(shop.context)
    plain = shop.build("FROM busybox\nCOPY d /d\nCOPY d /d\n")
    assert len(plain.config.diff_ids) == 2, "what is beneath already makes no layer"
    image = shop.build("FROM busybox\nCOPY d /d\nCOPY --link d /d\n")
    assert names_of(shop, image) == ["d", "d/same", "d/sub", "d/sub/other"]
    # So it is whole where nothing of that is beneath.
    shop.build("FROM busybox\nCOPY --link d /d\nRUN cat /d/same\n")
    assert shop.steps("CACHED")[-1] == "[2/3] COPY --link d /d"
    assert shop.said() == ["the same"]


def test_a_linked_layer_twice_in_an_image(shop: Any) -> None:
    shop.file("f", "content")
    age(shop.context)
    image = shop.build("FROM busybox\nCOPY --link f /d/\nRUN rm -r /d\nCOPY --link f /d/\nRUN cat /d/f\n")
    assert shop.said() == ["content"]
    assert image.config.diff_ids[1] == image.config.diff_ids[3]
    assert shop.content(image, "d/f") == "content"


def test_links_of_the_base_are_not_followed(shop: Any) -> None:
    shop.file("f", "content")
    base = (
        "FROM busybox\nRUN ln -s /etc /conf && mkdir -m 700 /private && chmod 1777 /tmp && touch /etc/kept /tmp/kept\n"
    )
    followed = shop.tree(shop.build(f"{base}COPY f /conf/f\n"))
    assert followed["etc/f"][0] == "file:content"
    image = shop.build(f"{base}COPY --link f /conf/f\nCOPY --link f /private/f\nCOPY --link f /tmp/f\n")
    tree = shop.tree(image)
    assert tree["conf"] == ("directory", 0o755, 0, 0)
    assert tree["conf/f"][0] == "file:content"
    assert "etc/f" not in tree
    assert "etc/kept" in tree
    # Directories on the way are the layer's own, over what is beneath.
    assert tree["private"][1] == 0o755
    assert tree["tmp"][1] == 0o755
    assert "tmp/kept" in tree


@pytest.mark.parametrize("line", ["COPY --link --chown=eve:7 --chmod=u=rwX,go= f d /new/", "ADD --link t /new/"])
def test_owner_and_mode_of_a_linked_layer(shop: Any, line: str) -> None:
    shop.file("f").chmod(0o644)
    shop.file("d/x").chmod(0o755)
    if line.startswith("ADD"):
        with tarfile.open(shop.context / "t", "w") as tar:
            for path in ("f", "d/x"):
                tar.add(shop.context / path, os.path.basename(path), filter=owned)
    image = shop.build(f"FROM busybox\nRUN printf '{USERS.format(uid=5)}' > /etc/passwd\n{line}\n")
    assert owners(shop, image, "new") == {"f": (5, 7), "x": (5, 7)}
    if line.startswith("COPY"):
        assert modes(shop, image, "new") == {"f": "600", "x": "700"}
        assert shop.tree(image)["new"] == ("directory", 0o700, 5, 7)


def test_names_are_looked_up_beneath_and_their_numbers_count(shop: Any) -> None:
    shop.file("f")
    line = "COPY --link --chown=eve f /d/\n"
    first = shop.build(f"FROM busybox\nRUN printf '{USERS.format(uid=5)}' > /etc/passwd\n{line}")
    assert owners(shop, first, "d") == {"f": (5, 5)}
    shop.build(f"FROM busybox\nRUN printf '{USERS.format(uid=5)}' > /etc/passwd; touch /more\n{line}")
    assert shop.steps("CACHED")[-1].endswith(line.strip())
    shop.build("FROM busybox\nCOPY --link --chown=5:5 f /d/\n")
    assert shop.steps("CACHED")[-1].endswith("--chown=5:5 f /d/"), "the same numbers make the same layer"
    other = shop.build(f"FROM busybox\nRUN printf '{USERS.format(uid=6)}' > /etc/passwd\n{line}")
    assert owners(shop, other, "d") == {"f": (6, 6)}
    with pytest.raises(BuildError, match="unable to find user eve") as caught:
        shop.build(f"FROM busybox\n{line}")
    assert caught.value.line == 2


def test_linked_heredocs_stages_and_nothing(shop: Any) -> None:
    (shop.context / "empty").mkdir()
    image = shop.build(
        "FROM busybox AS one\nRUN mkdir /d && echo x > /d/x && chown 3:4 /d/x\n"
        "FROM busybox\nCOPY --link <<a <<b /h/\n1\na\n2\nb\nCOPY --link --from=one /d /d\nRUN cat /h/a /h/b /d/x\n"
        "COPY --link no* /nothing/\n"
    )
    assert shop.said() == ["1", "2", "x"]
    assert owners(shop, image, "d") == {"x": (3, 4)}
    assert image.config.raw["history"][-1]["empty_layer"]
    # A step is another with the flag than without it.
    shop.build("FROM scratch\nCOPY --link <<a /h/\n1\na\n")
    shop.build("FROM scratch\nCOPY <<a /h/\n1\na\n")
    assert shop.steps("CACHED") == []


@pytest.mark.parametrize("overlay_shop", ["overlay2"], indirect=True)
def test_a_linked_layer_brings_no_time_of_another_base(overlay_shop: Any) -> None:
    for number, name in enumerate(("f", "new", "newer")):
        os.utime(overlay_shop.file(name), (OLD, OLD + number))
    overlay_shop.build("FROM scratch\nCOPY newer /\nCOPY --link f /x/\n")
    text = "FROM scratch\nCOPY new /\nCOPY --link f /x/\nLABEL a=b\n"
    image = overlay_shop.build(text)
    assert overlay_shop.steps("CACHED") == ["[2/2] COPY --link f /x/"]
    times = {image.config.created, *(entry["created"] for entry in image.config.raw["history"])}
    assert times == {"2017-07-14T02:40:01Z"}
    assert overlay_shop.build(text, no_cache=True).id == image.id


def test_linked_by_the_command(minidock: Any, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "f").write_text("linked\n")
    (context / "Dockerfile").write_text("FROM busybox\nONBUILD COPY --link --chmod=u=rw,go= f /opt/f\n")
    minidock("build", "-q", "-t", "parent", context)
    (context / "Dockerfile").write_text('FROM parent\nCMD ["cat", "/opt/f", "/etc/passwd"]\n')
    minidock("build", "-q", "-t", "child", context)
    done = minidock("run", "--rm", "--network", "none", "child").stdout
    assert done.startswith("linked\nroot:")


# --parents


def test_parents_keep_what_the_source_s_directories_are(shop: Any) -> None:
    shop.file("a/b/c/file", "1").chmod(0o640)
    shop.file("a/b/other", "2")
    shop.file("x/y", "3")
    (shop.context / "a").chmod(0o711)
    (shop.context / "a/b").chmod(0o2750)
    os.symlink("c/file", shop.context / "a/b/link")
    age(shop.context)
    image = shop.build("FROM busybox\nCOPY --parents a/b/c ./x/y a/./b/link /to\nRUN stat -c '%Y %n' /to/a /to/a/b\n")
    assert modes(shop, image, "to") == {
        "a": "711", "a/b": "2750", "a/b/c": "755", "a/b/c/file": "640", "b": "2750", "b/link": "777", "x": "755",
        "x/y": "644",
    }  # fmt: skip
    assert shop.tree(image)["to/b/link"][0] == "link:c/file"
    times = [int((shop.context / path).stat().st_mtime) for path in ("a", "a/b")]
    assert shop.said() == [f"{times[0]} /to/a", f"{times[1]} /to/a/b"]


def test_parents_from_a_stage_and_over_what_exists(shop: Any) -> None:
    image = shop.build(
        "FROM busybox AS one\nRUN mkdir -p /usr/lib/x && cd /usr/lib/x && echo so > l.so.1 && ln -s l.so.1 l.so"
        " && echo no > l.a && chown -R 3:4 /usr/lib && chmod 700 /usr/lib\n"
        "FROM busybox\nRUN mkdir -p -m 711 /out/lib && touch /out/lib/old\n"
        "COPY --from=one --parents /usr/./lib/**/*.so* /out/\n"
    )
    tree = shop.tree(image, "out")
    assert sorted(tree) == ["lib", "lib/old", "lib/x", "lib/x/l.so", "lib/x/l.so.1"]
    assert tree["lib"] == ("directory", 0o700, 3, 4), "a directory that exists takes the copied one's"
    assert tree["lib/x"] == ("directory", 0o755, 3, 4)
    assert tree["lib/x/l.so"] == ("link:l.so.1", 0o777, 3, 4)


def test_key_of_parents(shop: Any) -> None:
    shop.file("a/b/file")
    shop.file("other/file")
    text = "FROM busybox\nCOPY --parents a/**/file /to/\n"
    step = "[2/2] COPY --parents a/**/file /to/"
    shop.build(text)
    shop.file("a/unmatched")
    shop.file("other/file", "changed")
    os.utime(shop.context / "a", (5, 5))
    shop.build(text)
    assert shop.steps("CACHED")[-1] == step
    (shop.context / "a").chmod(0o700)
    shop.build(text)
    assert step in shop.steps("DONE")
    shop.file("a/file")
    shop.build(text)
    assert step in shop.steps("DONE")


# --exclude


def test_excluded_files_are_neither_copied_nor_looked_at(shop: Any) -> None:
    for path in ("d/a.c", "d/a.o", "d/sub/b.c", "d/sub/b.o", "d/obj/x.o"):
        shop.file(path)
    text = "FROM busybox\nARG KIND=o\nCOPY --exclude=**/*.$KIND --exclude=none d /d\nCOPY --exclude=*.o d/*.? /e/\n"
    image = shop.build(text)
    assert sorted(shop.tree(image, "d")) == ["a.c", "obj", "sub", "sub/b.c"]
    assert sorted(shop.tree(image, "e")) == ["a.c"]
    shop.file("d/sub/b.o", "changed")
    shop.file("d/new.o")
    shop.build(text)
    assert len(shop.steps("DONE")) == 0
    shop.build(text.replace("--exclude=none", "--exclude=nil"))
    assert len(shop.steps("DONE")) == 1, "flags count"


def test_exclude_in_archives_and_with_everything_else(shop: Any) -> None:
    for path in ("in/keep/a.txt", "in/keep/b.md", "in/drop/c.txt", "t/x.md", "t/x.txt"):
        shop.file(path)
    with tarfile.open(shop.context / "archive", "w") as tar:
        for name in ("keep", "drop"):
            tar.add(shop.context / "in" / name, name)
    image = shop.build(
        "FROM busybox\nADD --exclude=drop --exclude=**/*.md archive /a/\nADD --exclude=archive archive t /b/\n"
        "COPY --link --parents --exclude=**/*.md --chmod=a=rX,u+w --chown=1:2 in/*/* t /c\n"
    )
    assert sorted(shop.tree(image, "a")) == ["keep", "keep/a.txt"]
    assert sorted(shop.tree(image, "b")) == ["x.md", "x.txt"]
    tree = shop.tree(image, "c")
    assert sorted(tree) == ["in", "in/drop", "in/drop/c.txt", "in/keep", "in/keep/a.txt", "t", "t/x.txt"]
    assert {shown[1:] for path, shown in tree.items() if not path.endswith(".txt")} == {(0o755, 1, 2)}
    assert {shown[1:] for path, shown in tree.items() if path.endswith(".txt")} == {(0o644, 1, 2)}


def test_a_directory_of_which_all_is_excluded_is_made(shop: Any) -> None:
    shop.file("d/file")
    image = shop.build("FROM busybox\nCOPY --exclude=* d /six\nCOPY --exclude=* d/file /seven\n")
    tree = shop.tree(image)
    assert tree["six"] == ("directory", 0o755, 0, 0)
    assert not [path for path in tree if path.startswith(("six/", "seven"))]


# --chmod


def test_symbolic_modes(shop: Any) -> None:
    shop.file("d/plain").chmod(0o644)
    shop.file("d/program").chmod(0o755)
    shop.file("d/sub/x").chmod(0o600)
    (shop.context / "d/sub").chmod(0o710)
    os.symlink("plain", shop.context / "d/link")
    expected = {
        "u=rwX,go=rX": "755 644 755 755 644",
        "go-rwx": "700 600 700 700 600",
        "a+x": "755 755 755 711 755",
        "g+s,o+t": "3755 3644 3755 3710 3644",
        "=r": "444 444 444 444 444",
    }
    lines = (f"ARG MODE={mode}\nCOPY --chmod=$MODE d <<E /{n}/\nx\nE\n" for n, mode in enumerate(expected))
    image = shop.build(f"FROM busybox\n{''.join(lines)}")
    found = modes(shop, image)
    for number, (mode, wanted) in enumerate(expected.items()):
        names = (f"{number}{name}" for name in ("", "/plain", "/program", "/sub", "/E"))
        assert " ".join(found[name] for name in names) == wanted, mode
        assert found[f"{number}/link"] == "777"


def test_symbolic_modes_of_archives(shop: Any) -> None:
    with tarfile.open(shop.context / "t", "w") as tar:
        for name, mode in (("f", 0o4600), ("x", 0o700)):
            member = tarfile.TarInfo(name)
            member.mode = mode
            tar.addfile(member, io.BytesIO())
    image = shop.build("FROM busybox\nADD --chmod=a+rX t /d/\n")
    assert modes(shop, image, "d") == {"f": "4644", "x": "755"}


def test_key_of_a_symbolic_mode(shop: Any) -> None:
    shop.file("f").chmod(0o644)
    shop.build("FROM busybox\nCOPY --chmod=a+x f /\n")
    shop.build("FROM busybox\nCOPY --chmod=a+x f /\n")
    assert len(shop.steps("DONE")) == 0
    shop.build("FROM busybox\nCOPY --chmod=u+x f /\n")
    assert len(shop.steps("DONE")) == 1


# All of them


FLAGS = (
    "FROM busybox\n"
    "COPY --link d /etc/new/\n"
    "COPY --link --chmod=640 --chown=3:4 d/x d/sub /etc/new/\n"
    "COPY --link . /\n"
    "COPY --parents d/**/x ./d/./sub /p/\n"
    "COPY --parents --link --chmod=u=rwX,go= **/x /etc/p\n"
    "COPY --exclude=**/x . /e/\n"
    "COPY --chmod=g=u,o=,+t d /m/\n"
    "ADD --link --exclude=y archive /a/\n"
)


def test_every_form_makes_the_same_layers(tmp_path: Path, busybox_tar: bytes, open_storage: Any) -> None:
    """Layers that were written directly, packed from a writable layer of overlayfs, and found by comparing trees."""
    context, made = tmp_path / "context", {}
    for path in ("d/x", "d/y", "d/sub/x", "d/sub/deep/x", "d/sub/deep/z"):
        (context / path).parent.mkdir(parents=True, exist_ok=True)
        (context / path).write_text(path)
    (context / "d/sub").chmod(0o2710)
    (context / "d/y").chmod(0o4755)
    os.symlink("x", context / "d/link")
    os.link(context / "d/x", context / "d/twin")
    with tarfile.open(context / "archive", "w") as tar:
        tar.add(context / "d", ".")
    age(context)
    for form in STORAGES:
        (tmp_path / form).mkdir()
        shop = Shop(tmp_path / form, busybox_tar, lambda root, form=form: open_storage(root, form))
        shop.context = context
        image = shop.build(FLAGS)
        made[form] = (image.config.diff_ids, shop.tree(image))
    assert len(made["vfs"][0]) == 9
    assert made["overlay2"] == made["overlay2-tarball"]
    assert made["overlay2"] == made["vfs"]


@pytest.mark.parametrize("overlay_shop", ["overlay2"], indirect=True)
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("COPY --chmod=u+q f /", "invalid mode 'u+q' of --chmod: 'q' is none of r, w, x, X, s and t"),
        ("COPY --chmod=u=rwX,go f /", "invalid mode 'u=rwX,go' of --chmod: a '+', '-' or '=' is missing"),
        ("ADD --chmod=999 f /", "invalid mode '999' of --chmod: it is no octal number from 0 to 7777"),
        ("ADD --chmod=rw http://127.0.0.1:1/f /", "invalid mode 'rw' of --chmod: 'r' is no '+', '-' or '='"),
        ("COPY --exclude=a --exclude=[ f /", "invalid --exclude=[: syntax error in the pattern '['"),
        ("ADD --exclude=! f /", "invalid --exclude=!: a re-include rule has no pattern: '!'"),
        ("COPY --parents d/../f /", "COPY --parents cannot keep the '..' of 'd/../f'"),
        ("COPY --parents d/[ /", "syntax error in the pattern 'd/['"),
        ("COPY --parents d/nothing /", "'d/nothing' is not found in the build context"),
        ("COPY --parents f /etc/passwd", "exists and is not a directory"),
        ("COPY --link f d/x /etc", "COPY of more than one source needs a directory as destination"),
        ("COPY --parents <<a <<b /etc/x\na\nb", "COPY of more than one source needs a directory as destination"),
    ],
)
def test_what_is_refused(overlay_shop: Any, line: str, message: str) -> None:
    overlay_shop.file("f")
    overlay_shop.file("d/x")
    with pytest.raises(BuildError) as caught:
        overlay_shop.build(f"FROM busybox\nLABEL a=b\n{line}\n", tags=["t"])
    assert message in caught.value.message
    assert (caught.value.line, caught.value.exit_status) == (3, 1)
    assert os.listdir(overlay_shop.root.tmp) == []


@pytest.mark.parametrize("overlay_shop", ["overlay2"], indirect=True)
def test_history_shows_the_flags_as_buildkit_does(overlay_shop: Any) -> None:
    overlay_shop.file("d/x")
    image = overlay_shop.build(
        "FROM scratch\nCOPY --link --chown=1:2 --parents --exclude=y --chmod=u=rwX d/x /\n"
        "ADD --link --exclude=y d <<E /e/\nx\nE\n"
    )
    assert [entry["created_by"] for entry in image.config.raw["history"]] == [
        "COPY --parents --chown=1:2 --chmod=u=rwX d/x / # buildkit",
        "ADD d <<E /e/ # buildkit",
    ]


def test_a_step_that_stands_on_nothing_may_come_twice(minidock: Any, context: Any) -> None:
    """The second one has the first one's key, whose layer is on its way: nobody else is waited for."""
    folder = context("FROM busybox\nCOPY --link f /a\nCOPY --link f /a\n", {"f": "content"})
    done = minidock("build", "--network", "none", folder)
    assert "waiting" not in done.stdout + done.stderr
    assert "CACHED" in done.stdout + done.stderr
