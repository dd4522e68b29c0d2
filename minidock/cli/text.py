"""Values as a person reads them: escaped, shortened, in decimal sizes and rounded ages."""

from __future__ import annotations

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def printable(text: str, *, keep: str = "") -> str:
    """``text`` with control characters, direction marks and undecodable bytes escaped, so that no name or label can
    drive a terminal. ``keep`` are characters left alone."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )


def json_text(value: object, *, indent: int | None = None) -> str:
    """A value as JSON in which what ``printable`` escapes is escaped as JSON has it: the same value to a program."""
    import json

    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def cut(text: str, width: int) -> str:
    """``text`` in at most ``width`` characters; an ellipsis marks a cut."""
    return text if len(text) <= width else text[: width - 1] + "…"


def short_id(text: str) -> str:
    """The 12 hexadecimal digits by which people know an object."""
    return text.removeprefix("sha256:")[:12]


def size(count: int) -> str:
    """Bytes in decimal units with four significant digits, as docker prints them: ``4.8MB``."""
    return _scaled(count, 1000.0, ("B", "kB", "MB", "GB", "TB", "PB"))


def memory(count: int) -> str:
    """Bytes in binary units with four significant digits: ``1.95GiB``."""
    return _scaled(count, 1024.0, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"))


def _scaled(count: int, base: float, units: tuple[str, ...]) -> str:
    value, index = float(count), 0
    while value >= base and index < len(units) - 1:
        value, index = value / base, index + 1
    return f"{value:.4g}{units[index]}"


def age(seconds: float) -> str:
    """A rounded duration: ``Less than a second``, ``17 seconds``, ``About a minute``, ``2 weeks``."""
    whole = int(seconds)
    hours = round(seconds / _HOUR)
    for limit, text in (
        (1, "Less than a second"),
        (2, "1 second"),
        (_MINUTE, f"{whole} seconds"),
        (2 * _MINUTE, "About a minute"),
        (_HOUR, f"{whole // _MINUTE} minutes"),
    ):
        if whole < limit:
            return text
    if hours <= 1:
        return "About an hour"
    for hour_limit, hours_each, unit in ((48, 1, "hours"), (24 * 14, 24, "days"), (24 * 60, 24 * 7, "weeks")):
        if hours < hour_limit:
            return f"{hours // hours_each} {unit}"
    if hours < 24 * 365 * 2:
        return f"{hours // (24 * 30)} months"
    return f"{hours // (24 * 365)} years"
