"""``RUN --mount`` on each storage driver: what a command sees, what stays, what the key depends on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from minidock.build.request import RunSettings
from minidock.errors import BuildError, DockerfileError
from minidock.model.build_flags import SecretSource
from minidock.store.cache_mounts import cache_name

SECRET = "do-not-tell-anybody-5c1e"


def ran(shop: Any) -> bool:
    """Whether the last RUN of the latest build ran: it was not cached."""
    return any("RUN" in title for title in shop.steps("DONE"))


def own_names(shop: Any, image: Any) -> list[str]:
    """What the last layer holds besides its root."""
    return [name for name in shop.layer_names(image) if name != "."]


def test_bind_of_the_context_is_what_copy_would_copy(shop: Any) -> None:
    shop.file("d/a", "A").chmod(0o640)
    shop.file("d/ignored")
    shop.file("d/sub/b", "B")
    (shop.context / "d/link").symlink_to("sub/b")
    os.chown(shop.context / "d/a", 1234, 1234)
    shop.file(".dockerignore", "**/ignored\n")
    shop.build(
        "FROM busybox\nWORKDIR /w\n"
        "RUN --mount=type=bind,source=d,target=in find in | sort; stat -c '%a %u %g' in/a; cat in/link\n"
    )
    assert shop.said() == ["in", "in/a", "in/link", "in/sub", "in/sub/b", "640 0 0", "B"]


def test_bind_without_a_type_and_source_is_the_whole_context(shop: Any) -> None:
    shop.file("x", "X")
    shop.build("FROM busybox\nRUN --mount=target=/ctx cat /ctx/x; ls /ctx\n")
    assert shop.said() == ["Xx"]


def test_bind_of_names_that_layers_give_a_meaning(shop: Any) -> None:
    """What a layer cannot hold is copied for the mount."""
    shop.file("d/.wh.gone", "W")
    shop.file("d/.wh..wh..opq", "O")
    shop.file(".wh.file", "F")
    shop.build(
        "FROM busybox\nRUN --mount=source=d,target=/d --mount=source=.wh.file,target=/f --mount=target=/all "
        "cat /d/.wh.gone /d/.wh..wh..opq /f /all/.wh.file; echo\n"
    )
    assert shop.said() == ["WOFF"]


def test_what_a_bind_shows_is_kept_for_the_next_build(overlay_shop: Any) -> None:
    shop = overlay_shop
    (shop.context / "d/empty").mkdir(parents=True)
    shop.file("d/f", "F").chmod(0o600)
    (shop.context / "d").chmod(0o750)
    os.link(shop.context / "d/f", shop.context / "d/second")
    os.setxattr(shop.context / "d/f", "user.x", b"y")
    show = "cd /d && stat -c '%n %a %h' . f empty && cat second"
    for number in range(2):
        shop.build(f"FROM busybox\nRUN --mount=source=d,target=/d {show}; : {number}\n")
        assert shop.said() == [". 750 3", "f 600 2", "empty 755 2", "F"]
    records = [json.loads(path.read_text()) for path in Path(shop.root.cache, "build").iterdir()]
    layers = [record["diff_id"] for record in records if record["inputs"]["instruction"] == "CONTEXT"]
    assert len(layers) == (1 if shop.rootfs.driver.form.name == "tarball" else 0)


def test_bind_of_one_file_and_of_a_file_onto_a_file(shop: Any) -> None:
    shop.file("f", "new")
    image = shop.build("FROM busybox\nRUN echo old > /f\nRUN --mount=source=f,target=/f cat /f\nRUN cat /f\n")
    assert shop.said() == ["new", "old"] or shop.said() == ["newold"]
    assert shop.content(image, "f") == "old\n"


def test_bind_is_read_only(shop: Any) -> None:
    shop.file("f", "F")
    shop.build(
        "FROM busybox AS one\nRUN mkdir /d\nFROM busybox\n"
        "RUN --mount=target=/c --mount=from=one,source=/d,target=/d "
        "! touch /c/x 2>/dev/null && ! touch /d/x 2>/dev/null && ! mount -o remount,rw /c 2>/dev/null\n"
    )


def test_what_is_written_to_a_bind_is_thrown_away(shop: Any) -> None:
    shop.file("f", "F")
    image = shop.build(
        "FROM busybox AS one\nRUN mkdir /d && echo O > /d/o\nFROM busybox\n"
        "RUN --mount=target=/c,rw --mount=from=one,source=/d,target=/d,readwrite "
        "echo more >> /c/f; rm /d/o; echo x > /d/new; cat /c/f; ls /d\n"
        "RUN --mount=target=/c --mount=from=one,source=/d,target=/d cat /c/f; echo; cat /d/o; ls /d\n"
    )
    assert [line for line in shop.said() if line] == ["Fmore", "new", "F", "O", "o"]
    assert (shop.context / "f").read_text() == "F"
    assert not {"c", "d"} & shop.tree(image).keys()


def test_bind_of_an_image_and_of_an_earlier_number(shop: Any) -> None:
    shop.build("FROM busybox\nRUN echo base > /base\n", tags=("other",))
    shop.build(
        "FROM busybox\nRUN echo zero > /z\nFROM busybox\n"
        "RUN --mount=from=other,target=/o --mount=from=0,source=z,target=/zero cat /o/base /zero\n"
    )
    assert shop.said() == ["base", "zero"]


def test_links_of_a_source_stay_inside_of_it(shop: Any) -> None:
    shop.build(
        "FROM busybox AS one\nRUN mkdir -p /real && echo in > /real/f && ln -s /real /abs && ln -s ../../../real /up\n"
        "FROM busybox\nRUN --mount=from=one,source=/abs,target=/a --mount=from=one,source=up,target=/u "
        "--mount=from=one,source=../../real/../real,target=/d cat /a/f /u/f /d/f\n"
    )
    assert shop.said() == ["in", "in", "in"]


def test_a_missing_source_is_told(shop: Any) -> None:
    shop.file("hidden")
    shop.file(".dockerignore", "hidden\n")
    for mount, message, hint in (
        ("source=nope,target=/x", "'nope' is not found in the build context", "relative to the build context"),
        ("source=hidden,target=/x", "'hidden' is not found in the build context", ".dockerignore leaves it out"),
        ("from=busybox,source=/nope,target=/x", "cannot mount 'nope' on /x", "below what from names"),
    ):
        with pytest.raises(BuildError) as caught:
            shop.build(f"FROM busybox\nRUN --mount={mount} true\n")
        assert message in caught.value.message
        assert hint in caught.value.hint
        assert caught.value.line == 2
        assert ">>>" in caught.value.excerpt


def test_the_key_is_what_a_bind_shows(overlay_shop: Any) -> None:
    shop = overlay_shop
    shop.file("f", "one")
    text = "FROM busybox\nRUN --mount=source=f,target=/f cat /f\n"
    shop.build(text)
    assert ran(shop)
    os.utime(shop.context / "f", (1, 1))
    shop.file("other", "not in it")
    shop.build(text)
    assert not ran(shop), "neither times nor other files"
    shop.file("f", "two")
    shop.build(text)
    assert ran(shop)
    (shop.context / "f").chmod(0o755)
    shop.build(text)
    assert ran(shop), "the mode"
    stages = "FROM busybox AS a\nRUN echo {} > /x\nFROM busybox\nRUN --mount=from=a,source=x,target=/x cat /x\n"
    shop.build(stages.format(1))
    shop.build(stages.format(1))
    assert not ran(shop)
    shop.build(stages.format(2))
    assert "[stage-1 2/2] RUN" in " ".join(shop.steps("DONE")), "what the stage holds"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("type=tmpfs,target=/t", "type=tmpfs,target=/u"),
        ("type=tmpfs,target=/t", "type=tmpfs,target=/t,size=1m"),
        ("type=cache,target=/t", "type=cache,target=/t,id=x"),
        ("type=cache,target=/t", "type=cache,target=/t,ro"),
        ("type=secret,id=a", "type=secret,id=b"),
        ("type=secret,id=a", "type=secret,id=a,env=A"),
        ("type=ssh", "type=ssh,target=/t"),
        ("target=/t", "target=/t,rw"),
    ],
)
def test_the_key_is_how_mounts_are_defined(overlay_shop: Any, first: str, second: str) -> None:
    text = "FROM busybox\nRUN --mount={} true\n"
    overlay_shop.build(text.format(first))
    overlay_shop.build(text.format(first))
    assert not ran(overlay_shop)
    overlay_shop.build(text.format(second))
    assert ran(overlay_shop)


def test_cache_stays_and_is_in_no_layer(shop: Any) -> None:
    text = "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c echo $N >> /c/log; cat /c/log; echo r > /result\n"
    shop.build(text, build_args=(("N", "1"),))
    image = shop.build(text, build_args=(("N", "2"),))
    assert shop.said() == ["1", "2"]
    assert "c" not in shop.tree(image)
    assert own_names(shop, image) == ["result"]
    folder = Path(shop.root.cache, "mounts", cache_name("/c"))
    assert json.loads((folder / "mount.json").read_text())["id"] == "/c"
    assert (folder / "data/log").read_text() == "1\n2\n"


def test_cache_options(shop: Any) -> None:
    shop.build(
        "FROM busybox\nWORKDIR /w\n"
        "RUN --mount=type=cache,id=x,target=one,mode=1711,uid=7,gid=8 "
        "stat -c '%a %u %g' one; mkdir one/sub; echo S > one/sub/f\n"
        "RUN --mount=type=cache,id=x,target=/two,ro cat /two/sub/f; ! touch /two/y 2>/dev/null\n"
        "RUN --mount=type=cache,id=x,target=/three,source=sub cat /three/f\n"
        "RUN --mount=type=cache,id=x,target=/a --mount=type=cache,id=x,target=/b,sharing=locked "
        "echo z > /a/z; cat /b/z\n"
        "RUN --mount=type=cache,id=y,target=/p,sharing=private stat -c '%a %u %g' /p\n"
    )
    assert shop.said() == ["1711 7 8", "S", "S", "z", "755 0 0"]


def test_cache_is_seeded_once(shop: Any) -> None:
    text = (
        "FROM busybox AS seed\nRUN mkdir -p /s/in && echo seed > /s/in/f && chmod 750 /s/in && chown 3:4 /s/in\n"
        "FROM busybox\nARG N\n"
        "RUN --mount=type=cache,id=c,target=/c,from=seed,source=/s/in "
        "stat -c '%a %u %g' /c; cat /c/f; echo $N >> /c/f\n"
    )
    shop.build(text, build_args=(("N", "1"),))
    assert shop.said() == ["750 3 4", "seed"]
    shop.build(text, build_args=(("N", "2"),))
    assert shop.said() == ["750 3 4", "seed", "1"]
    shop.build("FROM busybox\nRUN --mount=type=cache,id=c,target=/c ls -A /c\n")
    assert shop.said() == [], "without the seed it is another cache"


def test_a_namespace_keeps_caches_apart(overlay_shop: Any) -> None:
    text = "FROM busybox\nARG N\nRUN --mount=type=cache,id=c,target=/c ls /c; touch /c/$N\n"
    overlay_shop.build(text, build_args=(("N", "1"),))
    overlay_shop.build(text, build_args=(("N", "2"), ("BUILDKIT_CACHE_MOUNT_NS", "mine")))
    assert overlay_shop.said() == []
    overlay_shop.build(text, build_args=(("N", "3"),))
    assert overlay_shop.said() == ["1"]


def test_tmpfs(shop: Any) -> None:
    image = shop.build(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/t,size=64k "
        "grep ' /t ' /proc/mounts | cut -d' ' -f3; ! dd if=/dev/zero of=/t/x bs=1k count=100 2>/dev/null; "
        "stat -c %a /t\n"
    )
    assert shop.said() == ["tmpfs", "1777"]
    assert "t" not in shop.tree(image)


def test_mount_points_leave_nothing_in_the_layer(shop: Any) -> None:
    """Missing parents, directories and files, also those on links: not even a parent's time changes."""
    shop.file("f", "F")
    image = shop.build(
        "FROM busybox\nRUN mkdir /real && ln -s /real /link\nRUN true\n"
        "RUN --mount=type=cache,target=/a/b/c --mount=type=secret,id=s,target=/etc/x/y/secret "
        "--mount=source=f,target=/link/deep/f --mount=type=tmpfs,target=/tmp/t touch /a/b/c/x\n",
        run=RunSettings(secrets=(SecretSource("s", str(shop.context / "f")),)),
    )
    assert len(image.config.diff_ids) == 2, "the base and the first RUN: the last one changed nothing"
    assert [line.empty_layer for line in image.config.history[-3:]] == [False, True, True]


def test_what_a_step_puts_into_a_mount_points_parent_stays(shop: Any) -> None:
    image = shop.build(
        "FROM busybox\nRUN --mount=type=cache,target=/a/b/c echo K > /a/kept; rmdir /a/b/x 2>/dev/null; true\n"
    )
    assert own_names(shop, image) == ["a", "a/kept"]


def test_secret(shop: Any) -> None:
    shop.file("key", f"{SECRET}\n")
    (shop.context / ".dockerignore").write_text("key\n")
    secrets = RunSettings(secrets=(SecretSource("s", str(shop.context / "key")),))
    image = shop.build(
        "FROM busybox\nRUN --mount=type=secret,id=s stat -c '%a %u %g' /run/secrets/s; wc -c < /run/secrets/s\n"
        "RUN --mount=type=secret,id=s,target=rel,mode=0444,uid=1,gid=2 stat -c '%a %u %g' /rel; md5sum /rel | wc -c\n"
        "RUN --mount=type=secret,id=s,env=TOKEN,required test ${#TOKEN} = 25 && ! test -e /run/secrets/s\n"
        "RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent\n"
        "RUN --mount=type=secret,id=s ! touch /run/secrets/s 2>/dev/null && grep ' /run/secrets/s ' /proc/mounts | "
        "cut -d' ' -f3\n",
        run=secrets,
    )
    assert shop.said() == ["400 0 0", "25", "444 1 2", "39", "tmpfs"]
    assert len(image.config.diff_ids) == 1
    shop.file("key", "another\n")
    shop.build("FROM busybox\nRUN --mount=type=secret,id=absent test ! -e /run/secrets/absent\n", run=secrets)
    assert not ran(shop)


def test_a_secrets_value_is_no_part_of_the_key(overlay_shop: Any) -> None:
    shop = overlay_shop
    key = shop.file("key", "one")
    text = "FROM busybox\nRUN --mount=type=secret,id=s true\n"
    shop.build(text, run=RunSettings(secrets=(SecretSource("s", str(key)),)))
    key.write_text("two")
    shop.build(text, run=RunSettings(secrets=(SecretSource("s", str(key)),)))
    assert not ran(shop)


@pytest.mark.parametrize(
    ("mount", "message", "hint"),
    [
        ("type=secret,id=x,required", "the secret 'x' is required and not there", "--secret id=x,src=FILE"),
        ("type=ssh,id=x,required", "the SSH agent 'x' is required and not there", "--ssh x"),
        ("type=cache,target=/", "invalid mount target '/'", ""),
        ("type=cache,target=.", "invalid mount target '/'", ""),
        ("type=cache,target=/x/../..", "invalid mount target '/'", ""),
        ("type=cache,target=/proc/sys", "nothing may be mounted inside /proc", ""),
        ("target=/x --mount=type=tmpfs,target=/y/../x", "two mounts have the same target /x", "its own"),
        ("from=nope,target=/x", "no such image: nope", ""),
        ("from=later,target=/x", "--from=later: that stage is not defined yet", "earlier"),
        ("type=cache,target=/x,source=no", "cannot mount 'no' on /x: no such file or directory", "cache directory"),
        ("type=tmpfs,target=/etc/passwd", "cannot mount a directory on /etc/passwd", ""),
    ],
)
def test_what_cannot_be(overlay_shop: Any, mount: str, message: str, hint: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        overlay_shop.build(f"FROM busybox AS one\nRUN --mount={mount} true\nFROM one AS later\n", target="one")
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.line == 2


def test_a_program_as_heredoc(shop: Any) -> None:
    image = shop.build(
        "FROM busybox\nRUN <<EOF\n#!/bin/cat\nnot a shell\nEOF\n"
        "RUN <<-EOF\n\t#!/bin/sh -e\n\techo $0; echo kept > /kept\nEOF\n"
    )
    assert shop.said() == ["#!/bin/cat", "not a shell", "/dev/pipes/EOF"]
    assert own_names(shop, image) == ["kept"]
    assert image.config.history[-1].created_by == "RUN /bin/sh -c /dev/pipes/EOF # buildkit"


def test_onbuild_mounts(overlay_shop: Any) -> None:
    overlay_shop.file("f", "F")
    overlay_shop.build("FROM busybox\nONBUILD RUN --mount=source=f,target=/f cat /f\n", tags=("base",))
    overlay_shop.build("FROM base\n")
    assert overlay_shop.said() == ["F"] or overlay_shop.said() == []
    assert "#" in overlay_shop.out
    assert "RUN --mount=source=f,target=/f cat /f" in overlay_shop.out


def test_nothing_is_left(shop: Any) -> None:
    shop.file("f", "F")
    shop.build(
        "FROM busybox AS one\nRUN mkdir /d\nFROM busybox\nRUN --mount=target=/c,rw --mount=from=one,target=/o,rw "
        "--mount=type=cache,target=/k --mount=type=tmpfs,target=/t true\n"
    )
    assert os.listdir(shop.root.tmp) == []
    assert shop.root.path not in Path("/proc/self/mountinfo").read_text()
