"""Variables in a Dockerfile's words: ``$V``, ``${V}`` and its modifiers, quotes and escapes.

The rules are those of BuildKit's frontend/dockerfile/shell: ``:-`` ``-`` ``:+`` ``+`` ``:?`` ``?`` ``#`` ``##`` ``%``
``%%`` ``/`` ``//``. An unset variable is empty. Every function raises DockerfileError, without a place, for a word that
cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping

from minidock.dockerfile.shellpattern import ShellPattern
from minidock.errors import DockerfileError

_DEEPEST = 64
# So much may come of the variables of one word: the kernel takes 128 KiB as one variable (execve(2)), and lines that
# double one another would fill any memory.
_MOST = 1 << 20
_SPECIAL = frozenset("@*#?-$!0")


def expand(word: str, env: Mapping[str, str], *, escape: str = "\\") -> str:
    """``word`` with variables expanded and quotes and escapes removed."""
    return "".join(text for text, _ in _Expander(word, env, escape).pieces(""))


def expand_words(word: str, env: Mapping[str, str], *, escape: str = "\\") -> tuple[str, ...]:
    """As ``expand``, split at blanks that are neither quoted nor escaped: what a variable holds is split too."""
    words: list[str] = []
    current = ""
    for text, splits in _Expander(word, env, escape).pieces(""):
        if not splits:
            current += text
            continue
        for char in text:
            if not char.isspace():
                current += char
            elif current:
                words.append(current)
                current = ""
    return (*words, current) if current else tuple(words)


def expand_body(body: str, env: Mapping[str, str]) -> str:
    """A heredoc's body expanded: quotes are data, a backslash makes the next character data and goes."""
    return "".join(text for text, _ in _Expander(body, env, "\\", quotes=False).pieces(""))


class _Expander:
    __slots__ = ("at", "depth", "env", "escape", "quotes", "size", "text")

    def __init__(self, text: str, env: Mapping[str, str], escape: str, *, quotes: bool = True) -> None:
        self.text = text
        self.env = env
        self.escape = escape
        self.quotes = quotes
        self.at = 0
        self.depth = 0
        self.size = 0

    def pieces(self, stop: str, *, pattern: bool = False) -> list[tuple[str, bool]]:
        """Expand up to ``stop`` (consumed) or the end: texts, and whether blanks in them split words.

        ``pattern`` keeps escapes, as backslashes, for the pattern's own reading.
        """
        found: list[tuple[str, bool]] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            if stop and char == stop:
                self.at += 1
                return found
            if char == "$":
                found.append((self._dollar(), True))
            elif self.quotes and char == "'":
                found.append((self._single_quoted(), False))
            elif self.quotes and char == '"':
                found.append((self._double_quoted(pattern), False))
            elif char == self.escape:
                # An escape character at the very end escapes nothing and goes.
                escaped = self.text[self.at + 1 : self.at + 2]
                found.append(("\\" + escaped if pattern and escaped else escaped, False))
                self.at += 2
            else:
                found.append((char, True))
                self.at += 1
        if stop:
            raise self._error(f"the closing {stop} is missing")
        return found

    def _single_quoted(self) -> str:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise self._error("the closing single quote is missing")
        text = self.text[self.at + 1 : end]
        self.at = end + 1
        return text

    def _double_quoted(self, pattern: bool) -> str:
        found = ""
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                return found
            if char == "$":
                found += self._dollar()
                continue
            following = self.text[self.at + 1 : self.at + 2]
            if char == self.escape and following in ('"', "$", self.escape):
                found += "\\" + following if pattern else following
                self.at += 1
            else:
                found += char
            self.at += 1
        raise self._error("the closing double quote is missing")

    def _dollar(self) -> str:
        value = self._value()
        self.size += len(value)
        if self.size > _MOST:
            raise self._error(f"what comes of it is longer than {_MOST >> 20} MiB")
        return value

    def _value(self) -> str:
        """What stands for the variable or substitution at a dollar sign."""
        self.at += 1
        if self.text[self.at : self.at + 1] != "{":
            name = self._name()
            return self.env.get(name, "") if name else "$"
        self.at += 1
        name = self._name()
        if not name:
            raise self._error("a substitution has no variable's name")
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self._error(f"substitutions are nested deeper than {_DEEPEST}")
        value = self._substitution(name)
        self.depth -= 1
        return value

    def _name(self) -> str:
        start = self.at
        first = self.text[start : start + 1]
        if first in _SPECIAL and not first.isdigit():
            self.at += 1
            return first
        while self.at < len(self.text):
            char = self.text[self.at]
            # $12abc is the variable 12 and the text abc.
            if not (char.isdigit() if first.isdigit() else char.isalnum() or char == "_"):
                break
            self.at += 1
        return self.text[start : self.at]

    def _substitution(self, name: str) -> str:
        value = self.env.get(name)
        operator = self._take()
        if operator == "}":
            return value or ""
        if operator == "/":
            return self._replaced(value or "")
        if operator in ("#", "%"):
            return self._trimmed(value or "", operator)
        if operator == ":":
            operator = self._take()
            # ${V:-w} takes an empty variable for an unset one.
            value = value or None
            if operator not in ("-", "+", "?"):
                raise self._error(f"unsupported modifier :{operator} in the substitution of {name}")
            empty_too = True
        elif operator in ("-", "+", "?"):
            empty_too = False
        else:
            raise self._error(f"unsupported modifier {operator} in the substitution of {name}")
        word = self._until("}")
        if operator == "+":
            return "" if value is None else word
        if value is not None:
            return value
        if operator == "-":
            return word
        raise DockerfileError(
            f"{name}: {word or 'is not allowed to be ' + ('unset or empty' if empty_too else 'unset')}"
        )

    def _take(self) -> str:
        char = self.text[self.at : self.at + 1]
        if not char:
            raise self._error("the closing } is missing")
        self.at += 1
        return char

    def _until(self, stop: str, *, pattern: bool = False) -> str:
        return "".join(text for text, _ in self.pieces(stop, pattern=pattern))

    def _trimmed(self, value: str, operator: str) -> str:
        longest = self.text.startswith(operator, self.at)
        if longest:
            self.at += 1
        pattern = ShellPattern(self._until("}", pattern=True))
        trim = pattern.without_prefix if operator == "#" else pattern.without_suffix
        return trim(value, longest=longest)

    def _replaced(self, value: str) -> str:
        every = self.text.startswith("/", self.at)
        if every:
            self.at += 1
        pattern = ShellPattern(self._until("/", pattern=True))
        found = pattern.replace(value, self._until("}"), every=every, most=_MOST)
        if found is None:
            raise self._error(f"what comes of it is longer than {_MOST >> 20} MiB")
        return found

    def _error(self, reason: str) -> DockerfileError:
        shown = self.text if len(self.text) <= 80 else self.text[:80] + "..."
        return DockerfileError(f"cannot expand {shown!r}: {reason}")
