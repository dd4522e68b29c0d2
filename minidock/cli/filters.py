"""``--filter key=value``: the same key twice means either, different keys mean both."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from minidock.cli.declare import read_whole
from minidock.errors import UsageError


class Filters:
    """Parsed filters. ``known`` are the keys that the command has; UsageError for any other, and for a text without
    ``=``."""

    __slots__ = ("_values",)

    def __init__(self, texts: Sequence[str], *, known: Sequence[str]) -> None:
        self._values: dict[str, list[str]] = {}
        for text in texts:
            key, equals, value = text.partition("=")
            negated = key.endswith("!")
            if not equals:
                raise UsageError(f"invalid filter {text!r}", hint="the form is KEY=VALUE")
            if negated or key not in known:
                raise UsageError(f"invalid filter {text!r}", hint=f"the filters are {', '.join(known)}")
            self._values.setdefault(key, []).append(value)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def values(self, key: str) -> list[str]:
        return self._values.get(key, [])

    def matches(self, key: str, *candidates: str) -> bool:
        """True if the key was not given, or one of its values is among the candidates."""
        return key not in self._values or any(value in candidates for value in self._values[key])

    def require(self, key: str, known: Sequence[str]) -> None:
        """Raise UsageError unless each value of the key is one of ``known``."""
        for value in self.values(key):
            if value not in known:
                raise UsageError(f"invalid filter '{key}={value}'", hint=f"the values are {', '.join(known)}")

    def found_in(self, key: str, text: str) -> bool:
        """True if the key was not given, or one of its values, regular expressions as in docker, is found in the text.

        Raises UsageError for one that cannot be read.
        """
        return key not in self._values or any(self._expression(key, value).search(text) for value in self._values[key])

    @staticmethod
    def _expression(key: str, value: str) -> re.Pattern[str]:
        try:
            return re.compile(value)
        except re.error as error:
            raise UsageError(
                f"invalid filter '{key}={value}': {error}",
                hint="use a part of the name, or a regular expression",
            ) from None

    def numbers(self, key: str) -> list[int]:
        """The values of a key whose values are whole numbers. Raises UsageError."""
        try:
            return [read_whole(value) for value in self.values(key)]
        except ValueError as error:
            raise UsageError(f"invalid filter '{key}={self.values(key)[0]}': {error}") from None

    def times(self, key: str) -> list[int]:
        """The values of a key whose values are times, in nanoseconds since the epoch. Raises UsageError."""
        from minidock.cli.when import read_time

        try:
            return [read_time(value) for value in self.values(key)]
        except (ValueError, OverflowError) as error:
            raise UsageError(f"invalid filter '{key}={self.values(key)[0]}': {error}") from None

    def labels(self, labels: Mapping[str, str]) -> bool:
        """True if every ``label`` filter, ``NAME`` or ``NAME=VALUE``, holds. All of them must: docker's exception."""
        for text in self._values.get("label", ()):
            name, equals, value = text.partition("=")
            if name not in labels or (equals and labels[name] != value):
                return False
        return True

    def boolean(self, key: str) -> bool | None:
        """The value of a yes-or-no filter, None if it was not given."""
        values = self._values.get(key)
        if not values:
            return None
        if values[-1] not in ("1", "0", "true", "false"):
            raise UsageError(f"invalid filter '{key}={values[-1]}'", hint="the value is true or false")
        return values[-1] in ("1", "true")
