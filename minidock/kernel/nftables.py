"""Changing nftables through libnftables' JSON interface (libnftables(3), libnftables-json(5)): no program is run."""

from __future__ import annotations

import ctypes
import errno
import json
from collections.abc import Sequence
from typing import Any

_LIBRARY = "libnftables.so.1"
_OUTPUT_JSON = 1 << 4
_OUTPUT_HANDLE = 1 << 3


def run(commands: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run the commands in one transaction: all of them happen, or none.

    Returns the objects that a ``list`` command gives. Raises OSError with libnftables' own words (ENOSYS: the library
    is not installed; EPERM and the like are in the words only, so errno is EINVAL for whatever it refuses).
    """
    library = _load()
    context = library.nft_ctx_new(0)
    if not context:
        raise OSError(errno.ENOMEM, "libnftables cannot start")
    try:
        library.nft_ctx_output_set_flags(context, _OUTPUT_JSON | _OUTPUT_HANDLE)
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        text = json.dumps({"nftables": list(commands)}).encode()
        if library.nft_run_cmd_from_buffer(context, text):
            words = library.nft_ctx_get_error_buffer(context).decode("utf-8", "replace")
            raise OSError(errno.EINVAL, f"nftables: {_reason(words)}")
        output = library.nft_ctx_get_output_buffer(context)
        if not output.strip():
            return []
        objects: list[dict[str, Any]] = json.loads(output)["nftables"]
        return [item for item in objects if "metainfo" not in item]
    finally:
        library.nft_ctx_free(context)


def _load() -> Any:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise OSError(errno.ENOSYS, f"{_LIBRARY} is not installed: {error}") from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = (ctypes.c_uint32,)
    library.nft_ctx_free.argtypes = (ctypes.c_void_p,)
    library.nft_ctx_output_set_flags.argtypes = (ctypes.c_void_p, ctypes.c_uint)
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = (ctypes.c_void_p,)
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = (ctypes.c_void_p,)
        getattr(library, name).restype = ctypes.c_char_p
    library.nft_run_cmd_from_buffer.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
    return library


def _reason(words: str) -> str:
    """The sentence among libnftables' lines of excerpt and carets."""
    for line in words.splitlines():
        _, found, sentence = line.partition("Error: ")
        if found:
            return sentence.strip()
    return " ".join(words.split()) or "unknown error"
