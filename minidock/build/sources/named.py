"""``--build-context NAME=WHERE`` as text."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from minidock.build.sources.remote import is_remote
from minidock.errors import InvalidReferenceError, UsageError
from minidock.model.reference import DEFAULT_TAG, parse_reference

if TYPE_CHECKING:
    from collections.abc import Iterable

DIRECTORY = "directory"
IMAGE = "docker-image"
LAYOUT = "oci-layout"
URL = "url"
_FORMS = "NAME=DIRECTORY, NAME=docker-image://IMAGE, NAME=oci-layout://PATH or NAME=URL"


class Where(NamedTuple):
    """What a named context is: a directory, an image, a layout's path or an URL, by ``kind``; ``text`` is as given."""

    kind: str
    value: str
    text: str


def context_name(text: str) -> str:
    """The name under which a context is known: an image's familiar name without ``:latest``. So ``alpine``,
    ``alpine:latest`` and ``docker.io/library/alpine`` are one. Empty for what can be no name of a context."""
    try:
        found = parse_reference(text.lower() if text.isascii() else text).familiar()
    except InvalidReferenceError:
        return ""
    return found.removesuffix(f":{DEFAULT_TAG}")


def parse_contexts(texts: Iterable[str]) -> dict[str, Where]:
    """The named contexts by ``context_name``; of two with one name the last counts.

    Raises UsageError for what is none, and for a directory that is not there.
    """
    found: dict[str, Where] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        key = context_name(name)
        if not equals or not value or not key:
            what = f"{name!r} is no name of a context" if equals and value else f"{text!r} is no named context"
            raise UsageError(f"invalid --build-context: {what}", hint=f"the form is {_FORMS}")
        if key == "scratch":
            raise UsageError("invalid --build-context: 'scratch' always is the empty image")
        found[key] = _where(value)
    return found


def _where(value: str) -> Where:
    for kind in (IMAGE, LAYOUT):
        if value.startswith(f"{kind}://"):
            rest = value.removeprefix(f"{kind}://")
            if kind == IMAGE:
                _check_image(rest)
            return Where(kind, rest, value)
    if not os.path.isdir(value) and is_remote(value):
        return Where(URL, value, value)
    if not os.path.isdir(value):
        raise UsageError(f"invalid --build-context: there is no directory {value!r}", hint=f"the form is {_FORMS}")
    return Where(DIRECTORY, value, value)


def _check_image(text: str) -> None:
    try:
        parse_reference(text)
    except InvalidReferenceError as error:
        raise UsageError(f"invalid --build-context: {error.message}") from None
