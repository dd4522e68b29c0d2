"""Why a step is not taken from the cache: the inputs that are others than the last time, each in a phrase.

A step is compared with the record of the step that is most like it (``precedents``). What its key was made of then is
in the record, what was copied in the listing beside it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from minidock.build.file_changes import Layer, Source, changes, short
from minidock.build.listings import Listings
from minidock.build.precedents import Precedents
from minidock.store.blobs import Blobs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from minidock.build.cache import Key
    from minidock.build.precedents import Precedent
    from minidock.store.layout import DataRoot

NEW = "nothing like it was built before"
UNUSED = "the cache is not used for its stage"
_MOST = 20
_LONGEST = 72
_CALLED = {
    "chmod": "--chmod",
    "chown": "--chown",
    "destination": "the destination",
    "devices": "--device",
    "epoch": "SOURCE_DATE_EPOCH",
    "exclude": "--exclude",
    "hosts": "the names of --add-host",
    "instruction": "the instruction",
    "link": "--link",
    "network": "the network",
    "parents": "--parents",
    "path": "the directory",
    "platform": "the platform",
    "security": "--security",
    "shm_size": "--shm-size",
    "ulimits": "--ulimit",
    "unpack": "--unpack",
    "user": "the user",
    "workdir": "the working directory",
}
# Of these it is told otherwise, or they say what others say better.
_APART = ("args", "below", "env", "files", "heredocs", "mounts", "paths", "remote", "source")


class Explainer:
    """Explains the misses of builds in one data root."""

    __slots__ = ("_blobs", "_listings", "precedents")

    def __init__(self, root: DataRoot) -> None:
        self._blobs = Blobs(root)
        self._listings = Listings(root)
        self.precedents = Precedents(root)

    def reasons(self, key: Key, titles: Sequence[str], *, missed: Sequence[str], anew: bool = False) -> list[str]:
        """Why a step, whose key is not in the cache, has to run; ``anew`` says that the cache was not to be asked.

        ``key`` is the last of the step's, with its place in ``about``; ``titles`` are those of all steps of the stage,
        ``missed`` what the progress calls those before this one that were not in the cache. Raises MinidockError,
        OSError.
        """
        if anew:
            return [UNUSED]
        if self.precedents.get(key.digest) is not None:
            return ["its layer is not in the store any more"]
        old = self.precedents.nearest(key, titles)
        if old is None:
            return [NEW]
        found = [*self._below(key, old, titles, missed), *self._inputs(key, old)]
        if len(found) > _MOST:
            found[_MOST:] = [f"and {len(found) - _MOST} more"]
        return found or ["its key is made in another way than the last time"]

    def _inputs(self, key: Key, old: Precedent) -> Iterator[str]:
        """What differs in the inputs, but for the layers beneath."""
        now, then = key.inputs, old.inputs
        yield from _command(then.get("args") or [], now.get("args") or [])
        yield from _variables(key, old)
        apart = {*_APART, *(("epoch",) if "env" in now else ())}
        if now.get("instruction") != then.get("instruction"):
            apart.add("unpack")
        for name in sorted({*now, *then}.difference(apart)):
            if now.get(name) != then.get(name):
                called = _CALLED.get(name, name)
                yield f"{called} was {_value(name, then.get(name))}, is {_value(name, now.get(name))}"
        yield from _named("heredoc", then.get("heredocs") or [], now.get("heredocs") or [])
        if "files" in now and now["files"] != then.get("files"):
            layer = Layer(self._blobs, old.diff_id, str(then.get("destination", "")))
            yield from self._files(then.get("files"), now["files"], key, layer)
        yield from self._remote(key, old)
        yield from self._mounts(key, old)

    def _files(self, then: Any, now: Any, key: Key, layer: Layer) -> Iterator[str]:
        if not isinstance(then, list):
            yield "what it copies was not kept the last time"
            return
        yield from changes(
            [Source(*source) for source in then],
            [Source(*source) for source in now],
            copied=key.copied,
            listings=self._listings,
            layer=layer,
        )

    def _remote(self, key: Key, old: Precedent) -> Iterator[str]:
        """What differs in the sources of an ADD, some of which are of elsewhere."""
        then, now = old.inputs.get("remote") or [], key.inputs.get("remote") or []
        for number in range(max(len(then), len(now))):
            was, is_ = (sources[number] if number < len(sources) else None for sources in (then, now))
            if was == is_:
                continue
            if was is None or is_ is None or was[0] != is_[0]:
                yield f"the source {number + 1} is {'gone' if is_ is None else 'another' if was else 'new'}"
            elif is_[0] == "files":
                layer = Layer(self._blobs, old.diff_id, str(old.inputs.get("destination", "")))
                yield from self._files(was[1:], is_[1:], key, layer)
            elif is_[0] == "git" and was[1] != is_[1]:
                yield f"the commit of the source {number + 1} was {was[1][:12]}, is {is_[1][:12]}"
            elif is_[0] == "http" and was[1] == is_[1]:
                yield f"what the source {number + 1} holds was {short(was[2])}, is {short(is_[2])}"
            else:
                yield f"the source {number + 1} was {_cut(json.dumps(was[1:]))}, is {_cut(json.dumps(is_[1:]))}"

    def _mounts(self, key: Key, old: Precedent) -> Iterator[str]:
        """What differs in the mounts of a RUN."""
        then, now = (_by_target(inputs.get("mounts") or []) for inputs in (old.inputs, key.inputs))
        for target in [*now, *(target for target in then if target not in now)]:
            was, mount = then.get(target), now.get(target)
            if was is None or mount is None:
                yield f"the mount {target} is {'gone' if mount is None else 'new'}"
                continue
            for name in sorted({*was, *mount}):
                if was.get(name) == mount.get(name):
                    continue
                if name == "files" and "files" in was and "files" in mount:
                    yield from self._bound(target, str(was["files"]), str(mount["files"]), key)
                elif name in ("layers", "content", "files"):
                    yield f"what the mount {target} shows changed"
                else:
                    yield f"{name} of the mount {target} was {_value(name, was.get(name))}, is " + _value(
                        name, mount.get(name)
                    )

    def _bound(self, target: str, then: str, now: str, key: Key) -> Iterator[str]:
        layer = Layer(self._blobs, self.precedents.context_layer(then), "")
        sources = ([Source("", True, digest)] for digest in (then, now))
        for phrase in changes(*sources, copied=key.copied, listings=self._listings, layer=layer):
            yield f"the mount {target}: {phrase}"

    def _below(self, key: Key, old: Precedent, titles: Sequence[str], missed: Sequence[str]) -> Iterator[str]:
        """Why the layers beneath are others."""
        if key.inputs.get("below") == old.inputs.get("below"):
            return
        base, then = key.about.get("base"), old.about.get("base")
        if missed:
            yield f"below it, {missed[-1]} is made anew"
        elif base != then and isinstance(then, list) and base is not None:
            yield f"the base was {_base(then)}, is {_base(base)}"
        else:
            yield from self._lines_before(old, titles[: key.about["own"] - 1])

    def _lines_before(self, old: Precedent, now: Sequence[str]) -> Iterator[str]:
        """What the steps before this one, called ``now``, differ in from those of then."""
        then: list[str] = []
        before = str(old.about.get("before", ""))
        while record := self.precedents.get(before):
            then.append(str(record.about.get("title", "")))
            before = str(record.about.get("before", "")) if len(then) < len(self.precedents) else ""
        for title in then:
            if title not in now:
                yield f"below it, {title} is gone"
        for title in now:
            if title not in then:
                yield f"below it, {title} is new"
        if sorted(then) == sorted(now):
            yield "below it, the steps come in another order, or made other layers"


def _command(then: Sequence[str], now: Sequence[str]) -> Iterator[str]:
    """What differs in a command: what runs it, or its text."""
    if list(then) == list(now):
        return
    same_shell, same_text = then[:-1] == now[:-1], then[-1:] == now[-1:]
    if same_text and not same_shell:
        yield f"the shell was {_cut(json.dumps(then[:-1]))}, is {_cut(json.dumps(now[:-1]))}"
        return
    was, text = (words[-1] if same_shell else " ".join(words) for words in (then, now))
    lines, others = was.split("\n"), text.split("\n")
    if len(lines) == len(others) == 1:
        yield f"the command was {_quoted(was)}, is {_quoted(text)}"
        return
    count = max(len(lines), len(others))
    lines, others = (found + [""] * (count - len(found)) for found in (lines, others))
    number = next(n for n in range(count) if lines[n] != others[n])
    yield f"line {number + 1} of the command was {_quoted(lines[number])}, is {_quoted(others[number])}"


def _variables(key: Key, old: Precedent) -> Iterator[str]:
    """What differs in the environment, by ARG and ENV."""
    then, now = (
        dict(text.partition("=")[::2] for text in inputs.get("env") or []) for inputs in (old.inputs, key.inputs)
    )
    arguments = {*(key.about.get("arguments") or ()), *(old.about.get("arguments") or ())}
    for name in sorted({*then, *now}):
        if then.get(name) == now.get(name):
            continue
        word = "ARG" if name in arguments else "ENV"
        if name not in then:
            yield f"{word} {name} is new: {_quoted(now[name])}"
        elif name not in now:
            yield f"{word} {name} is gone, was {_quoted(then[name])}"
        else:
            yield f"{word} {name} was {_quoted(then[name])}, is {_quoted(now[name])}"


def _named(word: str, then: Sequence[tuple[str, str]], now: Sequence[tuple[str, str]]) -> Iterator[str]:
    """What differs in things that have a name and a digest."""
    before, after = (dict(pairs) for pairs in (then, now))
    for name in [*after, *(name for name in before if name not in after)]:
        if before.get(name) == after.get(name):
            continue
        if name in before and name in after:
            yield f"the {word} {name} was {short(before[name])}, is {short(after[name])}"
        else:
            yield f"the {word} {name} is {'gone' if name in before else 'new'}"


def _by_target(mounts: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Mounts by where they are, or what else tells them apart."""
    return {str(mount.get("target") or mount.get("name") or mount.get("env") or mount): mount for mount in mounts}


def _base(base: Sequence[str]) -> str:
    reference, chain = base
    return f"{reference} ({short(chain)})" if chain else reference


def _value(name: str, value: Any) -> str:
    if value is None or (value == "" and _CALLED.get(name, "").startswith("--")):
        return "not given"
    if name == "chmod" and isinstance(value, int):
        return f"{value:04o}"
    return _quoted(value) if isinstance(value, str) else _cut(json.dumps(value))


def _quoted(text: str) -> str:
    return f"'{_cut(text)}'"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
