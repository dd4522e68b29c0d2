"""An instruction with its variables expanded: which fields expand is known here and in the classes' docstrings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from minidock.dockerfile.expand import expand, expand_body, expand_words
from minidock.dockerfile.instructions import (
    Add,
    Arg,
    ArgDefault,
    Copy,
    Env,
    Expose,
    From,
    Heredoc,
    Instruction,
    Label,
    Pair,
    Run,
    Stopsignal,
    User,
    Volume,
    Workdir,
)
from minidock.dockerfile.ports import exposed_ports
from minidock.dockerfile.signals import check_signal
from minidock.errors import DockerfileError


class _Words(NamedTuple):
    env: Mapping[str, str]
    escape: str

    def plain(self, text: str) -> str:
        return expand(text, self.env, escape=self.escape)

    def named(self, text: str, what: str) -> str:
        """The text expanded; an empty one is an error that says what it should have been."""
        found = self.plain(text)
        if not found:
            raise DockerfileError(
                f"{what} {text} is empty after expansion", hint="is the variable set before this line?"
            )
        return found


def expanded(instruction: Instruction, env: Mapping[str, str], *, escape: str = "\\") -> Instruction:
    """``instruction`` with its fields expanded by ``env``, the environment as of before it.

    Instructions without such fields come back as they are, Onbuild included: its trigger is expanded when it runs.
    Raises DockerfileError without a place (``Source.locate`` adds it) for a word that can't be expanded, and for a port
    or signal that, expanded, is none.
    """
    expander = _EXPANDERS.get(type(instruction))
    return expander(instruction, _Words(env, escape)) if expander else instruction


def expanded_arg(arg: ArgDefault, env: Mapping[str, str], *, escape: str = "\\") -> ArgDefault:
    """One name and default of an ARG, expanded."""
    name = expand(arg.name, env, escape=escape)
    if not name:
        raise DockerfileError("ARG names can not be blank")
    return ArgDefault(name, None if arg.default is None else expand(arg.default, env, escape=escape))


def expanded_from(origin: From, env: Mapping[str, str], *, escape: str = "\\") -> From:
    """A FROM expanded by the global ARGs; a base that expands to nothing is an error."""
    base = expand(origin.base, env, escape=escape)
    if not base:
        raise DockerfileError(
            f"the base name {origin.base!r} of FROM is empty after expansion",
            hint="only an ARG before the first FROM is seen here; give it a default or --build-arg",
        )
    return origin._replace(base=base, platform=expand(origin.platform, env, escape=escape))


def _env(env: Env, word: _Words) -> Env:
    return env._replace(pairs=_pairs(env.pairs, word, what="ENV"))


def _label(label: Label, word: _Words) -> Label:
    return label._replace(pairs=_pairs(label.pairs, word, what="LABEL"))


def _pairs(pairs: tuple[Pair, ...], word: _Words, *, what: str) -> tuple[Pair, ...]:
    found = tuple(Pair(word.plain(key), word.plain(value)) for key, value in pairs)
    if not all(pair.key for pair in found):
        raise DockerfileError(f"{what} names can not be blank")
    return found


def _arg(arg: Arg, word: _Words) -> Arg:
    return arg._replace(args=tuple(expanded_arg(found, word.env, escape=word.escape) for found in arg.args))


def _copy(copy: Copy, word: _Words) -> Copy:
    return copy._replace(
        sources=tuple(word.named(source, "the source") for source in copy.sources),
        # An empty one is the working directory, as in BuildKit.
        destination=word.plain(copy.destination),
        heredocs=tuple(_heredoc(heredoc, word.env) for heredoc in copy.heredocs),
        chown=word.plain(copy.chown),
        chmod=word.plain(copy.chmod),
        exclude=tuple(map(word.plain, copy.exclude)),
    )


def _add(add: Add, word: _Words) -> Add:
    return add._replace(
        sources=tuple(word.named(source, "the source") for source in add.sources),
        destination=word.plain(add.destination),
        heredocs=tuple(_heredoc(heredoc, word.env) for heredoc in add.heredocs),
        chown=word.plain(add.chown),
        chmod=word.plain(add.chmod),
        exclude=tuple(map(word.plain, add.exclude)),
        checksum=word.plain(add.checksum),
    )


def _heredoc(heredoc: Heredoc, env: Mapping[str, str]) -> Heredoc:
    """The heredoc with its content as the body, expanded unless its delimiter was quoted."""
    body = expand_body(heredoc.content, env) if heredoc.expand else heredoc.content
    return heredoc._replace(body=body, expand=False, strip_tabs=False)


def _run(run: Run, word: _Words) -> Run:
    if not run.mounts:
        return run
    from minidock.dockerfile.run_mounts import expanded_mount

    return run._replace(mounts=tuple(expanded_mount(mount, word.plain) for mount in run.mounts))


def _workdir(workdir: Workdir, word: _Words) -> Workdir:
    return workdir._replace(path=word.named(workdir.path, "WORKDIR"))


def _user(user: User, word: _Words) -> User:
    return user._replace(user=word.named(user.user, "USER"))


def _volume(volume: Volume, word: _Words) -> Volume:
    return volume._replace(paths=tuple(word.named(path, "VOLUME") for path in volume.paths))


def _expose(expose: Expose, word: _Words) -> Expose:
    words = [found for port in expose.ports for found in expand_words(port, word.env, escape=word.escape)]
    return expose._replace(ports=exposed_ports(words), words=tuple(words))


def _stopsignal(stopsignal: Stopsignal, word: _Words) -> Stopsignal:
    return stopsignal._replace(signal=check_signal(word.plain(stopsignal.signal)))


_EXPANDERS: dict[type, Callable[[Any, _Words], Instruction]] = {
    Add: _add,
    Arg: _arg,
    Copy: _copy,
    Env: _env,
    Expose: _expose,
    Label: _label,
    Run: _run,
    Stopsignal: _stopsignal,
    User: _user,
    Volume: _volume,
    Workdir: _workdir,
}
