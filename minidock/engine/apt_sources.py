"""The host's apt sources, as far as they are Debian's own (sources.list(5), both of its formats)."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

ROLLING = frozenset({"sid", "unstable", "testing", "experimental"})
_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>.*)")
_DATE = re.compile(r"^Date: (.*)$", re.MULTILINE)


class Source(NamedTuple):
    """One suite of one archive. ``signed_by`` is a keyring's path or empty."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""

    def line(self) -> str:
        """The source in the one-line format."""
        options = f"[signed-by={self.signed_by}] " if self.signed_by else ""
        return " ".join((f"deb {options}{self.uri}", self.suite, *self.components))


def read_sources(directory: str = "/etc/apt") -> list[Source]:
    """The binary sources of ``sources.list`` and ``sources.list.d``, in apt's order, as far as they can be read."""
    found: list[Source] = []
    paths = [f"{directory}/sources.list"]
    try:
        paths += [f"{directory}/sources.list.d/{name}" for name in sorted(os.listdir(f"{directory}/sources.list.d"))]
    except OSError:
        paths = paths[:1]
    for path in paths:
        if not path.endswith((".list", ".sources")):
            continue
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue
        found += _stanzas(text) if path.endswith(".sources") else _lines(text)
    return found


def sources_for(suite: str, *, host_suite: str, sources: Sequence[Source]) -> list[Source]:
    """The sources for a suite: those of the host's own suite, its updates and security, with the name put in.

    A rolling suite has no updates of its own. Empty when the host has no source of its suite.
    """
    chosen = []
    for source in sources:
        base, dash, rest = source.suite.partition("-")
        if not host_suite or base != host_suite or (dash and suite != host_suite and suite in ROLLING):
            continue
        chosen.append(source._replace(suite=f"{suite}{dash}{rest}"))
    return list(dict.fromkeys(chosen))


def host_release(path: str = "/etc/os-release") -> Mapping[str, str]:
    """The fields of os-release(5); empty when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    fields = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {key: value.strip("\"'") for key, _, value in fields}


def archive_time(suite: str, *, lists: str = "/var/lib/apt/lists") -> int:
    """When what apt last saw of a suite was made: seconds since the epoch; now, when apt has seen nothing of it.

    The same state of the archive gives the same time, so that an image made from it is the same, too.
    """
    newest = 0.0
    try:
        names = os.listdir(lists)
    except OSError:
        names = []
    for name in names:
        if f"_dists_{suite}" in name and name.endswith(("_InRelease", "_Release")):
            newest = max(newest, _release_date(f"{lists}/{name}"))
    return int(newest or time.time())


def _release_date(path: str) -> float:
    from email.utils import parsedate_to_datetime

    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = _DATE.search(file.read(65536))
        return parsedate_to_datetime(found[1]).timestamp() if found else 0.0
    except (OSError, ValueError):
        return 0.0


def _lines(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        found = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if found:
            options = dict(option.partition("=")[::2] for option in (found["options"] or "").split())
            signed_by = options.get("signed-by", "")
            yield Source(found["uri"], found["suite"], tuple(found["components"].split()), _keyring(signed_by))


def _stanzas(text: str) -> Iterator[Source]:
    for stanza in re.split(r"\n\s*\n", "\n".join(line for line in text.splitlines() if not line.startswith("#"))):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields[key] = fields.get(key, "") + line
            else:
                key, _, value = line.partition(":")
                fields[key := key.strip().lower()] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                components = tuple(fields.get("components", "").split())
                yield Source(uri, suite, components, _keyring(fields.get("signed-by", "")))


def _keyring(text: str) -> str:
    """A keyring's path; a key that stands in the source itself is left to mmdebstrap, which knows Debian's."""
    return text if re.fullmatch(r"/[^\s,\]]+", text) else ""
