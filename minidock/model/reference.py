"""Image references: ``[host[:port]/]path[:tag][@digest]`` (the grammar of distribution/reference).

``busybox`` means ``docker.io/library/busybox:latest``; people see the familiar form, the store keeps the full one.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from minidock.errors import InvalidReferenceError
from minidock.model.digest import is_digest

_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
# Texts: re compiles a pattern when it is first used and keeps it, and most runs use one of the three.
_DOMAIN = rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = rf"{_PATH_PART}(?:/{_PATH_PART})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_MAX_NAME = 255

DEFAULT_DOMAIN = "docker.io"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
# What the latest failed step of a build has left; with ``:ID``, that one. No reference has capitals here.
FAILED = "FAILED"


class Reference(NamedTuple):
    """A parsed reference. ``tag`` and ``digest`` are empty where the text had none."""

    domain: str
    path: str
    tag: str
    digest: str

    @property
    def repository(self) -> str:
        """The full repository, ``docker.io/library/busybox``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """The repository as people write it, ``busybox``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository
        namespace, slash, name = self.path.partition("/")
        if namespace == DEFAULT_NAMESPACE and slash and "/" not in name:
            return name
        # What would read as a host must keep its own.
        return self.repository if _reads_as_domain(namespace) else self.path

    def full(self) -> str:
        """The full text, as the index's ``ref.name`` annotation holds it."""
        return self.repository + self._suffix()

    def familiar(self) -> str:
        """The text as people write it: ``busybox:latest``."""
        return self.familiar_repository + self._suffix()

    def tagged(self) -> Reference:
        """This reference with the default tag where it has neither tag nor digest."""
        return self if self.tag or self.digest else self._replace(tag=DEFAULT_TAG)

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def is_derived(text: str) -> bool:
    """Whether a text means no image of its own and nothing that could be pulled: a step of one (``app~2``), or what a
    failed step of a build has left."""
    return "~" in text or text.startswith(FAILED)


def parse_reference(text: str) -> Reference:
    """Parse an image reference; raise InvalidReferenceError, naming the text and the part that is wrong."""
    if not text:
        raise InvalidReferenceError("invalid image reference: it is empty")
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _invalid(text, f"{digest!r} is not a digest")
    slash = rest.rfind("/")
    name, colon, tag = rest, "", ""
    if ":" in rest[slash + 1 :]:
        name, colon, tag = rest.rpartition(":")
    if colon and not re.fullmatch(_TAG, tag):
        raise _invalid(text, "the part after the last ':' is not a tag")
    domain, path = _split_domain(name)
    if domain != DEFAULT_DOMAIN and not re.fullmatch(_DOMAIN, domain):
        raise _invalid(text, f"{domain!r} is not a host name")
    if not re.fullmatch(_PATH, path):
        reason = "a repository name is lower-case" if path != path.lower() else f"{path!r} is not a repository name"
        raise _invalid(text, reason)
    if len(domain) + 1 + len(path) > _MAX_NAME:
        raise _invalid(text[:40] + "...", f"a repository name has at most {_MAX_NAME} characters")
    return Reference(domain, path, tag, digest)


def _reads_as_domain(part: str) -> bool:
    return "." in part or ":" in part or part == "localhost" or part != part.lower()


def _split_domain(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and _reads_as_domain(first):
        # docker's old name of its registry.
        domain, path = DEFAULT_DOMAIN if first == "index.docker.io" else first, rest
    else:
        domain, path = DEFAULT_DOMAIN, name
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"{DEFAULT_NAMESPACE}/{path}"
    return domain, path


def _invalid(text: str, reason: str) -> InvalidReferenceError:
    return InvalidReferenceError(f"invalid image reference {text!r}: {reason}")
