"""``# check=skip=A,B;error=true;experimental=C``: which checks look, and whether what they find is an error."""

from __future__ import annotations

from typing import NamedTuple

from minidock.errors import DockerfileError

_ALL = "all"
_TRUE = ("1", "t", "true")
_FALSE = ("0", "f", "false")
_HINT = "write check=skip=NAME,NAME;error=true, or experimental=NAME"


class Settings(NamedTuple):
    """``skip`` and ``experimental`` are names of checks, ``all`` among them stands for every one."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    def wants(self, name: str, *, experimental: bool) -> bool:
        """Whether the check looks: one that is not experimental unless it is skipped, else only where it is named."""
        named = self.experimental if experimental else self.skip
        return (name in named or _ALL in named) is experimental

    @property
    def nothing(self) -> bool:
        """True where no check looks."""
        return _ALL in self.skip and not self.experimental


def parse_settings(text: str) -> Settings:
    """Read the value of a ``check`` directive. Raises DockerfileError, without a place, for an option that is none."""
    found = Settings()
    for part in filter(str.strip, text.split(";")):
        key, equals, value = (word.strip() for word in part.partition("="))
        names = frozenset(name.strip() for name in value.split(","))
        if equals and key == "skip":
            found = found._replace(skip=names)
        elif equals and key == "experimental":
            found = found._replace(experimental=names)
        elif key == "error" and value.lower() in _TRUE + _FALSE:
            found = found._replace(error=value.lower() in _TRUE)
        else:
            raise DockerfileError(f"invalid option {part.strip()[:80]!r} of the check directive", hint=_HINT)
    return found
