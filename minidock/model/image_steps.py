"""The steps of an image, as its history tells them, and the image as it was before the last of them.

A step is a line of ``history``. What the lines that are left out have set in the configuration is undone: the text of
the remaining ones (docker's, BuildKit's and minidock's own forms) tells what was there before. What they do not tell is
left out rather than guessed.
"""

from __future__ import annotations

import json
import posixpath
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock.errors import InvalidReferenceError
from minidock.model.oci import History, ImageConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

# What stands for the image before the last step: app~1.
MARK = "~"
_MOST_DIGITS = 9
# docker's classic builder wrote so what was no command of a shell.
_NO_COMMAND = "#(nop)"
_BUILDKIT = " # buildkit"
_PORT = re.compile(r"(\d+)(?:/(\w+))?")
_TEXTS = {"USER": "User", "STOPSIGNAL": "StopSignal"}
_SETS = {"EXPOSE": "ExposedPorts", "VOLUME": "Volumes"}
_WORDS = frozenset(
    [
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ]
)


class _Line(NamedTuple):
    """An instruction of the history that says something about the configuration, and the rest of its line."""

    word: str
    rest: str


def split_step(text: str) -> tuple[str, int]:
    """``app~2`` as ``("app", 2)``; ``app~`` means ``app~1``. Raises InvalidReferenceError where no number follows."""
    name, _, number = text.rpartition(MARK)
    if not name or not (number == "" or (number.isascii() and number.isdecimal())):
        raise InvalidReferenceError(
            f"invalid image reference {text!r}: a number of steps has to follow '{MARK}'",
            hint="IMAGE~2 is the image two steps before its end; see `minidock history IMAGE`",
        )
    # Longer ones than any history has need not be exact.
    return name, int(number[:_MOST_DIGITS] or 1)


def steps_of(config: ImageConfig) -> list[History]:
    """The steps, the first one first. Layers of which the history says nothing, as another maker's may, are the last
    ones."""
    steps = list(config.history)
    untold = len(config.diff_ids) - sum(not step.empty_layer for step in steps)
    return steps + [History(created=config.created)] * untold


def image_before(config: ImageConfig, count: int) -> ImageConfig:
    """The configuration as it was before the last ``count`` steps, of which there are so many: its layers, history and
    what the steps have set."""
    steps = steps_of(config)
    kept, gone = steps[: len(steps) - count], steps[len(steps) - count :]
    found = config.copy()
    found.raw["rootfs"]["diff_ids"] = found.raw["rootfs"]["diff_ids"][: sum(not step.empty_layer for step in kept)]
    found.raw["history"] = _history(config, kept)
    if not count:
        return found
    created = next((step.created for step in reversed(kept) if step.created), "")
    if created:
        found.raw["created"] = created
    _undo(found, _lines(kept), _lines(gone))
    return found


def _history(config: ImageConfig, kept: Sequence[History]) -> list[dict[str, Any]]:
    """The lines as they are, one for each layer and no more of those."""
    entries = [dict(entry) for entry in (config.raw.get("history") or [])[: len(kept)]]
    entries += [step.to_json() for step in kept[len(entries) :]]
    layers = len(config.diff_ids)
    for entry in entries:
        if not entry.get("empty_layer"):
            layers -= 1
            if layers < 0:
                entry["empty_layer"] = True
    return entries


def _lines(steps: Iterable[History]) -> list[_Line]:
    found = (_line(step.created_by) for step in steps)
    return [line for line in found if line is not None]


def _line(created_by: str) -> _Line | None:
    text = created_by.lstrip()
    if text.partition(" ")[0].isupper():
        text = text.removesuffix(_BUILDKIT)
    else:
        _, classic, text = text.partition(_NO_COMMAND)
        if not classic:
            return None
    word, _, rest = text.lstrip().partition(" ")
    # A value of ENV may end with blanks.
    return _Line(word, rest if word in ("ENV", "LABEL") else rest.strip()) if word in _WORDS else None


def _undo(image: ImageConfig, kept: Sequence[_Line], gone: Sequence[_Line]) -> None:
    """Give every field that the lines ``gone`` have set the value that the lines ``kept`` gave it."""
    config, words = image.config, {line.word for line in gone}
    # When they were set, the history does not tell.
    config.pop("OnBuild", None)
    if "MAINTAINER" in words:
        _put(image.raw, "author", _last(kept, "MAINTAINER", str))
    for word, field in _TEXTS.items():
        if word in words:
            _put(config, field, _last(kept, word, str))
    if "WORKDIR" in words:
        paths = [line.rest for line in kept if line.word == "WORKDIR"]
        _put(config, "WorkingDir", posixpath.join("/", *paths) if paths else "")
    if "SHELL" in words:
        _put(config, "Shell", _last(kept, "SHELL", _words))
    if "ENTRYPOINT" in words:
        _put(config, "Entrypoint", _last(kept, "ENTRYPOINT", _vector))
    if words & {"CMD", "ENTRYPOINT"}:
        _put(config, "Cmd", _command(kept))
    if "HEALTHCHECK" in words:
        config.pop("Healthcheck", None)
    for word, field in _SETS.items():
        if word in words:
            there = _members(kept, word)
            _put(config, field, {name: v for name, v in (config.get(field) or {}).items() if name in there})
    if "ENV" in words:
        values = dict(_pair(text) for text in config.get("Env") or [])
        _undo_pairs(values, kept, gone, "ENV")
        _put(config, "Env", [f"{name}={value}" for name, value in values.items()])
    if "LABEL" in words:
        labels = dict(config.get("Labels") or {})
        _undo_pairs(labels, kept, gone, "LABEL")
        _put(config, "Labels", labels)


def _put(target: dict[str, Any], field: str, value: Any) -> None:
    """Set a field, or take it away where there is nothing to say."""
    if value:
        target[field] = value
    else:
        target.pop(field, None)


def _last(lines: Iterable[_Line], word: str, read: Callable[[str], Any]) -> Any:
    texts = [line.rest for line in lines if line.word == word]
    return read(texts[-1]) if texts else None


def _command(lines: Iterable[_Line]) -> list[str] | None:
    """CMD; an ENTRYPOINT after it has dropped it, as it does with what is inherited."""
    command = None
    for line in lines:
        if line.word == "CMD":
            command = _vector(line.rest)
        elif line.word == "ENTRYPOINT":
            command = None
    return command


def _vector(text: str) -> list[str] | None:
    """``["a" "b"]``, with or without commas; None for anything else."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    inner, found = text[1:-1].strip(), []
    decoder = json.JSONDecoder()
    while inner:
        try:
            word, end = decoder.raw_decode(inner)
        except ValueError:
            return None
        if not isinstance(word, str):
            return None
        found.append(word)
        inner = inner[end:].lstrip(" ,")
    return found


def _words(text: str) -> list[str] | None:
    """A vector, or words in brackets: SHELL's."""
    if text.startswith('["'):
        return _vector(text)
    return text[1:-1].split() if text.startswith("[") and text.endswith("]") else None


def _members(lines: Iterable[_Line], word: str) -> set[str]:
    """The ports or paths that the lines name: ``[80/tcp]``, ``map[80/tcp:{}]``, ``["/data"]``, ``/data``."""
    texts = [line.rest for line in lines if line.word == word]
    if word == "EXPOSE":
        return {f"{port}/{protocol or 'tcp'}" for text in texts for port, protocol in _PORT.findall(text)}
    found: set[str] = set()
    for text in texts:
        found.update(_words(text) or text.split())
    return found


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _undo_pairs(values: dict[str, str], kept: Iterable[_Line], gone: Iterable[_Line], word: str) -> None:
    """Give the names that ``gone`` sets the values that ``kept`` gave them, or none."""
    names = set(values)
    before: dict[str, str] = {}
    for line in kept:
        if line.word == word:
            before.update(_pairs(line.rest, names))
    for line in gone:
        for name in _pairs(line.rest, names) if line.word == word else ():
            if name in before:
                values[name] = before[name]
            else:
                values.pop(name, None)


def _pairs(text: str, names: Collection[str]) -> dict[str, str]:
    """``A=b c D=e`` as A and D. Nothing is quoted: a value ends where the next of the image's ``names`` begins."""
    found: dict[str, str] = {}
    current = ""
    for piece in text.split(" "):
        name, equals, value = piece.partition("=")
        if equals and (name in names or not current):
            current = name
            found[name] = value
        elif current:
            found[current] += f" {piece}"
    return found
