"""The mounts of one RUN: what of them decides its result, and how they are made when it runs."""

from __future__ import annotations

import base64
import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock.build.context_parts import ContextPart
from minidock.build.secrets import find_secret
from minidock.build.work import Source
from minidock.errors import MinidockError
from minidock.model.digest import chain_id, digest_of
from minidock.model.run_mounts import BIND, CACHE, LOCKED, PRIVATE, SECRET, SHARED, SSH, TMPFS, Agent, RunMount
from minidock.model.spec import SECRET as SECRET_KEY
from minidock.model.spec import SUBPATH, TREE, check_target, user_mount
from minidock.model.steps import RootMount, TreeMount
from minidock.store.cache_mounts import CacheMounts, cache_name

if TYPE_CHECKING:
    from minidock.build.request import RunSettings
    from minidock.build.selection import Selection
    from minidock.build.work import StepWork

_SCRATCH = "scratch"
_AGENT_TARGET = "/run/buildkit/ssh_agent"
_STRENGTH = (SHARED, PRIVATE, LOCKED)
_MODES = {CACHE: 0o755, SECRET: 0o400, SSH: 0o600}


class Made(NamedTuple):
    """Mounts that are ready: as the runtime spec has them, agents, and variables that come with them."""

    mounts: tuple[dict[str, Any], ...] = ()
    agents: tuple[Agent, ...] = ()
    env: tuple[tuple[str, str], ...] = ()


class Mounting:
    """The mounts of one RUN, with those that the whole build was given."""

    __slots__ = ("_mounts", "_namespace", "_script", "_settings", "_sources")

    def __init__(
        self,
        mounts: Sequence[RunMount],
        *,
        workdir: str,
        settings: RunSettings,
        find_source: Callable[[str], Source],
        namespace: str = "",
        script: tuple[str, bytes] | None = None,
    ) -> None:
        """``find_source`` gives what ``from`` means; ``namespace`` keeps the IDs of caches apart; ``script`` is the
        path and text of a program. Raises MinidockError for a target that makes no sense, and what
        ``find_source`` raises."""
        self._mounts: list[RunMount] = []
        self._sources: list[Source] = []
        self._settings = settings
        self._namespace = namespace
        self._script = script
        targets: set[str] = set()
        agents = 0
        for mount in mounts:
            target = mount.target
            if mount.type == SSH:
                target, agents = target or f"{_AGENT_TARGET}.{agents}", agents + 1
            if target:
                target = check_target("/" + posixpath.normpath(posixpath.join(workdir, target)).lstrip("/"))
                if target in targets:
                    raise MinidockError(f"two mounts have the same target {target}", hint="give each its own")
                targets.add(target)
            self._mounts.append(mount._replace(target=target))
            self._sources.append(_source(mount, find_source))

    def inputs(self, work: StepWork) -> list[dict[str, Any]]:
        """What of the mounts decides the result: how they are defined, and for binds what they show; never the content
        of a cache or the value of a secret. Raises MinidockError for a source that is not there, OSError."""
        found = [self._inputs(mount, source, work) for mount, source in zip(self._mounts, self._sources, strict=True)]
        for volume in self._settings.volumes:
            found.append({"type": "volume", "source": volume.source, **_common(volume.target, volume.read_only)})
        if self._script is not None:
            found.append({"type": "script", "name": self._script[0], "content": digest_of(self._script[1])})
        return found

    def _inputs(self, mount: RunMount, source: Source, work: StepWork) -> dict[str, Any]:
        found: dict[str, Any] = {"type": mount.type, **_common(mount.target, mount.read_only)}
        if mount.type == TMPFS:
            return {**found, "size": mount.size}
        if mount.type != BIND:
            found |= {"id": mount.id, "mode": _mode(mount), "owner": [mount.uid, mount.gid]}
        if mount.type == SECRET:
            return {**found, "env": mount.env}
        if mount.type == CACHE:
            found["sharing"] = mount.sharing
        if mount.type == BIND or mount.from_:
            layers = work.source_layers(source)
            if layers is None:
                found["files"] = self._part(mount, work).digest
                return found
            found["layers"] = chain_id(layers) if layers else ""
        return {**found, "path": posixpath.normpath("/" + mount.source)} if mount.type != SSH else found

    def copied(self, work: StepWork) -> tuple[Selection, ...]:
        """What the binds show of contexts, once ``inputs`` have been asked for."""
        return tuple(
            self._part(mount, work).selection
            for mount, source in zip(self._mounts, self._sources, strict=True)
            if mount.type == BIND and work.source_layers(source) is None
        )

    @property
    def has_secret(self) -> bool:
        """Whether a secret is among them."""
        return any(mount.type == SECRET for mount in self._mounts)

    @contextmanager
    def made(self, work: StepWork) -> Iterator[Made]:
        """The mounts, ready as long as the context lasts. Waits for caches that others have locked. Raises
        MinidockError for what is required and not there, StoreError, OSError."""
        with ExitStack() as opened:
            caches = self._hold_caches(work, opened)
            mounts = [user_mount(volume, str) for volume in self._settings.volumes]
            if self._script is not None:
                mounts.append(_script_mount(*self._script, work.scratch_path()))
            agents: list[Agent] = []
            env: list[tuple[str, str]] = []
            for mount, source in zip(self._mounts, self._sources, strict=True):
                if mount.type == BIND:
                    mounts.append(_of_tree(mount, *self._bound(mount, source, work)))
                elif mount.type == CACHE:
                    subpath = "" if mount.from_ else mount.source
                    mounts.append(_of_tree(mount, TreeMount(caches[self._cache_id(mount, source, work)]), subpath))
                elif mount.type == TMPFS:
                    mounts.append(_tmpfs(mount))
                elif mount.type == SECRET:
                    self._add_secret(mount, mounts, env)
                else:
                    self._add_agent(mount, agents)
            if agents:
                env.append(("SSH_AUTH_SOCK", agents[0].target))
            yield Made(tuple(mounts), tuple(agents), tuple(env))

    def _hold_caches(self, work: StepWork, opened: ExitStack) -> dict[str, str]:
        """The directory of each cache by its ID. All RUNs take the locks in one order, so that none waits in a ring; a
        cache that is mounted twice is locked once, as the stricter one says."""
        wanted: dict[str, tuple[RunMount, Source]] = {}
        for mount, source in zip(self._mounts, self._sources, strict=True):
            if mount.type == CACHE:
                cache_id = self._cache_id(mount, source, work)
                other = wanted.get(cache_id)
                if other is None or _STRENGTH.index(mount.sharing) > _STRENGTH.index(other[0].sharing):
                    wanted[cache_id] = mount, source
        if not wanted:
            return {}
        # What runs the steps must be there before: born later, it would have the locks, too.
        work.run.start()
        caches = CacheMounts(work.staging.root)
        held = {}
        for cache_id in sorted(wanted, key=cache_name):
            mount, source = wanted[cache_id]
            hold = caches.hold(
                cache_id,
                mount.sharing,
                staging=work.staging.path,
                fill=self._filler(mount, work),
                before_waiting=partial(_tell_waiting, mount, work),
            )
            held[cache_id] = opened.enter_context(hold)
        return held

    def _cache_id(self, mount: RunMount, source: Source, work: StepWork) -> str:
        """A cache with other content to begin with is another cache, as in BuildKit."""
        cache_id = f"{self._namespace}/{mount.id}" if self._namespace else mount.id
        if not mount.from_:
            return cache_id
        layers = work.source_layers(source)
        below = self._part(mount, work).digest if layers is None else chain_id(layers) if layers else _SCRATCH
        return f"{cache_id} from {below} {posixpath.normpath('/' + mount.source)}"

    def _filler(self, mount: RunMount, work: StepWork) -> Callable[[str], None]:
        def fill(directory: str) -> None:
            if mount.from_:
                self._part(mount, work).fill(directory)
                if mount == mount._replace(mode=None, uid=0, gid=0):
                    return
            os.chown(directory, mount.uid, mount.gid)
            os.chmod(directory, _mode(mount))

        return fill

    def _part(self, mount: RunMount, work: StepWork) -> ContextPart:
        """What a mount shows of the context, looked at once in a build; of another source, what seeds a cache."""
        source = self._sources[self._mounts.index(mount)]
        tree = work.open_source(source)
        if work.source_layers(source) is not None:
            return ContextPart(tree, mount.source)
        parts, key = work.context_parts, (source, posixpath.normpath("/" + mount.source))
        if key not in parts:
            parts[key] = ContextPart(tree, mount.source)
        return parts[key]

    def _bound(self, mount: RunMount, source: Source, work: StepWork) -> tuple[RootMount, str]:
        """The tree that a bind is of, and the path in it. What is written to is a layer or copy of this step's own."""
        if work.source_layers(source) is not None:
            return work.mount_source(source, writable=not mount.read_only), mount.source
        part = self._part(mount, work)
        layer = part.layer(work)
        if layer is not None:
            alone = Source(image=(layer,), name=source.name)
            return work.mount_source(alone, writable=not mount.read_only), part.name
        copied = part.shared(work.staging.path) if mount.read_only else part.copy(work.scratch_path())
        return TreeMount(copied.path), copied.name

    def _add_secret(self, mount: RunMount, mounts: list[dict[str, Any]], env: list[tuple[str, str]]) -> None:
        value = find_secret(self._settings.secrets, mount.id)
        if value is None:
            if mount.required:
                raise MinidockError(
                    f"the secret {mount.id!r} is required and not there",
                    hint=f"give it with --secret id={mount.id},src=FILE",
                )
            return
        if mount.env:
            if b"\0" in value:
                raise MinidockError(f"the secret {mount.id!r} holds a null character, which no variable can")
            env.append((mount.env, value.decode("utf-8", "surrogateescape")))
        if mount.target:
            secret = {
                "id": mount.id,
                "data": base64.b64encode(value).decode(),
                "mode": _mode(mount),
                "uid": mount.uid,
                "gid": mount.gid,
            }
            mounts.append({**_mount(mount.target, "bind", ("bind", "ro")), SECRET_KEY: secret})

    def _add_agent(self, mount: RunMount, agents: list[Agent]) -> None:
        source = next((agent for agent in self._settings.agents if agent.id == mount.id), None)
        if source is not None:
            agents.append(Agent(mount.target, source.paths, _mode(mount), mount.uid, mount.gid))
        elif mount.required:
            raise MinidockError(
                f"the SSH agent {mount.id!r} is required and not there", hint=f"give it with --ssh {mount.id}"
            )


def _tell_waiting(mount: RunMount, work: StepWork) -> None:
    work.progress.output(f"waiting for the cache mount {mount.id!r}: another RUN uses it\n".encode())
    # It may take as long as a command does: whoever waits for the steps before this one is not to wait for that, too.
    work.meanwhile()


def _script_mount(path: str, text: bytes, directory: str) -> dict[str, Any]:
    folder, name = posixpath.split(path)
    fd = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o700)
    with open(fd, "wb") as file:
        file.write(text)
        os.fchmod(fd, 0o755)
    os.chmod(directory, 0o755)
    return _of_tree(RunMount(target=folder), TreeMount(directory), "")


def _source(mount: RunMount, find_source: Callable[[str], Source]) -> Source:
    if mount.from_ == _SCRATCH:
        return Source(image=(), name="an empty tree")
    return find_source(mount.from_) if mount.from_ else Source()


def _common(target: str, read_only: bool) -> dict[str, Any]:
    return {"target": target, "read_only": read_only}


def _mode(mount: RunMount) -> int:
    return _MODES[mount.type] if mount.mode is None else mount.mode


def _mount(target: str, kind: str, options: Sequence[str], source: str = "") -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source or kind, "options": list(options)}


def _tmpfs(mount: RunMount) -> dict[str, Any]:
    options = ["nosuid", "nodev", *(["ro"] if mount.read_only else [])]
    return _mount(mount.target, "tmpfs", [*options, *([f"size={mount.size}"] if mount.size else [])])


def _of_tree(mount: RunMount, root: RootMount, subpath: str) -> dict[str, Any]:
    options = ("bind", "ro" if mount.read_only else "rw")
    return {**_mount(mount.target, "bind", options), TREE: root._asdict(), SUBPATH: subpath.lstrip("/")}
