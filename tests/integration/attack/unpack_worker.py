"""A process that takes archives apart in every way that the engine has, within limits that end it.

On standard input come messages: three lengths (little-endian words), then that many bytes of a lower layer, of a layer
above it, and the name of the directory for ADD. Each is answered by a line: what came of the three, or what is wrong.
``python -m tests.integration.attack.unpack_worker FOLDER``.
"""

from __future__ import annotations

import gc
import io
import os
import resource
import signal
import struct
import sys
import traceback

from minidock.drivers import trees
from minidock.drivers.compression import Plain
from minidock.drivers.layer_tree import scan
from minidock.drivers.nodes import InexpressibleError
from minidock.drivers.tar_reader import TarReader
from minidock.drivers.tarballs import seal
from minidock.drivers.unpack import extract
from minidock.errors import ArchiveError
from tests.conformance.test_layer_tree_equals_unpacked import Bench, on_disk

MEMORY = 256 << 20
SECONDS = 10


def attack(folder: str, bench: Bench, lower: bytes, upper: bytes, directory: str) -> str:
    """What came of two layers, each unpacked and indexed, and of the second added to a directory of a root."""
    bench.reset()
    outcomes = [bench.compare_tar(lower), bench.compare_tar(upper)]
    try:
        seal(scan(TarReader(io.BytesIO(upper)), None), diff_id=f"sha256:{'0' * 64}", tar_size=len(upper))
        outcomes.append("sealed")
    except (ArchiveError, InexpressibleError) as error:
        outcomes.append(type(error).__name__)
    with trees.opened(f"{folder}/root") as fd:
        trees.clear(fd)
        try:
            extract(TarReader(Plain(io.BytesIO(upper))), fd, directory)
            outcomes.append("added")
        except (ArchiveError, OSError) as error:
            outcomes.append(type(error).__name__)
    return " ".join(outcomes)


def main() -> None:
    folder = sys.argv[1]
    for name in ("layers", "root", "outside", "outside/private"):
        os.mkdir(f"{folder}/{name}")
    for name in ("secret", "private/program"):
        with open(f"{folder}/outside/{name}", "w") as file:
            file.write("content")
    before, names = on_disk(f"{folder}/outside"), sorted(os.listdir(folder))
    bench = Bench(f"{folder}/layers")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    while header := sys.stdin.buffer.read(12):
        lower, upper, place = (sys.stdin.buffer.read(length) for length in struct.unpack("<III", header))
        # The alarm's default is the end.
        signal.alarm(SECONDS)
        try:
            answer = attack(folder, bench, lower, upper, os.fsdecode(place))
            assert on_disk(f"{folder}/outside") == before
            assert sorted(os.listdir(folder)) == names
        except Exception:
            answer = f"WRONG {traceback.format_exc()!r}"
        signal.alarm(0)
        print(answer, flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
