"""A part of the suite in a virtual machine: Debian's kernel 6.1, cgroup version 2 alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.vm
ROOT = Path(__file__).resolve().parents[2]


def test_the_machine_ran_to_its_end(report: Any) -> None:
    """Failed tests (status 1) are told file by file below; anything else is told by the console."""
    assert report.status in {"0", "1"}, f"pytest in the machine: {report.status}\n{report.console}"


def test_guest(guest_path: str, report: Any) -> None:
    assert (ROOT / guest_path).exists(), f"{guest_path} is to be tested in the machine and does not exist"
    cases = report.under(guest_path)
    wrong = [f"{case.name}: {case.outcome}\n{case.text}" for case in cases if case.outcome in {"failed", "error"}]
    assert not wrong, "\n\n".join(wrong)
    assert any(case.outcome == "passed" for case in cases), f"no test of {guest_path} passed\n{report.console}"
    unexplained = [case.name for case in cases if case.outcome == "skipped" and not case.text]
    assert not unexplained, f"skipped without a reason: {unexplained}"
