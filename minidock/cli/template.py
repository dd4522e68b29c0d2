"""The part of Go's text/template that ``--format`` needs, over dicts, lists and scalars.

``{{.A.B}}``, ``{{json .}}``, pipelines, ``range``, ``if``, ``with``, ``else``, and functions. A field is a key of
a dict: nothing is ever taken from a Python object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from minidock.errors import MinidockError

_TAG = re.compile(r"\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(r"\s*(\"(?:[^\"\\]|\\.)*\"|`[^`]*`|\$(?:\.\w+)*|\.(?:\w+(?:\.\w+)*)?|-?\d+|\w+|[|()])")


class TemplateError(MinidockError):
    """A template that cannot be parsed; docker ends with status 64."""

    exit_status = 64


class Template:
    """A parsed template. ``render(value)`` gives its text; raises MinidockError for a field that is not there."""

    __slots__ = ("_nodes", "text")

    def __init__(self, text: str) -> None:
        self.text = text.replace("\\t", "\t").replace("\\n", "\n")
        self._nodes = _Parser(self.text).block(())

    def render(self, value: Any) -> str:
        return _render(self._nodes, value, value)

    def fields(self) -> list[str]:
        """The names of the top-level fields in the order in which they first appear: a table's headers."""
        names = re.findall(r"\{\{[^}]*?\.(\w+)[^}]*\}\}", self.text)
        return list(dict.fromkeys(names))


class _Parser:
    """Turns the text into nodes: a str, or a tuple of its keyword, pipeline and blocks."""

    def __init__(self, text: str) -> None:
        self.pieces = _pieces(text)
        self.ending = ""

    def block(self, endings: tuple[str, ...]) -> list[Any]:
        """Nodes up to one of ``endings``, which is left in ``ending``, or to the end of the text."""
        nodes: list[Any] = []
        self.ending = ""
        for kind, content in self.pieces:
            if kind == "text":
                nodes.append(content)
                continue
            word, _, rest = content.partition(" ")
            if word in ("end", "else"):
                if word not in endings:
                    raise TemplateError(f"template parsing error: unexpected {{{{{content}}}}}")
                self.ending = content
                return nodes
            if word in ("if", "range", "with"):
                nodes.append(self._branches(word, rest))
            elif not content.startswith("/*"):
                nodes.append(("print", _pipeline(content)))
        if endings:
            raise TemplateError("template parsing error: unexpected end of the template, an {{end}} is missing")
        return nodes

    def _branches(self, word: str, condition: str) -> tuple[str, Any, list[Any], list[Any]]:
        pipeline = _pipeline(condition)
        body = self.block(("end", "else"))
        otherwise: list[Any] = []
        if self.ending.startswith("else if "):
            otherwise = [self._branches("if", self.ending.removeprefix("else if "))]
        elif self.ending == "else":
            otherwise = self.block(("end",))
        return word, pipeline, body, otherwise


def _pieces(text: str) -> Any:
    position = 0
    trim = False
    for match in _TAG.finditer(text):
        before = text[position : match.start()]
        before = before.lstrip() if trim else before
        yield "text", _closed(before.rstrip() if match[1] else before)
        yield "tag", match[2]
        position, trim = match.end(), bool(match[3])
    yield "text", _closed(text[position:].lstrip() if trim else text[position:])


def _closed(text: str) -> str:
    if "{{" in text:
        raise TemplateError(f"template parsing error: unclosed action in {text!r}")
    return text


def _pipeline(text: str) -> list[list[Any]]:
    """The commands of a pipeline, each a list of words; a word in parentheses is a pipeline itself."""
    tokens: list[str] = []
    position = 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if not match:
            raise TemplateError(f"template parsing error: unexpected {text[position:].strip()!r}")
        tokens.append(match[1])
        position = match.end()
    commands = _commands(tokens)
    if tokens:
        raise TemplateError(f"template parsing error: unexpected {tokens[0]!r} in {text!r}")
    if not all(commands):
        raise TemplateError("template parsing error: missing value for command")
    return commands


def _commands(tokens: list[str]) -> list[list[Any]]:
    commands: list[list[Any]] = [[]]
    while tokens and tokens[0] != ")":
        token = tokens.pop(0)
        if token == "|":
            commands.append([])
        elif token == "(":
            commands[-1].append(_commands(tokens))
            if not tokens:
                raise TemplateError("template parsing error: unclosed left paren")
            tokens.pop(0)
        else:
            if token[0].isalpha() and token not in ("true", "false", "nil") and token not in FUNCTIONS:
                raise TemplateError(f"template parsing error: function {token!r} not defined")
            commands[-1].append(token)
    return commands


def _render(nodes: list[Any], dot: Any, root: Any) -> str:
    parts: list[str] = []
    for node in nodes:
        if isinstance(node, str):
            parts.append(node)
        elif node[0] == "print":
            parts.append(_text(_evaluate(node[1], dot, root)))
        else:
            word, pipeline, body, otherwise = node
            value = _evaluate(pipeline, dot, root)
            if not value:
                parts.append(_render(otherwise, dot, root))
            elif word == "range":
                items = [value[key] for key in sorted(value)] if isinstance(value, dict) else value
                parts.extend(_render(body, item, root) for item in items)
            else:
                parts.append(_render(body, value if word == "with" else dot, root))
    return "".join(parts)


def _evaluate(pipeline: list[list[Any]], dot: Any, root: Any) -> Any:
    value: Any = None
    for index, command in enumerate(pipeline):
        piped = [value] if index else []
        head = command[0]
        if isinstance(head, str) and head in FUNCTIONS:
            arguments = [_word(word, dot, root) for word in command[1:]] + piped
            value = _call(head, arguments)
        elif len(command) > 1 or piped:
            raise MinidockError(f"template error: {head} is not a function")
        else:
            value = _word(head, dot, root)
    return value


def _word(word: Any, dot: Any, root: Any) -> Any:
    if isinstance(word, list):
        return _evaluate(word, dot, root)
    if word[0] in '"`':
        return word[1:-1] if word[0] == "`" else json.loads(word)
    if word[0] in ".$":
        return _field(root if word[0] == "$" else dot, [name for name in word.lstrip("$").split(".") if name])
    return {"true": True, "false": False, "nil": None}[word] if word.isalpha() else int(word)


def _field(value: Any, names: list[str]) -> Any:
    for name in names:
        if not isinstance(value, dict) or name not in value:
            known = f"the fields are {', '.join(map(str, value))}" if isinstance(value, dict) else ""
            raise MinidockError(f"template error: there is no field .{name}", hint=known)
        value = value[name]
    return value


def _call(name: str, arguments: list[Any]) -> Any:
    try:
        return FUNCTIONS[name](*arguments)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise MinidockError(f"template error: error calling {name}: {error}") from None


def _text(value: Any) -> str:
    """A value as Go prints it with ``%v``."""
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_text(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(_text(item) for item in value) + "]"
    return str(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key, "") if isinstance(value, dict) else value[key]
    return value


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": lambda value: json.dumps(value, ensure_ascii=False),
    "join": lambda items, separator: separator.join(map(_text, items)),
    "split": lambda text, separator: text.split(separator),
    "lower": lambda text: _text(text).lower(),
    "upper": lambda text: _text(text).upper(),
    "title": lambda text: _text(text).title(),
    "pad": lambda text, before, after: " " * before + _text(text) + " " * after,
    "truncate": lambda text, width: _text(text)[:width],
    "println": lambda *values: " ".join(map(_text, values)) + "\n",
    "print": lambda *values: "".join(map(_text, values)),
    "len": len,
    "index": _index,
    "eq": lambda first, *others: first in others,
    "ne": lambda first, second: first != second,
    "not": lambda value: not value,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
}
