"""The cases as data: ``cases/CHAPTER.toml``, and how a case becomes a build context.

Each ``[[case]]`` has a ``name`` and

dockerfile  the Dockerfile's text; left out, the context has none but what ``files`` brings
files       further files by path: a text, or a table of these:
            content, or hex, or tar (again files by path) with compress = "gz", "bz2", "xz" or "zst";
            link = TARGET, hard = PATH (of a file before it), fifo = true, device = "c 1:3", directory = true;
            mode = "0755", owner = "1:2", xattrs = { NAME = HEX }
bases       Dockerfiles of images that are built first, by the name that they get
flags       further arguments of build
context     what is built instead of the context's folder: "-" for standard input, or an URL
stdin       a text for standard input, or files that are a tar archive there
says        a pattern that both builders' error messages hold, of a case that fails
cites       where BuildKit's manual or tests say what the case must give, where docker 20.10 does not know the feature
expect      what that is: outcome, every "tree PATH", and whatever else of the facts is of interest

In texts and flags @CONTEXT@ is the context's folder, and @SERVER@ a web server that has SERVED and REPOSITORY.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

HERE = Path(__file__).resolve().parent
CONTEXT = "@CONTEXT@"
SERVER = "@SERVER@"
SERVED: dict[str, bytes | dict[str, Any]] = {
    "/file": b"served\n",
    "/dir/name.txt": b"a name\n",
    "/archive.tar": {"inside": "archived\n"},
    "/context.tar": {"Dockerfile": "FROM scratch\nCOPY f /\n", "f": "of the archive\n"},
    "/Dockerfile": b"FROM scratch\nLABEL a=1\n",
}
"""What the web server has, by path: bytes, or the files of a tar archive."""
REPOSITORY = "repo.git"
"""The git repository that it has below /git/; its tag v1 is one commit behind."""
_COMPRESSIONS = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: zstandard.ZstdCompressor().compress(data),
}
_DEVICES = {"c": stat.S_IFCHR, "b": stat.S_IFBLK}


class Case(NamedTuple):
    """One case; ``name`` is CHAPTER/NAME. The fields are those of its table."""

    name: str
    dockerfile: str | None = None
    files: dict[str, Any] = {}  # noqa: RUF012 - never changed
    bases: dict[str, str] = {}  # noqa: RUF012 - never changed
    flags: tuple[str, ...] = ()
    context: str = CONTEXT
    stdin: str | dict[str, Any] = ""
    says: str = ""
    cites: str = ""
    expect: dict[str, str] = {}  # noqa: RUF012 - never changed

    @property
    def chapter(self) -> str:
        """The file that it is in."""
        return self.name.partition("/")[0]


def read_cases(folder: Path = HERE / "cases") -> list[Case]:
    """Every case, by chapter and in the order in which they are written."""
    found: list[Case] = []
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["case"]:
            name = f"{path.stem}/{entry.pop('name')}"
            found.append(Case(name, **{**entry, "flags": tuple(entry.get("flags", ()))}))
    names = [case.name for case in found]
    assert len(set(names)) == len(names), sorted(name for name in set(names) if names.count(name) > 1)
    return found


def write_context(case: Case, folder: Path, server: str) -> None:
    """Make the case's context in ``folder``, which is new; ``server`` is the web server's address."""
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    if case.dockerfile is not None:
        (folder / "Dockerfile").write_bytes(placed(case.dockerfile, folder, server).encode())
    for name, given in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, given if isinstance(given, dict) else {"content": given}, folder, server)


def placed(text: str, folder: Path, server: str) -> str:
    """``text`` with the names of the context and of the web server in it."""
    return text.replace(CONTEXT, str(folder)).replace(SERVER, server)


def unplaced(text: str, folder: Path, server: str) -> str:
    """``placed`` undone."""
    return text.replace(str(folder), CONTEXT).replace(server, SERVER)


def _write(path: Path, given: dict[str, Any], folder: Path, server: str) -> None:
    mode = int(given.get("mode", "0755" if "directory" in given else "0644"), 8)
    if "link" in given:
        path.symlink_to(given["link"])
    elif "hard" in given:
        path.hardlink_to(folder / given["hard"])
    elif "directory" in given:
        path.mkdir(exist_ok=True)
    elif "fifo" in given:
        os.mkfifo(path)
    elif "device" in given:
        kind, _, number = given["device"].partition(" ")
        major, _, minor = number.partition(":")
        os.mknod(path, _DEVICES[kind] | mode, os.makedev(int(major), int(minor)))
    else:
        path.write_bytes(_content(given, folder, server))
    if "owner" in given:
        uid, _, gid = given["owner"].partition(":")
        os.chown(path, int(uid), int(gid), follow_symlinks=False)
    if "link" not in given and "hard" not in given:
        path.chmod(mode)
    for name, value in given.get("xattrs", {}).items():
        os.setxattr(path, name, bytes.fromhex(value), follow_symlinks=False)


def _content(given: dict[str, Any], folder: Path, server: str) -> bytes:
    if "hex" in given:
        return bytes.fromhex(given["hex"])
    if "tar" not in given:
        return placed(given.get("content", ""), folder, server).encode()
    packed = tar_of(given["tar"])
    return _COMPRESSIONS[given["compress"]](packed) if "compress" in given else packed


def tar_of(files: dict[str, Any]) -> bytes:
    """A tar archive of ``files``, as a case has them."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, given in files.items():
            table = given if isinstance(given, dict) else {"content": given}
            member = tarfile.TarInfo(name)
            member.mtime = 1_000_000_000
            member.mode = int(table.get("mode", "0755" if "directory" in table else "0644"), 8)
            uid, _, gid = table.get("owner", "0:0").partition(":")
            member.uid, member.gid = int(uid), int(gid)
            content = table.get("content", "").encode()
            if "link" in table or "hard" in table:
                member.type = tarfile.SYMTYPE if "link" in table else tarfile.LNKTYPE
                member.linkname = table.get("link") or table["hard"]
            elif "directory" in table:
                member.type = tarfile.DIRTYPE
            elif "fifo" in table:
                member.type = tarfile.FIFOTYPE
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()
