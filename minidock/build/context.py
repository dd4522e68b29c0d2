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

MAX_TEXT = 4 * 1024 * 1024
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_HINT = "name a file with -f PATH; a link must lead to a file in the same directory"


class Context:
    """An open context directory: ``fd``; ``rules`` are None where nothing is left out. A context manager.

    ``path`` is where it lies on the host, empty for one that came from elsewhere: then the Dockerfile is looked for
    in it alone. ``text`` is the Dockerfile where that is all that came.
    """

    __slots__ = ("fd", "name", "path", "rules", "text")

    def __init__(self, path: str) -> None:
        """Raises UsageError if ``path`` is not a directory that can be read."""
        self.path = self.name = path
        self.rules: IgnoreRules | None = None
        self.text: str | None = None
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(
                f"cannot use the build context {path!r}: {error.strerror}", hint="name a directory, such as '.'"
            ) from None

    @classmethod
    def fetched(cls, fd: int, *, name: str, text: str | None = None) -> Context:
        """What came from ``name``, in the open directory ``fd``, which becomes the context's."""
        context = cls.__new__(cls)
        context.fd, context.path, context.name, context.text, context.rules = fd, "", name, text, None
        return context

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


class DockerfileText(NamedTuple):
    """``filename`` is what messages call the file; ``path`` is where it lies, empty if the text was given: on the host,
    or with ``inside`` in the context."""

    text: str
    filename: str
    path: str
    inside: bool = False


def read_dockerfile(request: BuildRequest, context: Context) -> DockerfileText:
    """The Dockerfile's text. Raises UsageError if it cannot be read or is not text."""
    given = request.text
    if context.text is not None:
        if given is not None or request.dockerfile:
            raise UsageError(
                f"{context.name} is a Dockerfile, and another one is named", hint="leave -f out, or give a directory"
            )
        given = context.text
    if given is not None:
        check_text(given, what="the Dockerfile")
        return DockerfileText(given, "Dockerfile", "")
    path = request.dockerfile or _default(context)
    name, inside = os.path.basename(path), not context.path
    what = f"the Dockerfile {path!r}"
    if inside:
        text = _text_in(context.fd, path, what=what, links=True)
    else:
        text = _text_of(os.path.dirname(path) or ".", name, what=what, links=True)
    if text is None:
        raise UsageError(f"cannot read {what}: it is not there", hint=_HINT)
    check_text(text, what=what)
    return DockerfileText(text, name, path, inside)


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
        if not context.path:
            if _is_there(context.fd, name):
                return name
            continue
        path = os.path.join(context.path, name)
        if os.path.lexists(path):
            return path
    raise UsageError(f"there is no Dockerfile in {context.name!r}", hint="name one with -f PATH")


def _is_there(folder: int, name: str) -> bool:
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True


def read_rules(context: Context, dockerfile: DockerfileText, *, ignorefile: str = "") -> IgnoreRules | None:
    """The ignore rules: the file ``ignorefile`` of the host, else ``<dockerfile>.dockerignore`` beside the Dockerfile,
    else the context's ``.dockerignore``.

    Raises UsageError for what is not a regular file of text and for an ``ignorefile`` that is not there,
    DockerfileError with the line of a bad pattern.
    """
    name, text = _rules_text(context, dockerfile, ignorefile)
    if text is None:
        return None
    rules = IgnoreRules.parse(text, filename=name)
    return rules if rules.patterns else None


def _rules_text(context: Context, dockerfile: DockerfileText, ignorefile: str) -> tuple[str, str | None]:
    if ignorefile:
        directory, name = os.path.split(ignorefile)
        what = f"the ignore rules {ignorefile!r}"
        text = _text_of(directory or ".", name, what=what, links=True)
        if text is None:
            raise UsageError(f"cannot read {what}: it is not there")
        return name, text
    if dockerfile.path:
        directory, name = os.path.split(f"{dockerfile.path}.dockerignore")
        what = f"the ignore rules {name!r}"
        if dockerfile.inside:
            text = _text_in(context.fd, f"{dockerfile.path}.dockerignore", what=what, links=False)
        else:
            text = _text_of(directory or ".", name, what=what, links=False)
        if text is not None:
            return name, text
    name = ".dockerignore"
    return name, _text_in(context.fd, name, what=f"the ignore rules {name!r}", links=False)


def _text_of(directory: str, name: str, *, what: str, links: bool) -> str | None:
    """The text of a regular file in a directory of the host; see ``_text_in``."""
    try:
        folder = os.open(directory, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(what, error, links=links) from None
    try:
        return _text_in(folder, name, what=what, links=links)
    finally:
        os.close(folder)


def _text_in(folder: int, name: str, *, what: str, links: bool) -> str | None:
    """The text of a regular file in an open directory, None if there is none. Links are refused, or followed inside the
    directory only: a context may be a stranger's, and its Dockerfile's lines are shown in errors."""
    try:
        found = real_path(folder, name) if links else name
        with open(found, "rb", opener=lambda path, _: open_real(folder, path, _READ)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_TEXT:
                raise UsageError(f"cannot read {what}: it is not a regular file of at most {MAX_TEXT >> 20} MiB")
            return file.read(MAX_TEXT).decode("utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(what, error, links=links) from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#x}") from None


def _unreadable(what: str, error: OSError, *, links: bool) -> UsageError:
    return UsageError(f"cannot read {what}: {error.strerror}", hint=_HINT if links else "")
