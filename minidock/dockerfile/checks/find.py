"""All checks, and what they find in a Dockerfile.

Names and conditions are those of BuildKit's linter (Dockerfile reference, "Build checks").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.dockerfile.checks import stages, usage, variables

if TYPE_CHECKING:
    from minidock.dockerfile.checks.settings import Settings
    from minidock.dockerfile.checks.subject import Subject
    from minidock.dockerfile.instructions import Finding

CHECKS = (*stages.CHECKS, *variables.CHECKS, *usage.CHECKS)


def find(subject: Subject, settings: Settings) -> list[Finding]:
    """What the wanted checks find, in the order of the file and, on one line, of the checks' names."""
    wanted = [check for check in CHECKS if settings.wants(check.name, experimental=check.experimental)]
    found = dict.fromkeys(finding for check in wanted for finding in check.findings(subject))
    return sorted(found, key=lambda finding: (finding.line, finding.check))


def description_of(name: str) -> str:
    """What the check of that name is about, in one sentence."""
    return next(check.description for check in CHECKS if check.name == name)
