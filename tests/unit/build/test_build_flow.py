"""Whole builds over stand-ins: order, cache, history, refusals, failures."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

import pytest

from minidock.errors import BuildError, DockerfileError, InvalidReferenceError, NoSuchImageError, UsageError

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="COPY makes files root's; without root that is refused")


def history(image: Any) -> list[tuple[str, bool]]:
    return [(entry.created_by, entry.empty_layer) for entry in image.config.history]


def test_every_line_has_its_history(shop: Any) -> None:
    (shop.context / "a").write_text("A")
    os.utime(shop.context / "a", (1_600_000_000, 1_600_000_000))
    image = shop.build(
        'FROM scratch\nARG V=1\nENV x=1 y=$V\nLABEL k="v w"\nCOPY a /b\nRUN write /c C\nRUN nothing\nWORKDIR /d\n'
        'USER app:7\nEXPOSE 80 53/udp\nVOLUME /v\nSTOPSIGNAL SIGTERM\nSHELL ["/bin/ash", "-c"]\nCMD echo "hi"\n'
        'ENTRYPOINT ["e"]\nMAINTAINER me\nHEALTHCHECK --retries=2 CMD true\nONBUILD RUN later\n'
    )
    assert history(image) == [
        ("ARG V=1", True),
        ("ENV x=1 y=1", True),
        ("LABEL k=v w", True),
        ("COPY a /b # buildkit", False),
        ("RUN |1 V=1 /bin/sh -c write /c C # buildkit", False),
        ("RUN |1 V=1 /bin/sh -c nothing # buildkit", True),
        ("WORKDIR /d", False),
        ("USER app:7", True),
        ("EXPOSE [53/udp 80/tcp]", True),
        ("VOLUME [/v]", True),
        ("STOPSIGNAL SIGTERM", True),
        ("SHELL [/bin/ash -c]", True),
        ('CMD ["/bin/ash" "-c" "echo \\"hi\\""]', True),
        ('ENTRYPOINT ["e"]', True),
        ("MAINTAINER me", True),
        ("HEALTHCHECK --retries=2 CMD true", True),
    ]
    assert sum(not empty for _, empty in history(image)) == len(image.config.diff_ids) == 3
    times = {entry.created for entry in image.config.history}
    assert times == {image.config.created} == {"2020-09-13T12:26:40Z"}
    config = image.config.config
    assert config["Env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "x=1", "y=1"]
    assert config["Labels"] == {"k": "v w"}
    assert config["ExposedPorts"] == {"53/udp": {}, "80/tcp": {}}
    assert config["Volumes"] == {"/v": {}}
    assert (config["WorkingDir"], config["User"], config["StopSignal"]) == ("/d", "app:7", "SIGTERM")
    assert config["Cmd"] == ["/bin/ash", "-c", 'echo "hi"']
    assert config["Entrypoint"] == ["e"]
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Retries": 2}
    assert config["OnBuild"] == ["RUN later"]
    assert image.config.raw["author"] == "me"


def test_run_gets_its_surroundings(shop: Any) -> None:
    shop.build(
        'FROM scratch\nENV A=1\nARG A=2\nARG UNSET\nENV B=$A\nWORKDIR /w\nUSER 7\nRUN x\nRUN ["y", "z"]\n',
        build_args=[("HTTP_PROXY", "http://p")],
        network="none",
    )
    first, second = shop.spy.runs
    assert first["args"] == ("/bin/sh", "-c", "x")
    assert second["args"] == ("y", "z")
    assert "A=2" in first["env"], "whichever came later counts for RUN"
    assert "B=2" in first["env"]
    assert "HTTP_PROXY=http://p" in first["env"]
    assert not any(text.startswith("UNSET") for text in first["env"])
    assert (first["workdir"], first["user"], first["network"]) == ("/w", "7", "none")


def test_limits_reach_run_and_are_part_of_its_key(shop: Any) -> None:
    text = "FROM scratch\nRUN write /a A\n"
    shop.build(text)
    assert shop.spy.runs[0]["ulimits"] == ()
    shop.build(text, ulimits=("nofile=10", "core=0"))
    assert shop.spy.runs[0]["ulimits"] == ("nofile=10", "core=0")
    shop.build(text, ulimits=("core=0", "nofile=10"))
    assert shop.spy.runs == [], "their order makes no difference"
    shop.build(text)
    assert shop.spy.runs == []


def test_env_beats_arg_in_the_image(shop: Any) -> None:
    image = shop.build("FROM scratch\nENV X=1\nARG X=2\nLABEL seen=$X\n")
    assert "X=1" in image.config.config["Env"]
    assert image.config.config["Labels"] == {"seen": "2"}


def test_second_build_is_cached_and_equal(shop: Any) -> None:
    (shop.context / "a").write_text("A")
    text = "FROM scratch\nCOPY a /\nENV x=1\nRUN write /c C\nRUN nothing\nWORKDIR /w\nCMD x\n"
    first = shop.build(text, tags=["t"])
    os.utime(shop.context / "a", ns=(1, 1))
    second = shop.build(text, tags=["t"])
    assert second.id == first.id
    assert shop.spy.runs == []
    assert len(shop.spy.ends("cached")) == 4
    assert shop.build(text, no_cache=True).config.diff_ids == first.config.diff_ids
    assert len(shop.spy.runs) == 2


def test_metadata_alone_is_cached_too(shop: Any) -> None:
    assert shop.build("FROM scratch\nENV a=1\n").id == shop.build("FROM scratch\nENV a=1\n").id
    image = shop.build("FROM scratch\nENV a=1\n")
    assert image.config.diff_ids == ()
    assert all(empty for _, empty in history(image))


def test_label_alone_runs_nothing_but_is_another_image(shop: Any) -> None:
    first = shop.build("FROM scratch\nLABEL v=1\nRUN write /c C\n")
    second = shop.build("FROM scratch\nLABEL v=2\nRUN write /c C\n")
    assert shop.spy.runs == []
    assert first.id != second.id
    assert first.config.diff_ids == second.config.diff_ids


@pytest.mark.parametrize("line", ["ENV A=2", "ARG A=2", "WORKDIR /x", "USER 5", 'SHELL ["/bin/ash", "-c"]'])
def test_surroundings_are_part_of_the_key(shop: Any, line: str) -> None:
    shop.build("FROM scratch\nWORKDIR /w\nRUN write /c C\n")
    shop.build(f"FROM scratch\nWORKDIR /w\n{line}\nRUN write /c C\n")
    assert len(shop.spy.runs) == 1


def test_constant_env_over_an_argument_causes_no_miss(shop: Any) -> None:
    text = "FROM scratch\nARG V\nENV V=fixed\nRUN write /c C\n"
    shop.build(text, build_args=[("V", "1")])
    shop.build(text, build_args=[("V", "2")])
    assert shop.spy.runs == []


def test_proxy_is_no_part_of_the_key_unless_declared(shop: Any) -> None:
    shop.build("FROM scratch\nRUN write /c C\n", build_args=[("http_proxy", "1")])
    image = shop.build("FROM scratch\nRUN write /c C\n", build_args=[("http_proxy", "2")])
    assert shop.spy.runs == []
    assert "proxy" not in json.dumps(image.config.raw)
    shop.build("FROM scratch\nARG http_proxy\nRUN write /c C\n", build_args=[("http_proxy", "2")])
    assert len(shop.spy.runs) == 1


def test_same_layer_again_is_a_hit_for_what_follows(shop: Any) -> None:
    shop.build("FROM scratch\nRUN write /a A\nRUN write /b B\n")
    shop.build("FROM scratch\nRUN  write /a A\nRUN write /b B\n", no_cache=True)
    shop.build('FROM scratch\nSHELL ["x"]\nRUN write /a A\nSHELL ["/bin/sh", "-c"]\nRUN write /b B\n')
    assert [run["args"][-1] for run in shop.spy.runs] == ["write /a A"]


def test_layer_that_is_gone_is_a_miss(shop: Any) -> None:
    image = shop.build("FROM scratch\nRUN write /c C\n")
    shop.images.blobs.remove(image.config.diff_ids[0])
    again = shop.build("FROM scratch\nRUN write /c C\n")
    assert len(shop.spy.runs) == 1
    assert again.config.diff_ids == image.config.diff_ids


def test_damaged_record_is_a_miss(shop: Any) -> None:
    shop.build("FROM scratch\nRUN write /c C\n")
    for name in os.listdir(f"{shop.root.cache}/build"):
        with open(f"{shop.root.cache}/build/{name}", "w") as file:
            file.write("{")
    shop.build("FROM scratch\nRUN write /c C\n")
    assert len(shop.spy.runs) == 1


def test_copy_from_stage_is_keyed_by_content(shop: Any) -> None:
    text = "FROM scratch AS one\n{}RUN write /out O\nFROM scratch\nCOPY --from=one /out /\n"
    shop.build(text.format(""))
    shop.build(text.format("RUN write /other X\n"))
    assert "[stage-1 1/1] COPY --from=one /out /" in shop.spy.ends("cached")
    shop.build(text.format("RUN write /other X\n"))
    assert shop.spy.runs == []


def test_copy_found_by_content_is_found_by_its_stage_the_next_time(shop: Any) -> None:
    text = "FROM scratch AS one\n{}RUN write /out O\nFROM scratch\nCOPY --from=one /out /\n"
    shop.build(text.format(""))
    second = shop.build(text.format("RUN write /other X\n"))
    shutil.rmtree(shop.rootfs.directory)
    assert shop.build(text.format("RUN write /other X\n")).id == second.id, "no file had to be looked at"


def test_copy_from_an_image_and_a_number(shop: Any) -> None:
    shop.base("tools", {"bin/t": "T"})
    image = shop.build("FROM scratch\nRUN write /x X\nFROM scratch\nCOPY --from=0 /x /y\nCOPY --from=tools /bin/ /b/\n")
    assert shop.files(image) == {"y": "X", "b/t": "T"}


def test_only_what_the_target_needs_runs(shop: Any) -> None:
    text = "FROM scratch AS early\nRUN write /a A\nFROM scratch AS other\nRUN fail\nFROM early AS late\nRUN fail\n"
    image = shop.build(text, target="early")
    assert shop.files(image) == {"a": "A"}
    assert len(shop.spy.runs) == 1
    assert shop.build("FROM scratch AS x\nRUN fail\nFROM scratch\nENV a=1\n").config.diff_ids == ()
    with pytest.raises(DockerfileError, match="no stage 'earlier'") as caught:
        shop.build(text, target="earlier")
    assert "early" in caught.value.hint


def test_stage_on_a_stage_inherits(shop: Any) -> None:
    image = shop.build(
        'FROM scratch AS a\nARG V=1\nENV E=2\nRUN write /a A\nCMD x\nFROM a\nRUN write /b $V\nENTRYPOINT ["e"]\n'
    )
    assert "V=1" in shop.spy.runs[1]["env"]
    assert "E=2" in shop.spy.runs[1]["env"]
    assert len(image.config.diff_ids) == 2
    assert [entry for entry, _ in history(image)][-1] == 'ENTRYPOINT ["e"]'
    assert image.config.config.get("Cmd") is None, "an inherited CMD goes with a new ENTRYPOINT"


def test_entrypoint_keeps_a_cmd_of_its_own_stage(shop: Any) -> None:
    shop.base("base", {"f": "x"}, Cmd=["old"])
    assert shop.build('FROM base\nENTRYPOINT ["e"]\n').config.config.get("Cmd") is None
    assert shop.build('FROM base\nCMD ["c"]\nENTRYPOINT ["e"]\n').config.config["Cmd"] == ["c"]


def test_triggers_run_in_the_child_and_not_in_the_grandchild(shop: Any) -> None:
    (shop.context / "f").write_text("F")
    shop.base("base", {"x": "x"}, OnBuild=["COPY f /", "ENV t=1"])
    child = shop.build("FROM base\nRUN write /c C\n", tags=["child"])
    assert shop.files(child) == {"x": "x", "f": "F", "c": "C"}
    assert "OnBuild" not in child.config.config
    assert [entry for entry, _ in history(child)][1] == "COPY f / # buildkit"
    (shop.context / "f").unlink()
    shop.build("FROM child\nRUN write /d D\n")
    assert len(shop.spy.runs) == 1


def test_trigger_may_copy_from_a_stage_of_the_child(shop: Any) -> None:
    shop.base("base", {"x": "x"}, OnBuild=["COPY --from=made /m /"])
    image = shop.build("FROM scratch AS made\nRUN write /m M\nFROM base\n")
    assert shop.files(image) == {"x": "x", "m": "M"}


def test_trigger_that_is_not_allowed_is_refused(shop: Any) -> None:
    shop.base("base", {"x": "x"}, OnBuild=["RUN --device=gpu x"])
    with pytest.raises(BuildError, match="device is not allowed: RUN --device=gpu asks for it") as caught:
        shop.build("FROM scratch AS a\nRUN write /a A\nFROM base\n")
    assert caught.value.line == 3


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("RUN --network=host x", "RUN --network=host"),
        ("RUN --security=insecure x", "RUN --security=insecure"),
        ("RUN --device=gpu x", "RUN --device=gpu"),
        ("COPY --parents a/../b /", "COPY --parents cannot keep the '..' of 'a/../b'"),
        ("COPY --parents a/[ /", "syntax error in the pattern 'a/['"),
        ("COPY --exclude=[ a /", "invalid --exclude=["),
        ("COPY --chmod=u+q a /", "invalid mode 'u+q' of --chmod"),
        ("ADD --link --chown=: a /", "invalid user ':'"),
        ("FROM --platform=linux/not*one x", "invalid platform 'linux/not*one'"),
        ("FROM --platform=$NOWHERE x", "the platform '$NOWHERE' of FROM is empty"),
    ],
)
def test_what_is_not_executed_is_refused_by_name_before_anything_runs(shop: Any, line: str, named: str) -> None:
    (shop.context / "a").write_text("A")
    tail = "" if line.startswith("FROM") else "FROM scratch\nCOPY --from=first /a /\n"
    with pytest.raises(BuildError) as caught:
        shop.build(f"FROM scratch AS first\nRUN write /a A\n{tail}{line}\n")
    assert named in caught.value.message
    wanted = 3 + tail.count("\n") + line.startswith("ENV")
    assert caught.value.line == wanted
    assert f"{wanted} | >>>" in caught.value.excerpt
    assert shop.spy.runs == []


def test_failing_run(shop: Any) -> None:
    good = shop.build("FROM scratch\nRUN write /a A\n", tags=["t"])
    with pytest.raises(BuildError) as caught:
        shop.build("FROM scratch\nRUN write /a A\nRUN write /b B\nRUN fail\n", tags=["t"])
    assert caught.value.exit_status == 1
    assert caught.value.line == 4
    assert caught.value.message == 'process "/bin/sh -c fail" did not complete successfully: exit code: 3'
    assert "   4 | >>> RUN fail" in caught.value.excerpt
    assert shop.images.get("t").id == good.id
    assert len(shop.images.list()) == 1
    assert os.listdir(shop.root.tmp) == []
    shop.build("FROM scratch\nRUN write /a A\nRUN write /b B\nRUN write /c C\n", tags=["t"])
    assert [run["args"][-1] for run in shop.spy.runs] == ["write /c C"]


def test_interrupted_run(shop: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        shop.build("FROM scratch\nRUN write /a A\nRUN interrupt\n", tags=["t"])
    assert shop.spy.lines[-1] == "canceled [2/2] RUN interrupt"
    assert shop.images.list() == []
    assert os.listdir(shop.root.tmp) == []


def test_from_alone_is_the_base_itself(shop: Any) -> None:
    base = shop.base("base", {"x": "x"}, Env=["PATH=/bin"])
    assert shop.build("FROM base\n", tags=["t"]).id == base.id
    assert shop.build("FROM base\n", labels=[("a", "b")]).id != base.id


def test_triggers_have_the_backslash_as_escape(shop: Any) -> None:
    shop.base("base", {"x": "x"}, OnBuild=["ENV t=\\$PATH"])
    image = shop.build("# escape=`\nFROM base\nENV u=`$PATH\n")
    assert "t=$PATH" in image.config.config["Env"]
    assert "u=$PATH" in image.config.config["Env"]


def test_names_that_are_not_utf8(shop: Any) -> None:
    (shop.context / os.fsdecode(b"f\xff")).write_text("odd")
    text = "FROM scratch\nCOPY f* /d/\n"
    first = shop.build(text)
    assert os.listdir(os.fsencode(shop.rootfs.tree(first.config.diff_ids) / "d")) == [b"f\xff"]
    assert shop.build(text).id == first.id


def test_stubs_are_handed_on(shop: Any) -> None:
    image = shop.build("FROM scratch\nRUN stub /mountpoint\n")
    assert image.config.diff_ids == ()


def test_progress_titles(shop: Any) -> None:
    shop.base("base", {"x": "x"})
    shop.build("FROM base AS build\nRUN say hello\nWORKDIR /\nWORKDIR /w\nFROM scratch\nCOPY --from=build /x /\n")
    assert shop.spy.lines == [
        "done [internal] load build definition from Dockerfile",
        "done [internal] load .dockerignore",
        "done [internal] load metadata for docker.io/library/base:latest",
        "cached [build 1/3] FROM base",
        "output hello",
        "done [build 2/3] RUN say hello",
        "done [build 3/3] WORKDIR /w",
        "done [stage-1 1/1] COPY --from=build /x /",
        shop.spy.lines[8],
        "done exporting to image",
    ]
    assert shop.spy.lines[8].startswith("output writing image sha256:")


def test_unused_build_args_are_told(shop: Any) -> None:
    shop.build("FROM scratch\nARG A\nENV x=$A\n", build_args=[("A", "1"), ("B", "2"), ("C", "3"), ("NO_PROXY", "4")])
    assert "warning: one or more build-args [B C] were not consumed" in shop.spy.lines


def test_missing_base_names_the_line(shop: Any) -> None:
    with pytest.raises(BuildError, match="no such image: nothere") as caught:
        shop.build("ARG V=1\nFROM nothere:$V\n")
    assert caught.value.line == 2
    assert shop.pulled == ["nothere:1"]
    assert isinstance(caught.value.__cause__, NoSuchImageError)


def test_pull_asks_anew(shop: Any) -> None:
    shop.base("base", {"x": "x"})
    shop.build("FROM base\nENV a=1\n")
    assert shop.pulled == []
    shop.build("FROM base\nENV a=1\n", pull=True)
    assert shop.pulled == ["base"]


def test_requests_that_make_no_sense(shop: Any) -> None:
    with pytest.raises(InvalidReferenceError):
        shop.build("FROM scratch\n", tags=["UPPER"])
    with pytest.raises(DockerfileError, match="not defined yet"):
        shop.build("FROM scratch\nCOPY --from=later /a /\nFROM scratch AS later\n")
    with pytest.raises(DockerfileError, match="no stage of that number"):
        shop.build("FROM scratch\nCOPY --from=1 /a /\nFROM scratch\n")
    with pytest.raises(BuildError, match="needs a directory as destination, not /x"):
        shop.build("FROM scratch\nCOPY a b /x\n")
    shop.context.rmdir()
    with pytest.raises(UsageError, match="cannot use the build context"):
        shop.build("FROM scratch\n")


def test_checks_directive(shop: Any) -> None:
    text = "FROM scratch\nENV a=1 \\\n\n b=2\n"
    shop.build(text)
    assert any("NoEmptyContinuation" in line for line in shop.spy.lines)
    shop.build(f"# check=skip=NoEmptyContinuation\n{text}")
    assert not any("NoEmptyContinuation" in line for line in shop.spy.lines)
    with pytest.raises(BuildError, match="NoEmptyContinuation"):
        shop.build(f"# check=error=true\n{text}")
