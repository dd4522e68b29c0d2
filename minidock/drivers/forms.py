"""Which form layers take on this host, mounted from tarballs or unpacked: the kernel is asked once a boot."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from minidock.drivers import trees
from minidock.drivers.form import TARBALL, TREE, Form
from minidock.errors import DriverError
from minidock.kernel import erofs, overlay
from minidock.kernel.files import fs_magic, fs_name, lock_exclusive

if TYPE_CHECKING:
    from minidock.drivers.tarballs import Tars

FORMS = ("auto", TARBALL, TREE)
_CONTENT = b"mounted from its tarball"
# By these the kernel says that it cannot; anything else may be otherwise the next time.
_REFUSALS = frozenset({errno.ENOTBLK, errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS})


def choose(tars: Tars, scratch: str) -> Form:
    """The form for this host and this configuration; what the kernel answered is kept in ``tars.run`` until a reboot.

    ``scratch`` is a directory on the layers' file system. Raises DriverError for an unknown form, and where tarballs
    are asked for and cannot be mounted.
    """
    if tars.form not in FORMS:
        raise DriverError(f"there is no form of layers {tars.form!r}", hint=f"the forms are {', '.join(FORMS)}")
    if tars.form == TREE:
        return Form(TREE, "asked for")
    problem = _known(tars, scratch)
    if not problem:
        return Form(TARBALL, "loop devices" if tars.loop else "file-backed EROFS mounts")
    if tars.form == TARBALL:
        raise DriverError(
            f"layers cannot be mounted from their tarballs: {problem}",
            hint="let minidock unpack them: --layers tree, or auto",
        )
    return Form(TREE, problem)


def is_known(tars: Tars, scratch: str) -> bool:
    """Whether ``choose`` need not ask the kernel."""
    return tars.form == TREE or tars.form not in FORMS or os.path.exists(_answer(tars, scratch))


def _answer(tars: Tars, scratch: str) -> str:
    # On another file system, one that was mounted on the data root since, the answer may be another.
    return f"{tars.run}/layers-{'loop' if tars.loop else 'file'}-{os.stat(scratch).st_dev}.probe"


def _known(tars: Tars, scratch: str) -> str:
    path = _answer(tars, scratch)
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except FileNotFoundError:
        pass
    try:
        problem = probe(scratch, loop=tars.loop)
    except OSError as error:
        # A full or read-only disk says nothing about the kernel, and is told about by whoever needs room on it.
        return f"it could not be tried out: {error.strerror}"
    with suppress(OSError):
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(problem)
        os.rename(temporary, path)
    return problem


def probe(scratch: str, *, loop: bool = False) -> str:
    """Mount a small layer from a tarball, beneath an overlay, in a new directory in ``scratch``: "" when it works, else
    one phrase that says what is missing. Raises OSError where the directory cannot be made."""
    path = trees.new_directory(scratch, "probe-layers")
    with trees.opened(path) as fd:
        lock_exclusive(fd)
        try:
            return _try(path, loop=loop)
        finally:
            with trees.opened(scratch) as parent:
                trees.remove(os.path.basename(path), parent)


def _try(path: str, *, loop: bool) -> str:
    from minidock.drivers import erofs_writer
    from minidock.drivers.nodes import Node

    root = Node(stat.S_IFDIR | 0o755)
    assert root.children is not None
    root.children[b"file"] = Node(stat.S_IFREG | 0o644, size=len(_CONTENT))
    for name, data in (("tar", _CONTENT.ljust(512, b"\0")), ("index", erofs_writer.build(root, tar_size=512))):
        try:
            trees.link_file(path, name, data)
        except OSError as error:
            return _refusal(error, f"the file system {fs_name(fs_magic(path))} has no files without a name")
    for name in ("upper", "work"):
        os.mkdir(f"{path}/{name}", 0o700)
    try:
        layer = erofs.mount(f"{path}/index", f"{path}/tar", loop=loop)
    except OSError as error:
        return _refusal(error, "the kernel mounts no EROFS image from a file")
    try:
        merged = overlay.overlay([layer], upper=f"{path}/upper", work=f"{path}/work")
    except OSError as error:
        return _refusal(error, "the kernel's overlayfs takes no mount that was not attached")
    finally:
        os.close(layer)
    try:
        with open(f"/proc/self/fd/{merged}/file", "rb") as file:
            return "" if file.read() == _CONTENT else "a file of an EROFS image reads wrong"
    except OSError as error:
        return f"a file of an EROFS image cannot be read ({error.strerror})"
    finally:
        os.close(merged)


def _refusal(error: OSError, what: str) -> str:
    if error.errno not in _REFUSALS:
        raise error
    return f"{what} ({error.strerror})"
