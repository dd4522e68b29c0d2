"""The values of ``--security-opt``: docker's grammar, ``KEY=VALUE`` or its older form ``KEY:VALUE``; no I/O."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from minidock.errors import UsageError

BUILTIN = "builtin"
UNCONFINED = "unconfined"

# What docker reads as a truth value (Go's strconv.ParseBool); none at all means true.
_TRUTHS = {
    **dict.fromkeys(("1", "t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("0", "f", "F", "false", "False", "FALSE"), False),
}
_HINT = (
    "minidock knows no-new-privileges[=true|false], seccomp=FILE|builtin|unconfined, systempaths=unconfined, "
    "apparmor=PROFILE|unconfined and label=disable"
)
_KEYS = ("no-new-privileges", "seccomp", "systempaths", "apparmor", "label")


class SecurityOptions(NamedTuple):
    """What the options say.

    ``seccomp`` is "builtin", "unconfined" or the path of a profile, empty where none is named; ``apparmor`` a profile's
    name or "unconfined", empty likewise; ``labels`` are SELinux's ``user:``, ``role:``, ``type:`` and ``level:`` texts.
    """

    no_new_privs: bool = False
    seccomp: str = ""
    unconfined_paths: bool = False
    apparmor: str = ""
    labels: tuple[str, ...] = ()

    @property
    def profile(self) -> str:
        """The path of the seccomp profile that is named, or empty."""
        return "" if self.seccomp in {"", BUILTIN, UNCONFINED} else self.seccomp


def security_options(options: Iterable[str]) -> SecurityOptions:
    """Read the options; of two with one key the later counts, labels add up. Raises UsageError, naming the option."""
    found = SecurityOptions()
    for option in options:
        key, value = _split(option)
        if key == "no-new-privileges" and (value in _TRUTHS or option == key):
            found = found._replace(no_new_privs=_TRUTHS.get(value, True))
        elif key == "seccomp" and value:
            found = found._replace(seccomp=value)
        elif key == "systempaths" and value == UNCONFINED:
            found = found._replace(unconfined_paths=True)
        elif key == "apparmor" and value and value.isprintable():
            found = found._replace(apparmor=value)
        elif key == "label" and value == "disable":
            found = found._replace(labels=())
        elif key == "label" and value.partition(":")[0] in {"user", "role", "type", "level"} and ":" in value:
            found = found._replace(labels=(*found.labels, value))
        else:
            raise UsageError(f"unsupported value {option!r} for --security-opt", hint=_HINT)
    return found


def with_whole_paths(options: Sequence[str], *, cwd: str) -> tuple[str, ...]:
    """The options with the path of a seccomp profile made absolute; what makes no sense stays as it is."""
    result = []
    for option in options:
        key, value = _split(option)
        if key == "seccomp" and value not in {"", BUILTIN, UNCONFINED}:
            result.append(f"seccomp={posixpath.normpath(posixpath.join(cwd, value))}")
        else:
            result.append(option)
    return tuple(result)


def _split(option: str) -> tuple[str, str]:
    key, equals, value = option.partition("=")
    if not equals or ":" in key:
        older, _, rest = option.partition(":")
        if older in _KEYS:
            return older, rest
    return key, value
