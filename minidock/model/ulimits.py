"""Resource limits as ``--ulimit`` has them: ``NAME=SOFT[:HARD]`` (getrlimit(2), docker's grammar)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from minidock.errors import UsageError

UNLIMITED = 2**64 - 1
"""RLIM_INFINITY, as the runtime spec has it."""

NAMES = (
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss"),
    *("rtprio", "rttime", "sigpending", "stack"),
)
_MOST = 2**63 - 1
_HINT = "the form is NAME=SOFT[:HARD], such as nofile=1024:4096; -1 and unlimited mean no limit"


class Ulimit(NamedTuple):
    """A limit: its name in lower case, soft and hard limit in the kernel's own units, ``UNLIMITED`` for none."""

    name: str
    soft: int
    hard: int

    @property
    def kernel_name(self) -> str:
        """As the runtime spec names it: RLIMIT_NOFILE."""
        return f"RLIMIT_{self.name.upper()}"


def parse_ulimit(text: str) -> Ulimit:
    """Read one limit; a hard limit that is not given is the soft one. Raises UsageError, naming the text."""
    name, equals, values = text.partition("=")
    if not equals:
        raise UsageError(f"invalid ulimit {text!r}", hint=_HINT)
    if name not in NAMES:
        raise UsageError(f"invalid ulimit {text!r}: there is no limit {name!r}", hint=f"they are {', '.join(NAMES)}")
    soft_text, colon, hard_text = values.partition(":")
    soft = _number(soft_text, text)
    hard = _number(hard_text, text) if colon else soft
    if soft > hard:
        raise UsageError(f"invalid ulimit {text!r}: the soft limit is above the hard one", hint=_HINT)
    return Ulimit(name, soft, hard)


def parse_ulimits(texts: Iterable[str]) -> tuple[Ulimit, ...]:
    """Read the limits; of two of one name the later counts. Raises UsageError."""
    return tuple({limit.name: limit for limit in map(parse_ulimit, texts)}.values())


def _number(value: str, text: str) -> int:
    if value in {"-1", "unlimited"}:
        return UNLIMITED
    if not (value.isascii() and value.isdecimal() and len(value) < 20 and int(value) <= _MOST):
        raise UsageError(f"invalid ulimit {text!r}: {value!r} is no limit", hint=_HINT)
    return int(value)
