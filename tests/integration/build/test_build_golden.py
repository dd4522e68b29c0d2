"""The golden cases of the Dockerfile's semantics (docker's own behaviour, case by case), built for real."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from minidock.build.request import RunSettings
from minidock.errors import BuildError, DockerfileError, NoSuchImageError
from minidock.model.build_flags import SecretSource


def test_case_01_single_quotes_are_shell_text_and_numbers_an_error(overlay_shop: Any) -> None:
    with pytest.raises(BuildError, match="exit code: 127"):
        overlay_shop.build("FROM busybox\nRUN ['a','b']\n")
    assert any("[a,b]" in line for line in overlay_shop.said()), "the shell was handed the text"
    with pytest.raises(DockerfileError):
        overlay_shop.build('FROM busybox\nRUN ["a",1]\n')


def test_case_02_escape_after_a_comment_is_ignored(overlay_shop: Any) -> None:
    overlay_shop.build("# a comment\n# escape=`\nFROM busybox\nRUN echo one \\\n two\n")
    assert overlay_shop.said() == ["one two"]


def test_case_03_a_heredoc_expands_unless_it_is_quoted(shop: Any) -> None:
    image = shop.build(
        'FROM scratch\nENV X=one\nCOPY <<"E" /kept\n$X\nE\nCOPY <<E /expanded\n$X\nE\n'
        "COPY <<-E /stripped\n\t\ttab\n  space\n\tE\n"
    )
    assert {name: shown[0] for name, shown in shop.tree(image).items()} == {
        "kept": "file:$X\n",
        "expanded": "file:one\n",
        "stripped": "file:tab\n  space\n",
    }


def test_case_04_global_argument_needs_a_bare_arg(overlay_shop: Any) -> None:
    image = overlay_shop.images.get("busybox")
    overlay_shop.images.tag(image, "busybox:1")
    overlay_shop.build('ARG V=1\nFROM busybox:$V\nRUN echo "[$V]"\n')
    assert overlay_shop.said() == ["[]"]
    overlay_shop.build('ARG V=1\nFROM busybox:$V\nARG V\nRUN echo "[$V]"\n')
    assert overlay_shop.said() == ["[1]"]


def test_case_05_env_sees_the_values_before_its_line(overlay_shop: Any) -> None:
    image = overlay_shop.build("FROM busybox\nENV a=1\nENV a=2 b=$a\nRUN echo $a$b\n")
    assert "a=2" in image.config.config["Env"]
    assert "b=1" in image.config.config["Env"]
    assert overlay_shop.said() == ["21"]


def test_case_06_directories_give_their_contents(shop: Any) -> None:
    shop.file("dir/a/one", "1")
    shop.file("dir/b/two", "2")
    shop.file("dir/three", "3")
    plain = shop.tree(shop.build("FROM busybox\nCOPY dir /x\n"), "x")
    assert plain == shop.tree(shop.build("FROM busybox\nCOPY dir/ /x/\n"), "x")
    assert sorted(plain) == ["a", "a/one", "b", "b/two", "three"]
    assert sorted(shop.tree(shop.build("FROM busybox\nCOPY dir/* /x/\n"), "x")) == ["one", "three", "two"]


def test_case_07_a_file_goes_into_a_directory_by_its_name(shop: Any) -> None:
    shop.file("f", "content")
    image = shop.build("FROM busybox\nRUN mkdir /d\nCOPY f /d\nCOPY f /new/\nCOPY f /other\n")
    assert shop.content(image, "d/f") == "content"
    assert shop.content(image, "new/f") == "content"
    assert shop.content(image, "other") == "content"


def test_case_08_a_pattern_may_match_nothing_and_a_name_must_exist(overlay_shop: Any) -> None:
    overlay_shop.file("a")
    image = overlay_shop.build("FROM scratch\nCOPY a nomatch* /\n")
    assert list(overlay_shop.tree(image)) == ["a"]
    with pytest.raises(BuildError, match="'nomatch' is not found in the build context") as caught:
        overlay_shop.build("FROM scratch\nCOPY nomatch /\n")
    assert caught.value.line == 2


def test_case_09_owners(shop: Any) -> None:
    os.chown(shop.file("f"), 1234, 1234)
    image = shop.build(
        "FROM busybox AS one\nCOPY f /f\nRUN touch /g && chown 55:66 /g\n"
        "FROM busybox\nCOPY --from=one /f /g /\nCOPY --from=one --chown=bob:wheel --chmod=4750 /g /h\n"
    )
    tree = shop.tree(image)
    assert tree["f"][2:] == (0, 0)
    assert tree["g"][2:] == (55, 66)
    assert tree["h"][1:] == (0o4750, 1000, 10)


def test_case_10_touch_is_cached_and_chmod_is_not(shop: Any) -> None:
    text = "FROM busybox\nRUN echo early\nCOPY f /\nRUN cat /f > /g\n"
    file = shop.file("f")
    first = shop.build(text)
    os.utime(file, ns=(1, 1))
    assert shop.build(text).id == first.id
    assert len(shop.steps("CACHED")) == 4
    assert shop.steps("DONE") == []
    file.chmod(0o711)
    assert shop.build(text).id != first.id
    assert shop.steps("DONE") == ["[3/4] COPY f /", "[4/4] RUN cat /f > /g"]


def test_case_11_a_label_repeats_no_run(overlay_shop: Any) -> None:
    first = overlay_shop.build("FROM busybox\nLABEL v=1\nRUN date +%N > /d\n")
    second = overlay_shop.build("FROM busybox\nLABEL v=2\nRUN date +%N > /d\n")
    assert overlay_shop.steps("DONE") == []
    assert first.id != second.id
    assert first.config.diff_ids == second.config.diff_ids


def test_case_12_what_is_ignored_is_not_selected_and_not_found(overlay_shop: Any) -> None:
    for name in ("src/a", "src/deep/b", "doc/c"):
        overlay_shop.file(name)
    overlay_shop.file(".dockerignore", "*\n!src/**\n")
    image = overlay_shop.build("FROM scratch\nCOPY . /x\n")
    assert sorted(overlay_shop.tree(image, "x")) == ["src", "src/a", "src/deep", "src/deep/b"]
    with pytest.raises(BuildError, match="'doc/c' is not found in the build context"):
        overlay_shop.build("FROM scratch\nCOPY doc/c /\n")
    assert "CopyIgnoredFile" in overlay_shop.out


def test_case_13_add_unpacks_by_content_and_copy_never(shop: Any) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        member = tarfile.TarInfo("in/file")
        member.size, member.uid, member.gid, member.mode = 4, 12, 34, 0o640
        tar.addfile(member, io.BytesIO(b"data"))
    shop.file("x.tar.gz", stream.getvalue())
    shop.file("odd.name", stream.getvalue())
    shop.file("empty.tar.gz", b"")
    image = shop.build(
        "FROM busybox\nADD x.tar.gz /d/\nADD odd.name /e\nADD empty.tar.gz /d/\nCOPY x.tar.gz /c/\n"
        "ADD --unpack=false x.tar.gz /u/\nADD --chown=7:8 x.tar.gz /o/\n"
    )
    tree = shop.tree(image)
    assert tree["d/in/file"] == ("file:data", 0o640, 12, 34)
    assert tree["e/in/file"][0] == "file:data"
    assert tree["d/empty.tar.gz"][0] == "file:"
    assert tree["c/x.tar.gz"][0] == "file:" + stream.getvalue().decode("latin-1")
    assert "u/x.tar.gz" in tree
    assert tree["o/in/file"][1:] == (0o640, 7, 8)


def test_case_14_workdirs_are_layers_and_env_is_none(shop: Any) -> None:
    image = shop.build("FROM scratch\nWORKDIR a\nWORKDIR b\n")
    assert image.config.config["WorkingDir"] == "/a/b"
    assert len(image.config.diff_ids) == 2
    assert "a" in shop.layer_names(image, 0)
    assert "a/b" not in shop.layer_names(image, 0)
    assert "a/b" in shop.layer_names(image, 1)
    bare = shop.build("FROM scratch\nENV a=1\nLABEL x=y\n")
    assert bare.config.diff_ids == ()
    assert [entry.empty_layer for entry in bare.config.history] == [True, True]


def test_case_15_failing_run_leaves_no_image(shop: Any) -> None:
    good = shop.build("FROM busybox\nRUN echo good > /f\n", tags=["t"])
    before = len(shop.images.list())
    text = "FROM busybox\nRUN echo one > /one\nRUN echo last words; exit 42\n"
    with pytest.raises(BuildError) as caught:
        shop.build(text, tags=["t"])
    assert caught.value.exit_status == 1
    assert caught.value.line == 3
    assert "   3 | >>> RUN echo last words; exit 42" in caught.value.excerpt
    assert "exit code: 42" in caught.value.message
    assert "last words" in shop.said()
    assert "ERROR: " in shop.out
    assert shop.images.get("t").id == good.id
    assert len(shop.images.list()) == before
    assert os.listdir(shop.root.tmp) == []
    with pytest.raises(BuildError):
        shop.build(text, tags=["t"])
    assert "[2/3] RUN echo one > /one" in shop.steps("CACHED")


def test_case_16_a_secret_is_nowhere_on_the_disk(overlay_shop: Any, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("open sesame 7d1f")
    settings = RunSettings(secrets=(SecretSource("s", str(tmp_path / "key")),))
    text = "FROM busybox\nRUN --mount=type=secret,id=s,required grep -c sesame /run/secrets/s > /seen\n"
    assert overlay_shop.content(overlay_shop.build(text, run=settings), "seen") == "1\n"
    files = [path for path in Path(overlay_shop.root.path).rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if b"open sesame" in path.read_bytes()] == []
    assert "open sesame" not in overlay_shop.out


def test_case_17_entrypoint_drops_the_base_s_cmd(overlay_shop: Any) -> None:
    image = overlay_shop.build('FROM busybox\nENTRYPOINT ["e"]\n')
    assert overlay_shop.images.get("busybox").config.config["Cmd"] == ["sh"]
    assert image.config.config.get("Cmd") is None


def test_case_18_target_runs_nothing_later(overlay_shop: Any) -> None:
    text = "FROM busybox AS early\nRUN echo 1 > /f\nFROM busybox AS other\nRUN false\nFROM nosuchimage\nRUN false\n"
    image = overlay_shop.build(text, target="early", tags=["t"])
    assert overlay_shop.content(image, "f") == "1\n"
    with pytest.raises(BuildError, match="no such image: nosuchimage"):
        overlay_shop.build(text)
    with pytest.raises(NoSuchImageError):
        overlay_shop.images.get("u")


def test_case_19_stages_that_need_nothing_of_each_other_overlap(minidock: Any, context: Any) -> None:
    """Each end of a pipe waits for the other, so that one stage after the other would never come to an end."""
    pipe = "RUN --mount=type=cache,target=/c timeout 30"
    folder = context(
        "FROM busybox AS base\nRUN --mount=type=cache,target=/c mkfifo /c/pipe\n"
        f"FROM base AS left\n{pipe} sh -c 'echo met > /c/pipe' && touch /l\n"
        f"FROM base AS right\n{pipe} cat /c/pipe > /r\n"
        "FROM busybox\nCOPY --from=left /l /l\nCOPY --from=right /r /r\n"
    )
    minidock.build(folder, "--jobs", "2", "--network", "none", "-t", "met")
    assert minidock.out("run", "--rm", "--network", "none", "met", "cat", "/r") == "met"


def test_case_20_onbuild_runs_in_the_child_and_not_in_the_grandchild(overlay_shop: Any) -> None:
    overlay_shop.file("f", "content")
    overlay_shop.build("FROM busybox\nONBUILD COPY f /f\n", tags=["base"])
    child = overlay_shop.build("FROM base\n", tags=["child"])
    assert overlay_shop.content(child, "f") == "content"
    assert "OnBuild" not in child.config.config
    # Were it run once more, the file would be missed.
    (overlay_shop.context / "f").unlink()
    assert overlay_shop.build("FROM child\nENV a=1\n").config.diff_ids == child.config.diff_ids
