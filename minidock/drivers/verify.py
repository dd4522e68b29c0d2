"""Whether what is kept of a layer beside its tarball still is what the tarball makes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from minidock.drivers import erofs_reader, index_file
from minidock.drivers.form import TARBALL
from minidock.drivers.indexer import Indexer
from minidock.drivers.tar_reader import TarReader
from minidock.errors import CorruptObjectError
from minidock.model.digest import chain_id, hex_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from minidock.drivers.tar_format import Reader
    from minidock.drivers.tarballs import Tarballs


class Flaw(NamedTuple):
    """Something of a layer that is no good and can be made again from its tarball: ``key`` is its name as
    ``Driver.keys`` has it, ``form`` says whether it is an index (TARBALL) or a TREE, ``what`` is a clause that tells
    people."""

    key: str
    form: str
    what: str


class _Kept(NamedTuple):
    """An index file that is whole: its name, its bytes, and what makes it again."""

    key: str
    data: bytes
    indexer: Indexer


def index_flaws(tarballs: Tarballs, diff_ids: Sequence[str], tar: Reader, view: Callable[[], int]) -> list[Flaw]:
    """What is wrong with the indexes of the topmost of ``diff_ids``, whose plain tarball ``tar`` is.

    The tarball, known to be whole, is read once if the layer has an index, which is made again in memory and compared
    byte for byte. ``view`` gives the merged tree of the layers beneath, or raises FileNotFoundError; an index that
    depends on layers that are not here is only read, by the strict reader. Raises ArchiveError, OSError.
    """
    diff_id = diff_ids[-1]
    tar_size = os.stat(f"{tarballs.tars}/{hex_of(diff_id)}").st_size
    flaws: list[Flaw] = []
    kept: list[_Kept] = []
    for key in dict.fromkeys((hex_of(diff_id), hex_of(chain_id(diff_ids)))):
        path = tarballs.path(key)
        try:
            header = index_file.load(path, diff_id=diff_id, tar_size=tar_size)
            with open(path, "rb") as file:
                data = file.read()
            if key == hex_of(diff_id):
                # Either it depends on nothing beneath, or it is that of the lowest layer.
                kept.append(_Kept(key, data, Indexer(None)))
            elif (below := _opened(view)) is not None:
                kept.append(_Kept(key, data, Indexer(below)))
            else:
                erofs_reader.read(data[: header.image_size], tar_size=tar_size)
        except FileNotFoundError:
            continue
        except CorruptObjectError as error:
            flaws.append(Flaw(key, TARBALL, error.message))
    return flaws + list(_compared(tarballs, kept, tar, diff_id, tar_size))


def _compared(tarballs: Tarballs, kept: list[_Kept], tar: Reader, diff_id: str, tar_size: int) -> Iterator[Flaw]:
    if not kept:
        return
    reader = TarReader(tar)
    for entry in reader:
        for _, _, indexer in kept:
            indexer.add(entry, reader.offset)
    for key, data, indexer in kept:
        sealed = indexer.finish(diff_id=diff_id, tar_size=tar_size)
        if sealed is None or sealed.data != data:
            yield Flaw(key, TARBALL, f"the layer index {tarballs.path(key)} is not the one that its tarball makes")


def _opened(view: Callable[[], int]) -> Callable[[], int] | None:
    try:
        view()
    except FileNotFoundError:
        return None
    return view
