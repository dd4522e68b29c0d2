"""Symbolic modes, as ``--chmod`` takes them: ``u=rwX,go=rX``, ``a+x``, ``g=u``.

The grammar is POSIX's (chmod, "symbolic_mode") with an umask of 0: the same text means the same wherever it is built.
``X`` asks the mode as it was before any clause, as POSIX and BuildKit have it (GNU's chmod: the mode of the moment).
``=`` takes the set-ID bits of a directory, too, so that ``u=rwX,go=rX`` makes 755 of any directory (GNU's chmod leaves
them).
"""

from __future__ import annotations

from typing import NamedTuple

from minidock.errors import DockerfileError

_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007, "a": 0o7777}
_PERMISSIONS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000, "X": 0}
_COPIED = {"u": 6, "g": 3, "o": 0}
_EXECUTE = 0o111


class _Action(NamedTuple):
    """``who`` are the bits that may change. Those meant are ``bits``, and with ``conditional`` the execute bits if the
    file is a directory or had one; or, where ``shift`` is not negative, the permissions at that place for everybody."""

    who: int
    operator: str
    bits: int
    conditional: bool
    shift: int

    def on(self, mode: int, *, executes: bool) -> int:
        bits = self.bits
        if self.shift >= 0:
            bits = (mode >> self.shift & 0o7) * _EXECUTE
        elif self.conditional and executes:
            bits |= _EXECUTE
        bits &= self.who
        if self.operator == "+":
            return mode | bits
        if self.operator == "-":
            return mode & ~bits
        return mode & ~self.who | bits


class SymbolicMode(NamedTuple):
    """A symbolic mode, read: ``text`` is what was written."""

    text: str
    actions: tuple[_Action, ...]

    def of(self, mode: int, *, directory: bool) -> int:
        """The mode (0 to 07777) that a file of ``mode`` gets."""
        executes = directory or bool(mode & _EXECUTE)
        for action in self.actions:
            mode = action.on(mode, executes=executes)
        return mode


def parse_symbolic(text: str) -> SymbolicMode:
    """Read a symbolic mode. Raises DockerfileError, without a place, for anything else."""
    if text[:1].isdigit():
        raise _bad(text, "it is no octal number from 0 to 7777")
    actions: list[_Action] = []
    for clause in text.split(","):
        actions += _clause(clause, text)
    return SymbolicMode(text, tuple(actions))


def _clause(clause: str, text: str) -> list[_Action]:
    rest = clause.lstrip("ugoa")
    who = 0
    for char in clause[: len(clause) - len(rest)]:
        who |= _WHO[char]
    if rest[:1] not in ("+", "-", "="):
        raise _bad(text, f"{rest[0]!r} is no '+', '-' or '='" if rest else "a '+', '-' or '=' is missing")
    actions: list[_Action] = []
    while rest:
        operator, rest = rest[0], rest[1:]
        end = next((at for at, char in enumerate(rest) if char in "+-="), len(rest))
        actions.append(_action(who or _WHO["a"], operator, rest[:end], text))
        rest = rest[end:]
    return actions


def _action(who: int, operator: str, permissions: str, text: str) -> _Action:
    if permissions in _COPIED:
        return _Action(who, operator, 0, False, _COPIED[permissions])
    bits = 0
    for char in permissions:
        if char in _COPIED:
            raise _bad(text, f"{char!r} stands alone after {operator!r}")
        if char not in _PERMISSIONS:
            raise _bad(text, f"{char!r} is none of r, w, x, X, s and t")
        bits |= _PERMISSIONS[char]
    return _Action(who, operator, bits, "X" in permissions, -1)


def _bad(text: str, reason: str) -> DockerfileError:
    return DockerfileError(
        f"invalid mode {text!r} of --chmod: {reason}",
        hint="write an octal mode from 0 to 7777, such as 755, or a symbolic one, such as u=rwX,go=rX",
    )
