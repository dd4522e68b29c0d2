"""Base images without a registry: busybox from the host's own, Debian by mmdebstrap."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from minidock.engine import apt_sources, busybox, debian
from minidock.engine.images import base_config, rfc3339
from minidock.engine.parts import open_rootfs
from minidock.errors import CorruptObjectError, NoSuchImageError, StoreError, UsageError
from minidock.model.oci import History
from minidock.model.reference import parse_reference
from minidock.store import files
from minidock.store.images import Image, Images, tag_name
from minidock.store.staging import Staging

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from minidock.engine.base import EngineBase

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SUITE = re.compile(r"[a-z][a-z0-9.-]*")


class Plan(NamedTuple):
    """What is asked for: ``kind`` "busybox" or "debian", Debian's ``suite``, and the full references of the image."""

    kind: str
    suite: str
    names: tuple[str, ...]


def bootstrap(engine: EngineBase, what: str, *, name: str = "", force: bool = False, quiet: bool = False) -> Image:
    """Make the base image ``busybox`` or ``debian[:SUITE]``, named so or ``name``.

    ``debian`` is the host's own suite where the host is Debian, else stable, and gets the suite's name too. busybox is
    made again each time and always the same; a Debian image that is there already is left alone unless ``force``. What
    happens is said on standard error unless ``quiet``. Raises UsageError for another image, HostError when the host
    lacks a program, naming its package.
    """
    plan = _plan(what, name)
    images = Images(engine.ready())
    if plan.kind == "busybox":
        return _busybox(engine, plan)
    there = None if force else _existing(images, plan.names)
    if there is None:
        return _debian(engine, plan, quiet=quiet)
    for missing in set(plan.names).difference(there.names):
        images.tag(there, missing)
    if not quiet:
        engine.log.notice(f"the image {parse_reference(plan.names[0]).familiar()} is here already: {there.id[7:19]}")
    return there


def _plan(what: str, name: str) -> Plan:
    kind, colon, suite = what.partition(":")
    if kind not in {"busybox", "debian"}:
        raise UsageError(f"cannot bootstrap {what!r}", hint="the images are busybox and debian[:SUITE]")
    if colon and (kind == "busybox" or not _SUITE.fullmatch(suite)):
        raise UsageError(f"invalid image to bootstrap {what!r}", hint="the images are busybox and debian[:SUITE]")
    names = [what]
    if kind == "debian" and not suite:
        suite = _host_suite() or "stable"
        names.append(f"{kind}:{suite}")
    return Plan(kind, suite, tuple(tag_name(each) for each in ([name] if name else names)))


def _host_suite() -> str:
    """The host's Debian suite, empty where it is no Debian."""
    release = apt_sources.host_release()
    return release.get("VERSION_CODENAME", "") if release.get("ID") == "debian" else ""


def _existing(images: Images, names: Sequence[str]) -> Image | None:
    for name in names:
        try:
            return images.get(name)
        except (NoSuchImageError, CorruptObjectError):
            continue
    return None


def _busybox(engine: EngineBase, plan: Plan) -> Image:
    program = busybox.find_busybox()
    names = busybox.applets(program)
    epoch = _source_date_epoch(int(os.stat(program).st_mtime))
    with Staging(engine.root, "bootstrap") as staging:
        path = f"{staging.path}/busybox.tar"
        with _writing(path), open(path, "wb") as out:
            busybox.write_tar(out, busybox=program, names=names, mtime=epoch)
        return _commit(engine, staging, path, plan, command=["sh"], epoch=epoch)


def _debian(engine: EngineBase, plan: Plan, *, quiet: bool) -> Image:
    program = debian.find_mmdebstrap()
    # Without any, mmdebstrap takes Debian's own mirror.
    sources = apt_sources.sources_for(plan.suite, host_suite=_host_suite(), sources=apt_sources.read_sources())
    epoch = _source_date_epoch(apt_sources.archive_time(plan.suite))
    with Staging(engine.root, "bootstrap") as staging:
        raw, path = f"{staging.path}/raw.tar", f"{staging.path}/debian.tar"
        debian.make_tar(
            program,
            raw,
            suite=plan.suite,
            sources=[source.line() for source in sources],
            epoch=epoch,
            tell=lambda line: None if quiet else engine.log.notice(f"mmdebstrap: {line.removeprefix('I: ')}"),
        )
        with _writing(path), open(raw, "rb") as source, open(path, "wb") as out:
            debian.clean(source, out, mtime=epoch)
        os.unlink(raw)
        return _commit(engine, staging, path, plan, command=["bash"], epoch=epoch)


@contextmanager
def _writing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}", hint=files.hint_for(error)) from error


def _commit(
    engine: EngineBase, staging: Staging, path: str, plan: Plan, *, command: Sequence[str], epoch: int
) -> Image:
    rootfs = open_rootfs(engine)
    with open(path, "rb") as file:
        layer = rootfs.import_layer(file, staging)
    created = rfc3339(epoch * 1_000_000_000)
    config = base_config(created=created)
    config.config.update({"Env": [PATH], "Cmd": list(command)})
    what = f"{plan.kind}:{plan.suite}" if plan.suite else plan.kind
    config.add_layer(layer.digest, History(created=created, created_by=f"minidock image bootstrap {what}"))
    config.add_layer(None, History(created=created, created_by=f'CMD ["{command[0]}"]'))
    # What there is no room for shows before there is an image of it.
    rootfs.ensure(config.diff_ids)
    image = Images(engine.root).commit(config, [layer], names=plan.names)
    rootfs.settle()
    return image


def _source_date_epoch(default: int) -> int:
    """SOURCE_DATE_EPOCH (reproducible-builds.org), seconds since the epoch. Raises UsageError for what is no number."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return default
    if not text.isdecimal() or len(text) > 11:
        raise UsageError(f"SOURCE_DATE_EPOCH is {text!r}", hint="it must be seconds since 1970")
    return int(text)
