"""The part of Go's text/template that ``--format`` needs, over dicts, lists and scalars.

``{{.A.B}}``, ``{{json .}}``, pipelines, variables, ``range``, ``if``, ``with``, ``else``, and functions. A field is a
key of a dict: nothing is ever taken from a Python object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from minidock.cli.text import json_text
from minidock.errors import MinidockError

_TAG = re.compile(r"\{\{(-\s)?\s*(.*?)\s*(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(r"\s*(\"(?:[^\"\\]|\\.)*\"|`[^`]*`|\$\w*(?:\.\w+)*|\.(?:\w+(?:\.\w+)*)?|-?\d+|\w+|[|()])")


_ASSIGNED = re.compile(r"\$(\w+)(?:\s*,\s*\$(\w+))?\s*:?=\s*(.*)", re.DOTALL)
_VERB = re.compile(r"%([-+# 0]*)(\d*)(?:\.(\d+))?([sdvqtfxT%])")

# Objects whose keys are the user's own: one that is not there has no value, which is no mistake in the template.
_OPEN = frozenset({"Annotations", "Labels", "Networks", "Options", "Ports", "Tmpfs", "Volumes"})


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
        return _render(self._nodes, value, {"": value})

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
                names, pipeline = _assigned(content)
                if len(names) > 1:
                    raise TemplateError(f"template parsing error: too many declarations in {content!r}")
                nodes.append(("set", names[0], pipeline) if names else ("print", pipeline))
        if endings:
            raise TemplateError("template parsing error: unexpected end of the template, an {{end}} is missing")
        return nodes

    def _branches(self, word: str, condition: str) -> tuple[str, list[str], Any, list[Any], list[Any]]:
        names, pipeline = _assigned(condition)
        if len(names) > 1 and word != "range":
            raise TemplateError(f"template parsing error: too many declarations in {word}")
        body = self.block(("end", "else"))
        otherwise: list[Any] = []
        if self.ending.startswith("else if "):
            otherwise = [self._branches("if", self.ending.removeprefix("else if "))]
        elif self.ending == "else":
            otherwise = self.block(("end",))
        return word, names, pipeline, body, otherwise


def _assigned(text: str) -> tuple[list[str], list[list[Any]]]:
    """The variables that an action sets, none, one or two, and its pipeline."""
    match = _ASSIGNED.fullmatch(text)
    if not match:
        return [], _pipeline(text)
    return [name for name in match.group(1, 2) if name], _pipeline(match[3])


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
            if token[0] == '"':
                _unquoted(token)
            commands[-1].append(token)
    return commands


def _render(nodes: list[Any], dot: Any, scope: dict[str, Any]) -> str:
    """The text of nodes; ``scope`` holds the variables by name, the whole value under the empty one."""
    parts: list[str] = []
    for node in nodes:
        if isinstance(node, str):
            parts.append(node)
        elif node[0] == "print":
            parts.append(_text(_evaluate(node[1], dot, scope)))
        elif node[0] == "set":
            scope[node[1]] = _evaluate(node[2], dot, scope)
        else:
            parts.append(_render_branch(node, dot, dict(scope)))
    return "".join(parts)


def _render_branch(node: tuple[Any, ...], dot: Any, scope: dict[str, Any]) -> str:
    word, names, pipeline, body, otherwise = node
    value = _evaluate(pipeline, dot, scope)
    if names and word != "range":
        scope[names[0]] = value
    if not value:
        return _render(otherwise, dot, scope)
    if word != "range":
        return _render(body, value if word == "with" else dot, scope)
    if isinstance(value, dict):
        items = [(key, value[key]) for key in sorted(value)]
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    else:
        raise MinidockError(f"template error: range can't iterate over {_text(value)}")
    # One variable is the item, two are its key or place and itself.
    return "".join(
        _render(body, item, scope | dict(zip(reversed(names), (item, key), strict=False))) for key, item in items
    )


def _evaluate(pipeline: list[list[Any]], dot: Any, scope: dict[str, Any]) -> Any:
    value: Any = None
    for index, command in enumerate(pipeline):
        piped = [value] if index else []
        head = command[0]
        if isinstance(head, str) and head in FUNCTIONS:
            arguments = [_word(word, dot, scope) for word in command[1:]] + piped
            value = _call(head, arguments)
        elif len(command) > 1 or piped:
            raise MinidockError(f"template error: {head} is not a function")
        else:
            value = _word(head, dot, scope)
    return value


def _word(word: Any, dot: Any, scope: dict[str, Any]) -> Any:
    if isinstance(word, list):
        return _evaluate(word, dot, scope)
    if word[0] in '"`':
        return word[1:-1] if word[0] == "`" else _unquoted(word)
    if word[0] == ".":
        return _field(dot, [name for name in word.split(".") if name])
    if word[0] == "$":
        name, *names = word[1:].split(".")
        if name not in scope:
            raise TemplateError(f"template parsing error: undefined variable '${name}'")
        return _field(scope[name], [part for part in names if part])
    return {"true": True, "false": False, "nil": None}[word] if word.isalpha() else int(word)


def _unquoted(word: str) -> Any:
    try:
        return json.loads(word, strict=False)
    except ValueError:
        raise TemplateError(f"template parsing error: invalid text {word}") from None


def _field(value: Any, names: list[str]) -> Any:
    above = ""
    for name in names:
        if not isinstance(value, dict) or name not in value:
            if above in _OPEN:
                return None
            known = f"the fields are {', '.join(map(str, value))}" if isinstance(value, dict) else ""
            raise MinidockError(f"template error: there is no field .{name}", hint=known)
        value, above = value[name], name
    return value


def _call(name: str, arguments: list[Any]) -> Any:
    try:
        return FUNCTIONS[name](*arguments)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        reason = "wrong number of arguments" if "required positional" in str(error) else str(error)
        raise MinidockError(f"template error: error calling {name}: {reason}") from None


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


def _printf(form: str, values: tuple[Any, ...]) -> str:
    """Go's ``printf`` for texts, whole numbers and truth values."""
    left = iter(values)

    def verb(match: re.Match[str]) -> str:
        flags, width, precision, kind = match.groups()
        if kind == "%":
            return "%"
        value = next(left)
        if kind in "dxf":
            return str(f"%{flags}{width}{'.' + precision if precision else ''}{kind}" % value)
        text = json_text(value) if kind == "q" else _text(value)
        text = text[: int(precision)] if precision else text
        return text.ljust(int(width or 0)) if "-" in flags else text.rjust(int(width or 0))

    try:
        return _VERB.sub(verb, form)
    except (RuntimeError, StopIteration):
        raise ValueError("there are fewer values than verbs") from None


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if value is None:
            return ""
        value = value.get(key, "") if isinstance(value, dict) else value[key]
    return value


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": json_text,
    "join": lambda items, separator: separator.join(map(_text, items)),
    "split": lambda text, separator: text.split(separator),
    "lower": lambda text: _text(text).lower(),
    "upper": lambda text: _text(text).upper(),
    "title": lambda text: _text(text).title(),
    "pad": lambda text, before, after: " " * before + _text(text) + " " * after,
    "truncate": lambda text, width: _text(text)[:width],
    "println": lambda *values: " ".join(map(_text, values)) + "\n",
    "print": lambda *values: "".join(map(_text, values)),
    "printf": lambda form, *values: _printf(form, values),
    "slice": lambda value, *bounds: value[slice(*bounds) if len(bounds) > 1 else slice(bounds[0], None)],
    "len": len,
    "index": _index,
    "eq": lambda first, *others: first in others,
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "not": lambda value: not value,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
}
