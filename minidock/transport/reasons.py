"""Why a request came to nothing, in the words of the error that lies at the bottom of it."""

from __future__ import annotations

import ssl

import urllib3


def reason_of(error: BaseException, *, connect: float, read: float) -> str:
    """The sentence of the innermost error that has one; ``connect`` and ``read`` are the seconds that were waited."""
    found, seen = "", error
    for _ in range(10):
        late = isinstance(seen, TimeoutError | urllib3.exceptions.TimeoutError)
        if late and not isinstance(seen, urllib3.exceptions.NewConnectionError):
            return f"there is no answer for {read if 'read' in str(seen).lower() else connect:.0f} seconds"
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate is not valid: {seen.verify_message}"
        if isinstance(seen, OSError) and seen.strerror:
            found = seen.strerror
        inner = getattr(seen, "reason", None)
        inner = inner if isinstance(inner, BaseException) else seen.__cause__ or seen.__context__
        if inner is None:
            break
        seen = inner
    if isinstance(error, urllib3.exceptions.ProtocolError | urllib3.exceptions.IncompleteRead):
        return "the connection ended too early"
    return found or str(seen) or type(seen).__name__
