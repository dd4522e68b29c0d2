"""Where a build's result goes, as ``--output`` says it, and annotations, as ``--annotation`` says them: values.

The grammar is buildx's (docs.docker.com, "Exporters overview"): ``type=TYPE,KEY=VALUE,...``, or a path alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import InvalidReferenceError, UsageError
from minidock.model.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE, LOCAL, TAR, OCI, DOCKER = "image", "local", "tar", "oci", "docker"
STDOUT = "-"

_KEYS = {
    IMAGE: {"name", "push"},
    LOCAL: {"dest"},
    TAR: {"dest"},
    OCI: {"dest", "name", "tar"},
    DOCKER: {"dest", "name", "tar"},
}
_HINT = "the form is type=local|tar|oci|docker|image[,dest=PATH][,name=NAME], or a folder, or - for a tar archive"
_ANNOTATION_HINT = "the form is [manifest:|index:]KEY=VALUE"


class Output(NamedTuple):
    """One output: ``kind`` is one of the five types; ``dest`` a path or ``-`` (standard output), empty for an image in
    the store; ``names`` the image names that it alone has, besides the build's tags."""

    kind: str
    dest: str = ""
    names: tuple[str, ...] = ()


class Annotations(NamedTuple):
    """Annotations as sorted pairs, of the image's manifest and of the index of an OCI archive."""

    of_manifest: tuple[tuple[str, str], ...] = ()
    of_index: tuple[tuple[str, str], ...] = ()


def parse_output(text: str) -> Output:
    """Read one ``--output``. Raises UsageError, naming the text."""
    fields = _fields(text)
    if len(fields) == 1 and "=" not in fields[0]:
        if not fields[0]:
            raise UsageError("an output is empty", hint=_HINT)
        return Output(TAR, STDOUT) if fields[0] == STDOUT else Output(LOCAL, fields[0])
    values: dict[str, str] = {}
    for field in fields:
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals:
            raise UsageError(f"invalid output {text!r}: {field!r} has no value", hint=_HINT)
        values[key] = value
    kind = values.pop("type", "")
    if kind == "registry":
        kind, values["push"] = IMAGE, "true"
    if kind not in _KEYS:
        what = f"there is no type {kind!r}" if kind else "it has no type"
        raise UsageError(f"invalid output {text!r}: {what}", hint=_HINT)
    for key in values:
        if key not in _KEYS[kind]:
            raise UsageError(
                f"invalid output {text!r}: type={kind} has no {key!r}", hint=f"it has {', '.join(sorted(_KEYS[kind]))}"
            )
    return _output(text, kind, values)


def parse_outputs(texts: Sequence[str]) -> tuple[Output, ...]:
    """Read every ``--output``. Raises UsageError also where two of them have one destination."""
    outputs = tuple(parse_output(text) for text in texts)
    seen: set[str] = set()
    for output in outputs:
        if output.dest and output.dest in seen:
            where = "standard output" if output.dest == STDOUT else output.dest
            raise UsageError(f"two outputs go to {where}", hint="give each a destination of its own")
        seen.add(output.dest)
    return outputs


def parse_annotations(texts: Sequence[str]) -> Annotations:
    """Read every ``--annotation``: ``[manifest:|index:][,...]KEY=VALUE``. Raises UsageError, naming the text."""
    found: dict[str, dict[str, str]] = {"manifest": {}, "index": {}}
    for text in texts:
        key, equals, value = text.partition("=")
        kinds, colon, rest = key.partition(":")
        levels = kinds.split(",") if colon else ["manifest"]
        key = rest if colon else key
        if not equals or not key:
            raise UsageError(f"invalid annotation {text!r}", hint=_ANNOTATION_HINT)
        for level in levels:
            if level not in found:
                raise UsageError(f"invalid annotation {text!r}: there is no level {level!r}", hint=_ANNOTATION_HINT)
            found[level][key] = value
    return Annotations(tuple(sorted(found["manifest"].items())), tuple(sorted(found["index"].items())))


def _output(text: str, kind: str, values: dict[str, str]) -> Output:
    for key in ("push", "tar"):
        if values.get(key, "true") not in {"true", "false", "1", "0"}:
            raise UsageError(f"invalid output {text!r}: {key} is true or false")
    if values.get("push", "false") in {"true", "1"}:
        raise UsageError("an image cannot be pushed by an output", hint="build it, then `minidock push NAME`")
    if values.get("tar", "true") in {"false", "0"}:
        raise UsageError(f"invalid output {text!r}: only an archive can be written", hint="leave out tar=false")
    dest = values.get("dest", "")
    if kind == LOCAL and dest in {"", STDOUT}:
        raise UsageError(f"invalid output {text!r}: it has no folder", hint="give dest=DIR")
    if kind in {TAR, OCI} and not dest:
        dest = STDOUT
    names = tuple(name for name in values.get("name", "").split(",") if name)
    for name in names:
        try:
            parse_reference(name)
        except InvalidReferenceError as error:
            raise UsageError(f"invalid output {text!r}: {error.message}") from None
    if kind == DOCKER and not dest:
        # docker's own store is where its build puts an image of this type: here it is the store.
        kind = IMAGE
    return Output(kind, dest, names)


def _fields(text: str) -> list[str]:
    """The fields of a line of comma-separated values, where quotes keep a comma: ``type=image,"name=a,b"``."""
    fields, field, quoted = [], "", False
    for char in text:
        if char == '"':
            quoted = not quoted
        elif char == "," and not quoted:
            fields.append(field)
            field = ""
        else:
            field += char
    if quoted:
        raise UsageError(f"invalid output {text!r}: a quote is not closed", hint=_HINT)
    return [*fields, field]
