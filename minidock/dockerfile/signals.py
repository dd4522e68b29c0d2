"""The names of signals that STOPSIGNAL takes (signal(7)); numbers differ between machines, names do not."""

from __future__ import annotations

import re

from minidock.errors import DockerfileError

_NAMES = re.compile(
    r"ABRT|ALRM|BUS|CHLD|CLD|CONT|FPE|HUP|ILL|INT|IO|IOT|KILL|PIPE|POLL|PROF|PWR|QUIT|SEGV|STKFLT|STOP|SYS|TERM|TRAP|"
    r"TSTP|TTIN|TTOU|URG|USR[12]|VTALRM|WINCH|XCPU|XFSZ|RTMIN(?:\+(?:[1-9]|1[0-5]))?|RTMAX(?:-(?:[1-9]|1[0-4]))?"
)
_NUMBER = re.compile(r"[0-9]{1,2}")


def check_signal(text: str) -> str:
    """``text`` if it is a signal's number (1 to 64) or name (``TERM``, ``SIGTERM``, ``RTMIN+3``).

    Raises DockerfileError for anything else.
    """
    if _NAMES.fullmatch(text.upper().removeprefix("SIG")):
        return text
    if _NUMBER.fullmatch(text) and 1 <= int(text) <= 64:
        return text
    raise DockerfileError(f"invalid signal {text[:80]!r} in STOPSIGNAL", hint="write a name, SIGTERM, or a number")
