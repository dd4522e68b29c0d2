"""The static checks run as tests: strict mypy, ruff, ruff's format, shellcheck."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ["install.sh", "tests/run", ".ci/run", "tests/vm/init", "tests/integration/attack/snapshot/docker.sh"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["mypy", "--no-error-summary"],
        ["ruff", "check", "--no-cache", "minidock", "tests"],
        ["ruff", "format", "--no-cache", "--check", "minidock", "tests"],
    ],
    ids=["mypy", "ruff", "format"],
)
def test_python(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_shell() -> None:
    shellcheck = shutil.which("shellcheck")
    assert shellcheck, "shellcheck is missing: apt-get install shellcheck"
    done = subprocess.run([shellcheck, *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
