"""Did-you-mean for unknown words."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

# More names than these are not compared: a file may have thousands of them, and as many that are unknown.
_MOST = 200


def did_you_mean(word: str, known: Iterable[str], *, prefix: str = "") -> str:
    """``did you mean RUN?`` for the known word nearest to ``word`` (letter case apart), or empty if none is near."""
    import difflib

    by_lower = {name.lower(): name for name in islice(known, _MOST)}
    near = difflib.get_close_matches(word.lower()[:64], by_lower, n=1, cutoff=0.6)
    return f"did you mean {prefix}{by_lower[near[0]]}?" if near else ""
