"""What the flags of a COPY or ADD ask for, wherever its files come from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from minidock.build.accounts import numeric_owner, owner_in
from minidock.build.cache import dated
from minidock.build.placement import newest_of
from minidock.build.writer import Look
from minidock.dockerfile.instructions import Copy
from minidock.errors import DockerfileError
from minidock.model.digest import digest_of
from minidock.model.users import parse_user

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minidock.build.selection import Selection
    from minidock.build.work import StepWork
    from minidock.dockerfile.ignore import IgnoreRules
    from minidock.dockerfile.instructions import Add
    from minidock.dockerfile.modes import SymbolicMode

_OCTAL = re.compile(r"0?[0-7]{1,4}|0o[0-7]{1,4}")


class CopyFlags:
    """The flags, read: ``excluded`` are the rules of ``--exclude``, None without it.

    With ``link`` the layer stands on nothing: neither its content nor its key has anything of the layers beneath, but
    for the numbers that ``--chown`` looks up there by name. ``epoch`` is SOURCE_DATE_EPOCH.
    """

    __slots__ = ("_epoch", "_heredocs", "_mode", "_owner", "excluded", "link", "parents")

    def __init__(self, instruction: Copy | Add, epoch: int | None) -> None:
        """Raises MinidockError for values that make no sense."""
        self._epoch = epoch
        self.link = instruction.link
        self.parents = isinstance(instruction, Copy) and instruction.parents
        self.excluded = _rules(instruction.exclude)
        self._owner = instruction.chown
        self._mode = read_mode(instruction.chmod)
        self._heredocs = instruction.heredocs
        if self._owner:
            parse_user(self._owner)

    def key_inputs(self, work: StepWork, word: str, destination: str, *, unpack: bool | None) -> dict[str, Any]:
        """What of a step's key the flags, the heredocs and the destination are."""
        self._look_up_owner(work)
        mode = self._mode
        inputs: dict[str, Any] = {
            "instruction": word,
            "destination": destination,
            "chown": self._owner,
            "chmod": mode if mode is None or isinstance(mode, int) else mode.text,
            "unpack": unpack,
            "heredocs": [[heredoc.name, digest_of(heredoc.body.encode())] for heredoc in self._heredocs],
        }
        # A step without these has the key that it always had.
        if self.link:
            inputs["link"] = True
        if self.parents:
            inputs["parents"] = True
        if self.excluded is not None:
            inputs["exclude"] = list(self.excluded.patterns)
        return inputs | dated(self._epoch)

    def below(self, work: StepWork) -> tuple[str, ...]:
        """The layers that the step's result depends on."""
        return () if self.link else work.below

    def begin(self, work: StepWork, selected: Sequence[Selection]) -> None:
        """What has to be before the step's layer is made, with what was ``selected``, whose digests are known."""
        if self.link:
            self._look_up_owner(work)
            work.stand_alone()
        work.date(self._epoch, newest_of(selected))

    def look(self, root: int) -> Look:
        """The owner and mode of what is made in the root file system ``root``, in which names are looked up."""
        return Look(owner_in(root, self._owner) if self._owner else None, self._mode, self._epoch)

    def _look_up_owner(self, work: StepWork) -> None:
        """For a layer that stands on nothing, make numbers of names."""
        if not self.link or not self._owner:
            return
        owner = numeric_owner(self._owner)
        if owner is None:
            with work.open_below() as root:
                owner = owner_in(root, self._owner)
        self._owner = "{}:{}".format(*owner)


def shown_flags(instruction: Copy | Add) -> list[str]:
    """The flags that a line of history shows: those that BuildKit shows."""
    shown = ["--parents"] if isinstance(instruction, Copy) and instruction.parents else []
    asked = (("chown", instruction.chown), ("chmod", instruction.chmod))
    return shown + [f"--{name}={value}" for name, value in asked if value]


def read_mode(text: str) -> int | SymbolicMode | None:
    """What ``--chmod`` asks for, octal or symbolic; None for the empty text. Raises DockerfileError, without a place,
    for what is no mode."""
    if not text:
        return None
    if _OCTAL.fullmatch(text):
        return int(text.removeprefix("0o"), 8)
    from minidock.dockerfile.modes import parse_symbolic

    return parse_symbolic(text)


def _rules(patterns: tuple[str, ...]) -> IgnoreRules | None:
    if not any(patterns):
        return None
    from minidock.dockerfile.ignore import IgnoreRules

    for pattern in patterns:
        try:
            IgnoreRules((pattern,))
        except DockerfileError as error:
            raise DockerfileError(f"invalid --exclude={pattern}: {error.message}", hint=error.hint) from None
    rules = IgnoreRules(patterns)
    return rules if rules.patterns else None
