"""The verbs that make, run, change and remove containers."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from minidock.containers import lifecycle, status
from minidock.containers.claim import Claim
from minidock.containers.create import check_sources
from minidock.containers.create import create as create_container
from minidock.engine.output import Output
from minidock.engine.parts import make_parts
from minidock.engine.results import RunResult
from minidock.engine.settings import make_settings
from minidock.errors import NoSuchImageError
from minidock.store import locks
from minidock.store.images import Images

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from minidock.containers.parts import Parts
    from minidock.engine.base import EngineBase
    from minidock.model.container import Record, Settings
    from minidock.store.images import Image

Stdio = tuple[int | None, int | None, int | None]

_KILLED = 137
# The usual machines in OCI's words: an image for another one is looked at more closely.
_USUAL = {"x86_64": "amd64", "aarch64": "arm64"}
_WINSIZE = (24, 80)


def settings_of(engine: EngineBase, image: str, command: Sequence[str], options: Mapping[str, Any]) -> Settings:
    """The settings for a call's options, with what the configuration adds. Raises UsageError."""
    settings = make_settings(image, command, **options)
    return settings._replace(keep=settings.keep or engine.config.keep)


def create(
    engine: EngineBase, image: str, command: Sequence[str], options: Mapping[str, Any], *, claim: Claim | None = None
) -> Record:
    """Make a container. Mounts that cannot be are refused before the image is looked for.

    ``claim`` is taken for the container, where it is to be started at once by this process.
    """
    settings = settings_of(engine, image, command, options)
    parts = make_parts(engine, driver=engine.driver)
    check_sources(settings.mounts, parts.volumes)
    assert parts.rootfs is not None, "the driver is open"
    # Shared until the record names the image: a removal in between would take its layers away.
    policy, platform = options.get("pull", ""), options.get("platform", "")
    if policy:
        _check_policy(policy)
    if policy == "always":
        _fetch(engine, image, platform, None)
    with ExitStack() as stack:
        stack.enter_context(locks.shared(parts.root.collection_lock))
        try:
            found = Images(parts.root).get(image)
        except NoSuchImageError as missing:
            if policy == "never":
                raise
            # Not while a lock is held.
            stack.close()
            _fetch(engine, image, platform, missing)
            stack.enter_context(locks.shared(parts.root.collection_lock))
            found = Images(parts.root).get(image)
        check_platform(engine, found, image, options)
        return create_container(
            settings,
            image_id=found.origin or found.id,
            config=found.config,
            driver=parts.rootfs.driver.name,
            parts=parts,
            claim=claim,
        )


def _check_policy(policy: str) -> None:
    from minidock.engine.fetching import check_policy

    check_policy(policy)


def _fetch(engine: EngineBase, image: str, platform: str, missing: NoSuchImageError | None) -> None:
    from minidock.engine.fetching import fetch

    fetch(engine, image, platform=platform, missing=missing)


def check_platform(engine: EngineBase, found: Image, name: str, options: Mapping[str, Any]) -> None:
    """Refuse an image that is not for the platform asked for, and warn of one whose programs are not this machine's."""
    asked = options.get("platform", "")
    if asked or found.config.architecture != _USUAL.get(os.uname().machine):
        from minidock.engine.foreign import check_image

        check_image(found, name, asked, log=engine.log)


def run(
    engine: EngineBase,
    image: str,
    command: Sequence[str],
    options: Mapping[str, Any],
    *,
    detach: bool,
    stdio: Stdio,
) -> RunResult:
    """Create and start; the caller is forked."""
    with Claim() as claim:
        record = create(engine, image, command, options, claim=claim)
        parts = make_parts(engine, driver=record.driver)
        if detach:
            running = lifecycle.start(parts, record.id)
            if running is not None:
                running.close()
            return RunResult(record.id)
        outputs = Output(stdio[1]), Output(stdio[2])
        try:
            code = _follow(parts, record, stdin=stdio[0], stdout=outputs[0].fd, stderr=outputs[1].fd)
            return RunResult(record.id, code, outputs[0].take(), outputs[1].take())
        finally:
            for output in outputs:
                output.close()


def start(engine: EngineBase, container: str, *, attach: bool, stdio: Stdio) -> int:
    """Start, and with ``attach`` stay until the end; the caller is forked."""
    record, _ = status.find(make_parts(engine), container)
    parts = make_parts(engine, driver=record.driver)
    if attach:
        stdout, stderr = (-1 if fd is None else fd for fd in stdio[1:])
        return _follow(parts, record, stdin=stdio[0], stdout=stdout, stderr=stderr)
    running = lifecycle.start(parts, record.id)
    if running is not None:
        running.close()
    return 0


def _follow(parts: Parts, record: Record, *, stdin: int | None, stdout: int, stderr: int) -> int:
    """Start a container and copy its input and output until it has ended; its exit code, 0 when the user detached."""
    from minidock.containers import attach

    settings = record.settings
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) if stdin is None and settings.interactive else -1
    source = (nothing if stdin is None else stdin) if settings.interactive else -1
    running = None
    connection = -1
    try:
        running = lifecycle.start(parts, record.id, attached=True, winsize=_winsize(stdout, source))
        connection = attach.connect(parts.root, record.id) if running is None else running.connection
        session = attach.Session(connection, stdin=source, stdout=stdout, stderr=stderr, terminal=settings.tty)
        outcome = session.run(attach=running is None)
        if outcome.status is not None and running is not None:
            lifecycle.finish(running)
            running, connection = None, -1
    finally:
        if running is not None:
            running.close()
        elif connection >= 0:
            os.close(connection)
        if nothing >= 0:
            os.close(nothing)
    if outcome.detached:
        return 0
    return _code_of_lost(parts, record) if outcome.status is None else outcome.status


def _code_of_lost(parts: Parts, record: Record) -> int:
    """The exit code after the monitor was killed, as the record has it now; the container died with it."""
    from minidock.errors import NoSuchContainerError

    try:
        return status.check(parts, record.id)[1].exit_code
    except NoSuchContainerError:
        return _KILLED


def _winsize(*fds: int) -> tuple[int, int]:
    """The size of the terminal that one of the descriptors is."""
    from minidock.kernel import tty

    for fd in fds:
        if fd >= 0 and os.isatty(fd):
            return tty.get_winsize(fd)
    return _WINSIZE


def stop(engine: EngineBase, container: str, *, signal: str, timeout: int | None) -> None:
    parts = make_parts(engine)
    lifecycle.stop(parts, parts.containers.resolve(container), signal=signal, timeout=timeout)


def kill(engine: EngineBase, container: str, *, signal: str) -> None:
    parts = make_parts(engine)
    lifecycle.kill(parts, parts.containers.resolve(container), signal=signal)


def pause(engine: EngineBase, container: str) -> None:
    parts = make_parts(engine)
    lifecycle.pause(parts, parts.containers.resolve(container))


def unpause(engine: EngineBase, container: str) -> None:
    parts = make_parts(engine)
    lifecycle.unpause(parts, parts.containers.resolve(container))


def wait(engine: EngineBase, container: str) -> int:
    parts = make_parts(engine)
    return lifecycle.wait(parts, parts.containers.resolve(container))


def remove(engine: EngineBase, container: str, *, force: bool, volumes: bool) -> None:
    parts = make_parts(engine)
    lifecycle.remove(parts, parts.containers.resolve(container), force=force, volumes=volumes)
