"""``build --check`` and warnings of ``build``, typed as people type them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXT = """\
# check=error=true
FROM busybox AS Base
ENV token=1
FROM base
CMD echo $token
"""


def test_check_prints_and_builds_nothing(minidock: Any, context: Callable[..., Path]) -> None:
    folder = context(TEXT)
    before = minidock.out("images", "-q")
    done = minidock("build", "--check", folder, status=1)
    assert done.stderr == ""
    assert done.stdout.startswith("Check complete, 3 warnings have been found!\n\nWARNING: StageNameCasing - ")
    assert "Dockerfile:5\n--------------------\n   3 |     ENV token=1\n" in done.stdout
    assert "   5 | >>> CMD echo $token\n" in done.stdout
    assert minidock.out("images", "-q") == before
    assert list((minidock.root / "tmp").iterdir()) == []
    folder = context('FROM busybox\nCMD ["true"]\n')
    assert minidock.out("build", "--check", folder) == "Check complete, no warnings found."


def test_a_build_warns_or_fails_as_the_directive_says(minidock: Any, context: Callable[..., Path]) -> None:
    said = minidock.build(context(TEXT), "-t", "app", status=1)
    assert "WARNING: SecretsUsedInArgOrEnv: " in said
    assert ">>> FROM busybox AS Base" in said
    assert said.endswith(
        "makes errors of what was found: JSONArgsRecommended, SecretsUsedInArgOrEnv, StageNameCasing\n"
    )
    said = minidock.build(context(TEXT.replace("error=true", "skip=StageNameCasing")), "-t", "app")
    assert said.count("WARNING: ") == 2
    said = minidock.build(context(TEXT), "-q", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all")
    assert said == ""
