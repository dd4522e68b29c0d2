"""Opening what a build is given as its context: a directory, a tar or a Dockerfile on standard input, a git repository,
a tar or a Dockerfile behind HTTP.

A stream is a tar or a Dockerfile by what it holds, as BuildKit has it. Whatever comes from elsewhere is unpacked into
the build's staging directory and gone with the build.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minidock.build.context import MAX_TEXT, Context
from minidock.build.tree import DIRECTORY_FLAGS
from minidock.errors import MinidockError, UsageError
from minidock.rootfs import begins_archive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from minidock.build.progress import Progress, StepProgress
    from minidock.build.request import BuildRequest
    from minidock.build.sources.fetcher import Fetcher
    from minidock.build.sources.remote import GitSource, HttpSource
    from minidock.rootfs import Rootfs

STANDARD_INPUT = "-"
_HEAD = 512
_TRUE = ("1", "t", "true")


def open_context(request: BuildRequest, *, fetcher: Fetcher, rootfs: Rootfs, progress: Progress) -> Context:
    """Open the context of ``request``, fetching it where it is not here.

    Raises UsageError for what is no context, MinidockError for one that cannot be fetched or unpacked.
    """
    value = request.context
    if value == STANDARD_INPUT:
        step = progress.step("[internal] load build context from standard input")
        with open(0, "rb", closefd=False) as stream, ended(step):
            return open_stream(stream, name="standard input", fetcher=fetcher, rootfs=rootfs)
    if os.path.isdir(value):
        return Context(value)
    from minidock.build.sources.remote import GitSource, parse_remote

    source = parse_remote(value, shorthand=True)
    if source is None:
        return Context(value)
    step = progress.step(f"[internal] load remote build context {source.shown}")
    with ended(step):
        if isinstance(source, GitSource):
            keep = dict(request.build_args).get("BUILDKIT_CONTEXT_KEEP_GIT_DIR", "").lower() in _TRUE
            return open_git(source, fetcher=fetcher, step=step, keep=keep)
        return open_http(source, fetcher=fetcher, rootfs=rootfs, step=step)


def open_git(source: GitSource, *, fetcher: Fetcher, step: StepProgress, keep: bool = False) -> Context:
    """A git repository as a context. Raises MinidockError, HostError where there is no git."""
    fd = fetcher.tree(source, step.output, keep=keep if source.keep_git_dir is None else source.keep_git_dir)
    return Context.fetched(fd, name=source.shown)


def open_http(source: HttpSource, *, fetcher: Fetcher, rootfs: Rootfs, step: StepProgress) -> Context:
    """A file behind HTTP as a context: a tar, or a Dockerfile. Raises MinidockError."""
    with open(fetcher.file(source, step.output).path, "rb") as stream:
        return open_stream(stream, name=source.shown, fetcher=fetcher, rootfs=rootfs)


def open_stream(stream: BinaryIO, *, name: str, fetcher: Fetcher, rootfs: Rootfs) -> Context:
    """A context that is a tar or a Dockerfile. Raises UsageError, ArchiveError."""
    head = b""
    while len(head) < _HEAD and (more := stream.read(_HEAD - len(head))):
        head += more
    text = None
    fd = os.open(fetcher.directory(), DIRECTORY_FLAGS)
    try:
        if begins_archive(head):
            rootfs.extract(_Resumed(head, stream), fd, "", whole=True)
        else:
            text = _dockerfile(head, stream, name)
        _settle(fd)
        return Context.fetched(fd, name=name, text=text)
    except BaseException:
        os.close(fd)
        raise


def _dockerfile(head: bytes, stream: BinaryIO, name: str) -> str:
    pieces = [head]
    while sum(map(len, pieces)) <= MAX_TEXT and (more := stream.read(1 << 16)):
        pieces.append(more)
    data = b"".join(pieces)
    if not data:
        raise UsageError(f"cannot use {name} as the build context: it is empty", hint="give a tar, or a Dockerfile")
    if len(data) > MAX_TEXT or b"\0" in data:
        raise UsageError(f"cannot use {name} as the build context: it is neither a tar archive nor a Dockerfile")
    return data.decode("utf-8", "surrogateescape")


def _settle(fd: int) -> None:
    """Give the root of what was unpacked a time that does not depend on today: that of the newest thing in it."""
    with os.scandir(fd) as entries:
        newest = max((entry.stat(follow_symlinks=False).st_mtime_ns for entry in entries), default=0)
    os.utime(fd, ns=(newest, newest))


@contextmanager
def ended(step: StepProgress) -> Iterator[None]:
    """End a step's progress as the context ends."""
    try:
        yield
    except MinidockError as error:
        step.error(error.message)
        raise
    except BaseException:
        step.canceled()
        raise
    step.done()


class _Resumed:
    """A stream whose first bytes were read already."""

    __slots__ = ("_head", "_stream")

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        if not self._head or not size:
            return self._stream.read(size)
        data = self._head if size < 0 else self._head[:size]
        self._head = self._head[len(data) :]
        return data
