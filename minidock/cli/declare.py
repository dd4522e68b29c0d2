"""Commands as data: what a command is called, which options and arguments it takes, and the function that does it.

Two readers work from a declaration: ``quick`` reads a well-formed command line without loading click, which costs
twice the interpreter's own start; ``click_reader`` gives everything to click: help, completion, and the wording of
whatever is wrong. The declarations are plain classes: a NamedTuple costs ten times as much to define.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class Option:
    """One option. ``metavar`` names its value; a switch has none. ``many`` options may be given more than once.

    ``read`` turns the text into a value; it raises ValueError, or a MinidockError, for one that makes no sense. ``key``
    is the keyword argument: the first long flag's name, ``--cap-add`` as ``cap_add``.
    """

    __slots__ = ("default", "flags", "help", "key", "many", "metavar", "read")

    def __init__(
        self,
        flags: tuple[str, ...],
        help: str,  # noqa: A002 - what it is everywhere
        metavar: str = "",
        *,
        many: bool = False,
        default: Any = None,
        read: Callable[[str], Any] | None = None,
    ) -> None:
        self.flags = flags
        self.help = help
        self.metavar = metavar
        self.many = many
        self.default = default
        self.read = read
        flag = next((flag for flag in flags if flag.startswith("--")), flags[0])
        self.key = flag.lstrip("-").replace("-", "_")


class Argument:
    """A positional argument; ``many`` takes all that are left, and only the last one may be optional or ``many``.

    ``what`` says what is to be given, where it is missing.
    """

    __slots__ = ("key", "many", "name", "optional", "what")

    def __init__(self, name: str, *, many: bool = False, optional: bool = False, what: str = "a name or an ID") -> None:
        self.name = name
        self.what = what
        self.many = many
        self.optional = optional
        self.key = name.lower()


class Command:
    """A command. ``execute(session, **values)`` does it and returns the exit status.

    ``failure_status`` is the status of a failure that has no status of its own. ``not_yet`` are flags, parted by
    blanks, that docker has and minidock refuses by name. ``flags_stop`` ends the flags at the first argument: the rest
    is the container's.
    """

    __slots__ = ("arguments", "execute", "failure_status", "flags_stop", "name", "not_yet", "options", "summary")

    def __init__(
        self,
        name: str,
        summary: str,
        execute: Callable[..., int],
        *,
        options: tuple[Option, ...] = (),
        arguments: tuple[Argument, ...] = (),
        flags_stop: bool = False,
        failure_status: int = 1,
        not_yet: str = "",
    ) -> None:
        self.name = name
        self.summary = summary
        self.execute = execute
        self.options = options
        self.arguments = arguments
        self.flags_stop = flags_stop
        self.failure_status = failure_status
        self.not_yet = not_yet


class Group:
    """A command with sub-commands: ``members`` maps their names to modules of ``cli/commands``."""

    __slots__ = ("members", "name", "summary")

    def __init__(self, name: str, summary: str, members: Mapping[str, str]) -> None:
        self.name = name
        self.summary = summary
        self.members = members


# What may follow a switch after "=": docker's flags take a value, and scripts use it.
SWITCH_VALUES = {
    **dict.fromkeys(("1", "t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("0", "f", "F", "false", "False", "FALSE"), False),
}

GLOBAL_OPTIONS = (
    Option(("--root",), "Keep images, containers and volumes in this folder.", "DIR"),
    Option(("--debug",), "Print each step as it happens, and the details of a failure."),
    Option(("--storage-driver",), "Store layers with this driver (overlay2 or vfs).", "NAME"),
    Option(("--layers",), "Mount layers from their tarballs, or unpack them to trees (auto, tarball or tree).", "FORM"),
    Option(("-v", "--version"), "Print the version and exit."),
)


_MOST_DIGITS = 18
_LIKENESS = 0.65


def version_line() -> str:
    """What ``--version`` prints."""
    from minidock import __version__

    return f"minidock version {__version__}"


def defaults(options: tuple[Option, ...]) -> dict[str, Any]:
    """The values of options that were not given."""
    return {option.key: _default(option) for option in options}


def _default(option: Option) -> Any:
    if option.many:
        return ()
    return option.default if option.metavar else False


def read_values(command: Command, raw: dict[str, Any]) -> dict[str, Any]:
    """Turn the texts of a command line into values, option by option.

    Raises UsageError, naming the flag, where a text makes no sense, and MinidockError for an argument that is empty:
    most often a variable of a shell that was never set.
    """
    for option in command.options:
        value = raw[option.key]
        if option.read is None or value is None or value == option.default:
            continue
        raw[option.key] = tuple(_read(option, text) for text in value) if option.many else _read(option, value)
    for argument in command.arguments:
        if not argument.optional and raw[argument.key] == "":
            from minidock.errors import MinidockError

            raise MinidockError(f"the argument {argument.name} is empty", hint=f"give {argument.what}")
    return raw


def closest(word: str, words: Iterable[str]) -> str:
    """The one of ``words`` that was probably meant, or an empty text."""
    from difflib import get_close_matches

    by_letters = {known.lstrip("-"): known for known in words}
    found = get_close_matches(word.lstrip("-"), by_letters, n=1, cutoff=_LIKENESS)
    return by_letters[found[0]] if found else ""


def read_whole(text: str) -> int:
    """A whole number; ValueError for anything else, and for more digits than any of them needs."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MOST_DIGITS):
        raise ValueError("use a whole number")
    return int(text)


def read_reference(text: str) -> str:
    """The name of an image, unchanged; ValueError for what is none."""
    from minidock.errors import InvalidReferenceError
    from minidock.model.reference import parse_reference

    try:
        parse_reference(text)
    except InvalidReferenceError as error:
        raise ValueError(error.message) from None
    return text


def _read(option: Option, text: str) -> Any:
    if option.read is None:
        return text
    try:
        return option.read(text)
    except ValueError as error:
        from minidock.errors import UsageError

        flag = next((flag for flag in option.flags if flag.startswith("--")), option.flags[0])
        raise UsageError(f"invalid value {text!r} for {flag}: {error}") from None
