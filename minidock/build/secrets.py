"""The secrets of a build: read when a RUN mounts them, and never part of a key, layer, record or message."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from minidock.errors import MinidockError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from minidock.model.build_flags import SecretSource

# BuildKit's limit (session/secrets/secrets.go).
_MOST = 500 * 1024


def find_secret(sources: Iterable[SecretSource], secret_id: str) -> bytes | None:
    """The value of a secret, None where no ``--secret`` gives it. Raises MinidockError where it cannot be read."""
    source = next((source for source in sources if source.id == secret_id), None)
    if source is None:
        return None
    value = _read(source)
    if len(value) > _MOST:
        raise MinidockError(f"the secret {secret_id!r} is larger than {_MOST >> 10} KiB")
    return value


def check_secret(source: SecretSource) -> None:
    """Raise MinidockError for a secret that is not there."""
    path = _path(source)
    if not path:
        _variable(source)
    elif not os.path.exists(path):
        raise MinidockError(f"the secret {source.id!r} cannot be read: there is no file {path!r}")


def _path(source: SecretSource) -> str:
    """The file, or empty for a variable."""
    if source.path or source.env:
        return source.path
    return "" if source.id in os.environ else source.id


def _read(source: SecretSource) -> bytes:
    path = _path(source)
    if not path:
        return os.fsencode(_variable(source))
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                raise IsADirectoryError(21, os.strerror(21), path)
            os.set_blocking(fd, True)
            return file.read(_MOST + 1)
    except OSError as error:
        raise MinidockError(
            f"the secret {source.id!r} cannot be read: {path}: {(error.strerror or '').lower()}"
        ) from None


def _variable(source: SecretSource) -> str:
    name = source.env or source.id
    if name not in os.environ:
        raise MinidockError(f"the secret {source.id!r} cannot be read: the variable {name} is not set")
    return os.environ[name]
