"""One instruction before it has a type: its word, flags and rest, and the checks that all readers share."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from minidock.dockerfile.instructions import Flag, Heredoc, Location
from minidock.dockerfile.suggest import did_you_mean
from minidock.dockerfile.words import split_flags, split_instruction
from minidock.errors import DockerfileError


class Request(NamedTuple):
    """``word`` is upper-case; ``rest`` is what follows the flags, stripped."""

    word: str
    flags: tuple[Flag, ...]
    rest: str
    heredocs: tuple[Heredoc, ...]
    location: Location
    escape: str

    def needs_rest(self) -> str:
        """The rest, or DockerfileError if there is none."""
        if not self.rest:
            raise DockerfileError(f"{self.word} requires at least one argument")
        return self.rest

    def known_flags(
        self, texts: Collection[str] = (), *, booleans: Collection[str] = (), repeated: Collection[str] = ()
    ) -> FlagValues:
        """The flags' values, checked: ``texts`` and ``repeated`` need a value, ``booleans`` are bare, true or false.

        Raises DockerfileError for an unknown flag, a second one of a kind that stands once, or a bad value.
        """
        known = (*texts, *booleans, *repeated)
        values: dict[str, list[str]] = {}
        for flag in self.flags:
            if flag.name not in known:
                hint = did_you_mean(flag.name, known, prefix="--")
                raise DockerfileError(f"unknown flag --{flag.name} of {self.word}", hint=hint)
            if flag.name in values and flag.name not in repeated:
                raise DockerfileError(f"duplicate flag --{flag.name} of {self.word}", hint="give it once")
            value = flag.value
            if flag.name in booleans:
                value = "true" if value is None else value.lower()
                if value not in ("true", "false"):
                    raise DockerfileError(f"the flag --{flag.name} takes true or false, not {flag.value!r}")
            elif not value:
                raise DockerfileError(f"missing value of the flag --{flag.name}", hint=f"write --{flag.name}=VALUE")
            values.setdefault(flag.name, []).append(value)
        return FlagValues(values)


class FlagValues(NamedTuple):
    """Checked flags by name."""

    values: dict[str, list[str]]

    def text(self, name: str) -> str:
        """The value, or empty if the flag was not given."""
        return self.values.get(name, [""])[0]

    def texts(self, name: str) -> tuple[str, ...]:
        """All values of a flag that may be repeated."""
        return tuple(self.values.get(name, ()))

    def boolean(self, name: str) -> bool | None:
        """True or false, or None if the flag was not given."""
        return self.text(name) == "true" if name in self.values else None


def make_request(text: str, *, heredocs: tuple[Heredoc, ...], location: Location, escape: str) -> Request:
    """Cut an instruction's line into word, flags and rest."""
    word, rest = split_instruction(text)
    flags, rest = split_flags(rest)
    return Request(word.upper(), flags, rest, heredocs, location, escape)
