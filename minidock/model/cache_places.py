"""Where a build's cache goes to and comes from, as ``--cache-to`` and ``--cache-from`` say it: values, no I/O.

The grammar is buildx's (docs.docker.com, "Cache storage backends"): ``type=TYPE,KEY=VALUE,...``, or an image's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import InvalidReferenceError, MountSpecError, UsageError
from minidock.model.mounts import csv_record
from minidock.model.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Sequence

LOCAL, INLINE, IMAGE = "local", "inline", "image"
MIN, MAX = "min", "max"

_REMOTE = ("registry", "gha", "s3", "azblob")
_TRUE, _FALSE = ("true", "1"), ("false", "0")
_TO_HINT = "the form is type=local,dest=DIR[,mode=min|max][,ignore-error=true|false], or type=inline"
_FROM_HINT = "the form is type=local,src=DIR, or the name of an image of this host"


class CacheTo(NamedTuple):
    """One destination: ``kind`` is "local" (``path`` is the folder) or "inline" (the image itself). ``whole`` asks for
    the steps of all stages, not only those whose layers the image has; with ``strict`` a cache that cannot be written
    fails the build."""

    kind: str
    path: str = ""
    whole: bool = False
    strict: bool = False


class CacheFrom(NamedTuple):
    """One source: ``kind`` is "local" (``place`` is a folder) or "image" (``place`` is its name)."""

    kind: str
    place: str


def parse_cache_to(text: str) -> CacheTo:
    """Read one ``--cache-to``. Raises UsageError, naming the text."""
    kind, values = _fields("--cache-to", text, _TO_HINT)
    keys = {LOCAL: ("dest", "mode", "ignore-error", "compression"), INLINE: ("mode", "ignore-error")}
    _check("--cache-to", text, kind, values, keys, hint=_TO_HINT)
    mode, ignored = values.get("mode", MIN), values.get("ignore-error", "")
    if mode not in (MIN, MAX):
        raise UsageError(f"invalid --cache-to {text!r}: there is no mode {mode!r}", hint="it is min or max")
    if ignored not in ("", *_TRUE, *_FALSE):
        raise UsageError(f"invalid --cache-to {text!r}: ignore-error is true or false")
    if values.get("compression", "uncompressed") != "uncompressed":
        raise UsageError(f"invalid --cache-to {text!r}: layers are written uncompressed", hint="leave compression out")
    if kind == INLINE and mode == MAX:
        raise UsageError(
            f"invalid --cache-to {text!r}: an image keeps the steps of its own layers only",
            hint="use type=local,dest=DIR,mode=max for those of all stages",
        )
    if kind == LOCAL and not values.get("dest"):
        raise UsageError(f"invalid --cache-to {text!r}: it has no folder", hint="give dest=DIR")
    return CacheTo(kind, values.get("dest", ""), mode == MAX, ignored in _FALSE)


def parse_cache_from(text: str) -> CacheFrom:
    """Read one ``--cache-from``. Raises UsageError, naming the text."""
    if "=" not in text and "," not in text:
        try:
            parse_reference(text)
        except InvalidReferenceError as error:
            raise UsageError(f"invalid --cache-from {text!r}: {error.message}", hint=_FROM_HINT) from None
        return CacheFrom(IMAGE, text)
    kind, values = _fields("--cache-from", text, _FROM_HINT)
    if kind == INLINE:
        raise UsageError(
            f"invalid --cache-from {text!r}: it does not say in which image", hint="give the image's name alone"
        )
    _check("--cache-from", text, kind, values, {LOCAL: ("src",)}, hint=_FROM_HINT)
    if not values.get("src"):
        raise UsageError(f"invalid --cache-from {text!r}: it has no folder", hint="give src=DIR")
    return CacheFrom(kind, values["src"])


def parse_stage_names(texts: Sequence[str]) -> tuple[str, ...]:
    """Read every ``--no-cache-filter``: names or numbers of stages, parted by commas. Raises UsageError."""
    names = [name.strip() for text in texts for name in text.split(",")]
    if not all(names):
        raise UsageError(
            f"invalid --no-cache-filter {','.join(texts)!r}: a stage's name is empty", hint="the form is STAGE,STAGE"
        )
    return tuple(dict.fromkeys(names))


def _fields(flag: str, text: str, hint: str) -> tuple[str, dict[str, str]]:
    values: dict[str, str] = {}
    try:
        fields = csv_record(text)
    except MountSpecError:
        raise UsageError(f"invalid {flag} {text!r}", hint=hint) from None
    if len(fields) == 1 and "=" not in fields[0]:
        # Docker's short form: the name of an image in a registry.
        return "registry", {}
    for field in fields:
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals:
            raise UsageError(f"invalid {flag} {text!r}: {field!r} has no value", hint=hint)
        if key in values:
            raise UsageError(f"invalid {flag} {text!r}: {key} stands twice", hint=hint)
        values[key] = value
    return values.pop("type", ""), values


def _check(
    flag: str, text: str, kind: str, values: dict[str, str], keys: dict[str, tuple[str, ...]], *, hint: str
) -> None:
    """Raise UsageError for a type, or a key of it, that there is not."""
    if kind in _REMOTE:
        raise UsageError(
            f"{flag} {text!r}: a cache of type={kind} is not supported: minidock keeps caches in folders and in images",
            hint=hint,
        )
    if kind not in keys:
        what = f"there is no type {kind!r}" if kind else "it has no type"
        raise UsageError(f"invalid {flag} {text!r}: {what}", hint=hint)
    for key in values:
        if key not in keys[kind]:
            raise UsageError(
                f"invalid {flag} {text!r}: type={kind} has no {key!r}", hint=f"it has {', '.join(sorted(keys[kind]))}"
            )
