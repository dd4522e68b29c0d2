"""The checks of a build: what they are told of it, when what they find is told, and ``--check`` without a build."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from minidock.build.arguments import CHECK_ARGUMENT
from minidock.build.checks import Report, check
from minidock.build.progress import QuietProgress
from minidock.build.request import BuildRequest
from minidock.errors import BuildError, DockerfileError

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="COPY makes files root's; without root that is refused")


def warnings(shop: Any) -> list[str]:
    return [line.removeprefix("warning: ") for line in shop.spy.lines if line.startswith("warning: ")]


def lint(shop: Any, text: str, **options: Any) -> Report:
    request = BuildRequest(str(shop.context), text=text, **options)
    progress = QuietProgress(lambda _: None)
    return check(request, root=shop.root, images=shop.images, rootfs=shop.rootfs, progress=progress)


def found(report: Report) -> list[tuple[str, int]]:
    return [(finding.check, finding.line) for finding in report.found]


def test_a_build_tells_what_is_found_in_the_order_of_the_file_before_it_runs(shop: Any) -> None:
    shop.build("FROM scratch AS A\nLABEL b c\nRUN write /a A\nFROM A\nENV token=1\nCMD x\n")
    assert warnings(shop) == [
        "StageNameCasing: the stage name 'A' should be lower-case (line 1)",
        'LegacyKeyValueFormat: "LABEL key=value" should be written instead of "LABEL key value" (line 2)',
        "SecretsUsedInArgOrEnv: do not hand secrets on in ARG or ENV (ENV 'token') (line 5)",
        "JSONArgsRecommended: CMD should be in JSON form: a shell does not pass signals on (line 6)",
    ]
    lines = shop.spy.lines
    assert max(lines.index(f"warning: {text}") for text in warnings(shop)) < lines.index("done [a 1/1] RUN write /a A")


def test_a_stage_that_is_not_built_is_looked_at_by_its_text_alone(shop: Any) -> None:
    shop.build("FROM scratch AS Early\nFROM nothere AS Other\nCMD shell form\n", target="early")
    assert warnings(shop) == [
        "StageNameCasing: the stage name 'Early' should be lower-case (line 1)",
        "StageNameCasing: the stage name 'Other' should be lower-case (line 2)",
    ]


def test_the_environment_and_shell_of_the_base_count(shop: Any) -> None:
    shop.base("based", {}, Env=["GIVEN=1"], Shell=["/bin/ash", "-c"], OnBuild=["ARG TRIGGERED=2"])
    shop.build("FROM based AS a\nLABEL a=$GIVEN b=$TRIGGERED c=$PATH\nCMD x\nFROM a\nLABEL d=$GIVEN$TRIGGERED\n")
    assert warnings(shop) == []
    shop.build("FROM scratch\nLABEL a=$GIVEN c=$PATH\n")
    assert warnings(shop) == ["UndefinedVar: the variable '$GIVEN' is used but not defined (line 2)"]


def test_what_was_given_counts(shop: Any) -> None:
    text = "ARG B\nFROM ${B:-scratch}\nARG D=$NOT\nARG G\nLABEL d=$D g=$G\n"
    shop.build(text, build_args=[("D", "1"), ("G", "2")])
    assert warnings(shop) == []
    shop.build(text)
    assert warnings(shop) == ["UndefinedVar: the variable '$NOT' is used but not defined (line 3)"]


def test_a_base_for_another_architecture_is_told(shop: Any) -> None:
    shop.base("strange", {})
    image = shop.images.get("strange")
    raw = {**image.config.raw, "architecture": "mips64"}
    config = type(image.config)(raw)
    shop.images.commit(config, image.manifest.layers, names=["strange"])
    shop.build("FROM strange\n")
    assert [text.partition(" but ")[0] for text in warnings(shop)] == [
        "InvalidBaseImagePlatform: the base image strange is for linux/mips64,"
    ]


def test_an_ignored_file_is_told_before_it_is_not_found(shop: Any) -> None:
    (shop.context / "src").mkdir()
    (shop.context / "src/a").write_text("A")
    (shop.context / "b").write_text("B")
    (shop.context / ".dockerignore").write_text("*\n!src/**\n")
    image = shop.build("FROM scratch\nCOPY . /\n")
    assert shop.files(image) == {"src/a": "A"}
    assert warnings(shop) == []
    with pytest.raises(BuildError, match="'b' is not found in the build context"):
        shop.build("FROM scratch\nCOPY src/a b /\n")
    assert warnings(shop) == ["CopyIgnoredFile: COPY of 'b', which .dockerignore leaves out (line 2)"]


def test_a_build_that_fails_tells_first_what_may_be_the_reason(shop: Any) -> None:
    with pytest.raises(BuildError, match="source \\$DIR_ASSET is empty"):
        shop.build("FROM scratch\nARG DIR_ASSETS=a\nCOPY $DIR_ASSET /\n")
    meant = "UndefinedVar: the variable '$DIR_ASSET' is used but not defined (did you mean $DIR_ASSETS?) (line 3)"
    assert warnings(shop) == [meant]
    with pytest.raises(DockerfileError, match="is empty after expansion"):
        shop.build("ARG BASE=scratch\nFROM $BSAE\n")
    assert "UndefinedArgInFrom: the argument 'BSAE' of FROM is not declared (did you mean BASE?) (line 2)" in warnings(
        shop
    )


def test_the_directive_leaves_checks_out(shop: Any) -> None:
    text = "FROM scratch AS A\nCMD x\n"
    shop.build(f"# check=skip=StageNameCasing, JSONArgsRecommended\n{text}")
    assert warnings(shop) == []
    shop.build(f"# check=skip=all\n{text}")
    assert warnings(shop) == []
    shop.build(f"# check=skip=Unheard,StageNameCasing\n{text}")
    assert [line.partition(":")[0] for line in warnings(shop)] == ["JSONArgsRecommended"]


def test_an_experimental_check_looks_where_it_is_named(shop: Any) -> None:
    text = "# other\nFROM scratch AS a\n"
    shop.build(text)
    assert warnings(shop) == []
    for directive in ("experimental=InvalidDefinitionDescription", "skip=all;experimental=all"):
        shop.build(f"# check={directive}\n{text}")
        assert [line.partition(":")[0] for line in warnings(shop)] == ["InvalidDefinitionDescription"]


def test_the_directive_makes_errors_of_what_is_found_and_nothing_runs(shop: Any) -> None:
    text = "# check=error=true\nFROM scratch AS A\nRUN write /a A\nCMD x\n"
    with pytest.raises(
        BuildError, match="makes errors of what was found: JSONArgsRecommended, StageNameCasing"
    ) as caught:
        shop.build(text)
    assert (caught.value.line, caught.value.exit_status) == (2, 1)
    assert ">>> FROM scratch AS A" in caught.value.excerpt
    assert shop.spy.runs == []
    assert len(warnings(shop)) == 2
    shop.build(text.replace("true", "false"))
    shop.build(text.replace("error=true", "error=true;skip=all"))
    assert warnings(shop) == []


def test_a_build_argument_stands_in_for_the_directive(shop: Any) -> None:
    text = "# check=skip=all\nFROM scratch AS A\n"
    shop.build(text, build_args=[(CHECK_ARGUMENT, "skip=JSONArgsRecommended")])
    assert [line.partition(":")[0] for line in warnings(shop)] == ["StageNameCasing"]


@pytest.mark.parametrize("value", ["skip", "error=maybe", "errors=true", "StageNameCasing"])
def test_a_directive_that_says_nothing_is_refused_with_its_line(shop: Any, value: str) -> None:
    with pytest.raises(DockerfileError, match="invalid option") as caught:
        shop.build(f"# escape=\\\n#check = {value}\nFROM scratch\n")
    assert caught.value.line == 2
    assert "skip=NAME" in caught.value.hint


def test_check_looks_at_all_stages_and_builds_nothing(shop: Any) -> None:
    report = lint(shop, "FROM scratch AS a\nCMD x\nRUN write /a A\nFROM nothere\nCMD y\nLABEL v=$FROM_ITS_BASE\n")
    assert found(report) == [("JSONArgsRecommended", 2), ("JSONArgsRecommended", 5)]
    assert report.error is None
    first = report.found[0]
    assert first.excerpt.startswith("Dockerfile:2\n")
    assert ">>> CMD x" in first.excerpt
    assert first.description
    assert shop.pulled == []
    assert shop.images.list() == []
    assert os.listdir(Path(shop.root.path) / "tmp") == []


def test_check_of_a_target_looks_at_what_it_needs(shop: Any) -> None:
    text = "FROM scratch AS a\nCMD x\nFROM scratch AS b\nCMD y\nFROM b\nCMD z\n"
    assert [line for _, line in found(lint(shop, text, target="b"))] == [4]
    assert [line for _, line in found(lint(shop, text))] == [2, 4, 6]


def test_check_tells_what_a_build_would_fail_with(shop: Any) -> None:
    report = lint(shop, "FROM scratch\nLABEL a=$X\nWORKDIR $X\nCMD y\n")
    assert found(report) == [("UndefinedVar", 2), ("UndefinedVar", 3), ("JSONArgsRecommended", 4)]
    assert report.error is not None
    assert (report.error.line, report.error.message) == (3, "WORKDIR $X is empty after expansion")
    with pytest.raises(DockerfileError, match="unknown instruction"):
        lint(shop, "FROM scratch\nFOO\n")


def test_check_reads_the_ignore_rules(shop: Any) -> None:
    (shop.context / ".dockerignore").write_text("tmp\n")
    assert found(lint(shop, "FROM scratch\nADD tmp/x /\n")) == [("CopyIgnoredFile", 2)]
