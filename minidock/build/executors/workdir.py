"""WORKDIR: the directory of the later steps and of the container, made if it is missing."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

from minidock.build.accounts import identity_in
from minidock.build.cache import Key, dated, make_key
from minidock.errors import MinidockError
from minidock.kernel.resolve import mkdirs_in_root

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from minidock.build.state import StageState
    from minidock.build.work import StepWork
    from minidock.dockerfile.instructions import Workdir


def apply(instruction: Workdir, stage: StageState) -> None:
    """Join the path to the directory before; the root itself needs no step."""
    path = "/" + posixpath.normpath(posixpath.join(stage.workdir, instruction.path)).lstrip("/")
    stage.config.config["WorkingDir"] = path
    epoch = stage.arguments.epoch
    step = WorkdirStep(instruction.location.text, path, stage.user, epoch) if path != "/" else None
    stage.add_line(f"WORKDIR {path}", instruction.location, step)


class WorkdirStep:
    """Makes the directory, 0755 and the current user's, unless it is there. ``epoch`` is SOURCE_DATE_EPOCH."""

    __slots__ = ("epoch", "path", "title", "user")

    def __init__(self, title: str, path: str, user: str, epoch: int | None = None) -> None:
        self.epoch = epoch
        self.title = title
        self.path = path
        self.user = user

    def keys(self, work: StepWork) -> Iterator[Key]:
        yield make_key(work.below, instruction="WORKDIR", path=self.path, user=self.user, **dated(self.epoch))

    def perform(self, work: StepWork) -> Collection[str]:
        work.date(self.epoch, None)
        with work.open_root() as root:
            identity = identity_in(root, self.user)
            try:
                os.close(mkdirs_in_root(root, self.path, mode=0o755, uid=identity.uid, gid=identity.gid))
            except NotADirectoryError:
                raise MinidockError(f"cannot make the working directory {self.path}: a file is in the way") from None
        return ()
