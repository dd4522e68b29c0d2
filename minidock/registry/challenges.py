"""What a registry asks for with 401: ``WWW-Authenticate`` (RFC 9110, 11.6.1)."""

from __future__ import annotations

import re
from typing import NamedTuple

_MAX = 8192
# A scheme may stand alone ("Negotiate, Bearer realm=..."). No two parts of a pattern match the same blanks: a header
# of nothing else must not take its length squared.
_SCHEME = re.compile(r"[\s,]*([A-Za-z][A-Za-z0-9._~+-]*)(?=[\s,]|\Z)")
_PARAMETER = re.compile(r"[\s,]*([A-Za-z0-9_-]+)\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]+))")


class Challenge(NamedTuple):
    """One way in: ``scheme`` is lower-case; ``parameters`` have lower-case names."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(text: str) -> list[Challenge]:
    """The challenges of a header, in order; what cannot be read ends the list."""
    found: list[Challenge] = []
    text, position = text[:_MAX], 0
    while match := _SCHEME.match(text, position):
        position = match.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(text, position):
            quoted = parameter[2]
            value = parameter[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(parameter[1].lower(), value)
            position = parameter.end()
        found.append(Challenge(match[1].lower(), parameters))
    return found
