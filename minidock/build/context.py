"""The build context, its Dockerfile and its ignore rules: what is read from the host before anything is built."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from minidock.build.tree import DIRECTORY_FLAGS, open_real, real_path
from minidock.dockerfile.ignore import IgnoreRules
from minidock.errors import UsageError

if TYPE_CHECKING:
    from minidock.build.request import BuildRequest

_MAX_TEXT = 4 * 1024 * 1024
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_HINT = "name a file with -f PATH; a link must lead to a file in the same directory"


class Context:
    """An open context directory: ``fd``; ``rules`` are None where nothing is left out. A context manager."""

    __slots__ = ("fd", "path", "rules")

    def __init__(self, path: str) -> None:
        """Raises UsageError if ``path`` is not a directory that can be read."""
        self.path = path
        self.rules: IgnoreRules | None = None
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(
                f"cannot use the build context {path!r}: {error.strerror}", hint="name a directory, such as '.'"
            ) from None

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


class DockerfileText(NamedTuple):
    """``filename`` is what messages call the file; ``path`` is where it lies, empty if the text was given."""

    text: str
    filename: str
    path: str


def read_dockerfile(request: BuildRequest, context: Context) -> DockerfileText:
    """The Dockerfile's text. Raises UsageError if it cannot be read or is not text."""
    if request.text is not None:
        check_text(request.text, what="the Dockerfile")
        return DockerfileText(request.text, "Dockerfile", "")
    path = request.dockerfile or _default(context)
    directory, name = os.path.split(path)
    text = _text_of(directory or ".", name, what=f"the Dockerfile {path!r}", links=True)
    if text is None:
        raise UsageError(f"cannot read the Dockerfile {path!r}: it is not there", hint=_HINT)
    check_text(text, what=f"the Dockerfile {path!r}")
    return DockerfileText(text, name, path)


def check_text(text: str, *, what: str) -> None:
    """Raise UsageError for what can stand in no environment, path or JSON: NUL, and bytes that were not UTF-8."""
    if "\0" in text:
        raise UsageError(f"{what} holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} is not UTF-8 text") from None


def _default(context: Context) -> str:
    for name in ("Dockerfile", "dockerfile"):
        path = os.path.join(context.path, name)
        if os.path.lexists(path):
            return path
    raise UsageError(f"there is no Dockerfile in {context.path!r}", hint="name one with -f PATH")


def read_rules(context: Context, dockerfile: DockerfileText) -> IgnoreRules | None:
    """The ignore rules: ``<dockerfile>.dockerignore`` beside the Dockerfile, else the context's ``.dockerignore``.

    Raises UsageError for what is not a regular file of text, DockerfileError with the line of a bad pattern.
    """
    places = [(context.path, ".dockerignore")]
    if dockerfile.path:
        directory, name = os.path.split(dockerfile.path)
        places.insert(0, (directory or ".", f"{name}.dockerignore"))
    for directory, name in places:
        text = _text_of(directory, name, what=f"the ignore rules {name!r}", links=False)
        if text is not None:
            rules = IgnoreRules.parse(text, filename=name)
            return rules if rules.patterns else None
    return None


def _text_of(directory: str, name: str, *, what: str, links: bool) -> str | None:
    """The text of a regular file in a directory, None if there is none. Links are refused, or followed inside the
    directory only: a context may be a stranger's, and its Dockerfile's lines are shown in errors."""
    try:
        folder = os.open(directory, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
        try:
            found = real_path(folder, name) if links else name
            with open(found, "rb", opener=lambda path, _: open_real(folder, path, _READ)) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_TEXT:
                    raise UsageError(f"cannot read {what}: it is not a regular file of at most {_MAX_TEXT >> 20} MiB")
                return file.read(_MAX_TEXT).decode("utf-8")
        finally:
            os.close(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read {what}: {error.strerror}", hint=_HINT if links else "") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#x}") from None
