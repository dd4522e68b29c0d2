#!/usr/bin/env python3
"""Compare layers mounted from tarballs with layers that are trees: sudo .venv/bin/python tests/bench/forms.py.

minidock runs on two data roots, one with ``--layers tarball`` and one with ``--layers tree``, in turn, with the order
changed each round, so that what else the machine does meets both. A row of the table is one figure: its median with
each form, the median of the pairwise ratios tarball / tree, their range, and the project's bar.

``read`` measures inside a container, from the start to the end of a command as the container's shell sees it: *cold* is
the first time after the kernel was told to drop all its caches, *warm* the median of those after it in the same
container. ``memory`` is the growth of ``Cached`` and ``Buffers`` in /proc/meminfo while containers of one image, all
of them started before, read the same file, which lies in their image. All caches were dropped before they were started.
Of it *the file* is what the kernel holds of the file as a container sees it, and *the tarball* what it holds of the
tarball in which that lies, both by fincore(1). What the start itself takes is told apart. Whatever else the machine
reads or writes in these seconds is counted, too, so that it should be idle.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from inputs import Contexts, busybox_tar, debian_tar, let_go, load, new_tar

BIG = 50_000_000
COPY_FILES = "FROM {}\nCOPY files /files\n"
INSTALL = """FROM debian
RUN apt-get update -q && apt-get install -y -q --no-install-recommends python3-minimal && rm -rf /var/lib/apt/lists/*
"""
RUN = ("run", "--rm", "--network", "none")
# Times a command again and again, in microseconds, and fails with it.
LOOP = """
n=0
while [ "$n" -lt "$2" ]; do
    begin=$(date +%s%N)
    eval "$1" >/dev/null || exit 1
    end=$(date +%s%N)
    echo $(((end - begin) / 1000))
    n=$((n + 1))
done
"""
# Reads the file when the gate, a FIFO, gives it a line.
READ_BIG = """
: >"/out/$HOSTNAME.started"
read -r line </out/gate && md5sum /big && : >"/out/$HOSTNAME.read"
exec sleep 600
"""
READERS = (
    ("find / -xdev", "find / -xdev | wc -l", 8),
    ("cat of all below /usr", "find /usr -xdev -type f -exec cat {} +", 4),
    ("perl -MPOSIX -e 1", "perl -MPOSIX -e 1", 20),
)


class Form(NamedTuple):
    """minidock with one form of layers and a data root of its own."""

    name: str
    command: tuple[str, ...]
    root: Path

    def __call__(self, *arguments: str | Path, check: bool = True) -> str:
        done = subprocess.run(
            [*self.command, "--layers", self.name, "--root", self.root, *arguments],
            env={**os.environ, "MINIDOCK_CONFIG": "/dev/null"},
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stderr}")
        return done.stdout.strip()


Figures = dict[str, float]


def nothing(form: Form) -> None:
    """A measurement without preparation."""
    del form


class Measurement(NamedTuple):
    """Figures that are taken together: ``take`` gives them by name, after ``before`` for the same form.

    ``bars`` are the upper bounds of the ratio, by figure; ``warm_up`` rounds are not counted, ``most`` bounds the rest.
    """

    name: str
    take: Callable[[Form], Figures]
    before: Callable[[Form], None] = nothing
    bars: dict[str, float] = {}  # noqa: RUF012 - never changed
    warm_up: int = 1
    most: int = 1_000


class Images:
    """The images that the measurements need, made in a data root when they are asked for the first time."""

    def __init__(self, scratch: Path, contexts: Contexts) -> None:
        self._there: set[tuple[Path, str]] = set()
        self._contexts = contexts
        self._scratch = scratch
        self._made: dict[str, Path] = {}

    def need(self, form: Form, *names: str) -> None:
        """Make the images ``names`` where they are missing."""
        for name in names:
            if (form.root, name) not in self._there:
                self._there.add((form.root, name))
                if name in ("busybox", "debian"):
                    form("import", self._once(name), name)
                else:
                    form("build", "-q", "-t", name, self._once(name))

    def has_python(self, forms: Sequence[Form]) -> bool:
        """Make the image ``python`` for all forms, or let ``python`` be the base where packages cannot be had."""
        try:
            for form in forms:
                self.need(form, "busybox", "debian", "python")
        except RuntimeError as error:
            print(f"python3-minimal cannot be installed, so it is left out: {error}", file=sys.stderr)
            for form in forms:
                form("tag", "debian", "python")
            return False
        return True

    def _once(self, name: str) -> Path:
        """The tarball or context that an image is made of, the same for both forms."""
        if name not in self._made:
            if name == "busybox":
                self._made[name] = busybox_tar(self._scratch)
            elif name == "debian":
                self._made[name] = debian_tar()
            elif name == "python":
                self._made[name] = self._contexts.plain(INSTALL)
            else:
                self._made[name] = self._contexts.big("FROM busybox\nCOPY big /big\n", BIG)
        return self._made[name]


def drop_caches(form: Form) -> None:
    """Let the kernel forget every page, inode and name that it can."""
    del form
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def timed(*works: Callable[[], object]) -> Figures:
    """Milliseconds that the works take, one after another."""
    begin = time.perf_counter()
    for work in works:
        work()
    return {"ms": (time.perf_counter() - begin) * 1000}


def speed(scratch: Path, images: Images, contexts: Contexts) -> list[Measurement]:
    """The times of commands as their caller sees them."""
    fresh: dict[str, Path] = {}

    def fresh_tar(form: Form) -> None:
        new_tar(debian_tar(), scratch / "new.tar")
        os.sync()

    def fresh_files(form: Form) -> None:
        images.need(form, "busybox")
        fresh[form.name] = contexts.files(COPY_FILES.format("busybox"))
        os.sync()

    def run(image: str) -> Callable[[Form], Figures]:
        return lambda form: timed(lambda: form(*RUN, image, "true"))

    return [
        Measurement("run busybox true", run("busybox"), lambda form: images.need(form, "busybox"), {"ms": 1}),
        Measurement("run debian true", run("debian"), lambda form: images.need(form, "debian"), {"ms": 1}),
        Measurement(
            "import of Debian, then run",
            lambda form: timed(
                lambda: form("import", scratch / "new.tar", "imported"), lambda: form(*RUN, "imported", "true")
            ),
            fresh_tar,
        ),
        Measurement(
            "COPY of 10,000 files, then run",
            lambda form: timed(
                lambda: form("build", "-q", "-t", "copied", fresh[form.name]), lambda: form(*RUN, "copied", "true")
            ),
            fresh_files,
        ),
    ]


def disk(images: Images, contexts: Contexts) -> list[Measurement]:
    """What a whole data root takes on the disk with an image that was built in it."""
    made: dict[str, Path] = {}

    def usage(base: str, rest: str) -> Callable[[Form], Figures]:
        def take(form: Form) -> Figures:
            if base not in made:
                made[base] = contexts.files(COPY_FILES.format(base) + rest)
            other = form._replace(root=form.root.with_name(f"{form.root.name}-{base}"))
            images.need(other, base)
            other("build", "-q", "-t", "built", made[base])
            other(*RUN, "built", "true")
            os.sync()
            counted = subprocess.run(["du", "-s", "-B1", other.root], check=True, capture_output=True, text=True)
            let_go(other.root)
            return {"MB": int(counted.stdout.split()[0]) / 1e6}

        return take

    return [
        Measurement(f"disk: {name}", usage(base, rest), bars={"MB": 0.6}, warm_up=0, most=1)
        for name, base, rest in (
            ("busybox, COPY of 10,000 files, RUN", "busybox", "RUN echo 1 > /one\n"),
            ("Debian, COPY of 10,000 files", "debian", ""),
        )
    ]


def reading(python: bool) -> list[Measurement]:
    """What it takes to read from layers, inside a container and for a whole cold run."""

    def read(command: str, times: int) -> Callable[[Form], Figures]:
        def take(form: Form) -> Figures:
            first, *others = map(int, form(*RUN, "python", "sh", "-c", LOOP, "sh", command, str(times)).split())
            return {"cold, ms": first / 1000, "warm, ms": statistics.median(others) / 1000}

        return take

    def whole(*command: str) -> Callable[[Form], Figures]:
        return lambda form: timed(lambda: form(*RUN, "python", *command))

    start = ("python3", "-c", "pass") if python else ("perl", "-MPOSIX", "-e", "1")
    readers = [*READERS, ("python3 -c pass", "python3 -c pass", 20)] if python else list(READERS)
    bars = {"cold, ms": 1.2, "warm, ms": 1.2}
    return [
        *(Measurement(f"read: {name}", read(command, n), drop_caches, bars) for name, command, n in readers),
        Measurement("read: whole cold run of true", whole("true"), drop_caches, {"ms": 1.2}),
        Measurement(f"read: whole cold run of {' '.join(start)}", whole(*start), drop_caches, {"ms": 1.2}),
    ]


def cached() -> int:
    """Bytes that the kernel's page cache takes."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(line[1]) * 1024 for line in lines if line[0] in ("Cached:", "Buffers:"))


def resident(path: Path) -> float:
    """Bytes of a file that are in the page cache, 0 where there is no fincore."""
    if not shutil.which("fincore"):
        return 0
    done = subprocess.run(["fincore", "-n", "-b", "-o", "RES", path], check=True, capture_output=True, text=True)
    return float(done.stdout)


def tarball_of(form: Form) -> Path:
    """The largest blob below 100 MB that holds the file: only the image ``big`` has one of that size."""
    blobs = (form.root / "images/blobs/sha256").iterdir()
    return next(path for path in blobs if 0 < path.stat().st_size - BIG < 100_000)


def wait_for(folder: Path, pattern: str, count: int) -> None:
    """Wait until the folder holds that many files. Raises TimeoutError."""
    deadline = time.monotonic() + 120
    while len(list(folder.glob(pattern))) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not all of {count} containers have come to {pattern}")
        time.sleep(0.02)


def memory(scratch: Path, images: Images) -> list[Measurement]:
    """What the page cache grows by when containers of one image read the same file."""

    def growth(form: Form, count: int) -> Figures:
        drop_caches(form)
        # minidock's own files, those of its monitor, and its records.
        for _ in range(2):
            form("rm", "-f", form("run", "-d", "--network", "none", "busybox", "sleep", "600"))
        ids: list[str] = []
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            os.mkfifo(f"{folder}/gate")
            # Held open for both, it neither blocks nor ends for those that come late.
            gate = os.open(f"{folder}/gate", os.O_RDWR)
            run = ("run", "-d", "--network", "none", "-v", f"{folder}:/out", "big", "sh", "-c", READ_BIG)
            before = cached()
            try:
                ids += [form(*run) for _ in range(count)]
                wait_for(Path(folder), "*.started", count)
                begin = cached()
                os.write(gate, b"\n" * count)
                wait_for(Path(folder), "*.read", count)
                grown = cached() - begin
                pid = form("inspect", "-f", "{{.State.Pid}}", ids[0])
                inside, tar = resident(Path(f"/proc/{pid}/root/big")), resident(tarball_of(form))
            finally:
                os.close(gate)
                form("rm", "-f", *ids, check=False)
        taken = {"started": begin - before, "read": grown, "inside": inside, "tar": tar}
        return {name: value / 1e6 for name, value in taken.items()}

    def take(form: Form) -> Figures:
        images.need(form, "busybox", "big")
        one, fifty = growth(form, 1), growth(form, 50)
        return {
            "1 container reads, MB": one["read"],
            "50 containers read, MB": fifty["read"],
            "the same, 50 against 1 (bar for each: 1.2)": fifty["read"] / one["read"],
            "50 containers, of it the file, MB": fifty["inside"],
            "50 containers, of it the tarball, MB": fifty["tar"],
            "1 container starts, MB": one["started"],
            "50 containers start, MB": fifty["started"],
        }

    return [Measurement("memory", take, warm_up=0, most=3)]


def measure(measurement: Measurement, forms: Sequence[Form], rounds: int) -> dict[str, list[Figures]]:
    """The figures of each round, by form."""
    taken: dict[str, list[Figures]] = {form.name: [] for form in forms}
    for number in range(-measurement.warm_up, min(rounds, measurement.most)):
        for form in forms[:: 1 if number % 2 else -1]:
            measurement.before(form)
            figures = measurement.take(form)
            if number >= 0:
                taken[form.name].append(figures)
    return taken


def report(measurement: Measurement, taken: dict[str, list[Figures]]) -> None:
    """Print a row for each figure."""
    for figure in taken["tree"][0]:
        own, other = ([figures[figure] for figures in taken[name]] for name in ("tarball", "tree"))
        middle = statistics.median(own), statistics.median(other)
        ratios = [one / two if two else 0 for one, two in zip(own, other, strict=True)]
        ratio = f"{statistics.median(ratios):6.2f}  {min(ratios):.2f} to {max(ratios):.2f}"
        bar = f"{measurement.bars[figure]:.2f}" if figure in measurement.bars else ""
        row = f"{measurement.name}, {figure}"
        print(f"{row:<62} {middle[0]:9.2f} {middle[1]:9.2f} {ratio:<22} {bar:<5} {load()}", flush=True)


def measurements(scratch: Path, forms: Sequence[Form], only: str) -> list[Measurement]:
    """All that match, with the images that reading needs."""
    contexts = Contexts(scratch)
    images = Images(scratch, contexts)
    found = [*speed(scratch, images, contexts), *disk(images, contexts), *memory(scratch, images)]
    if any(only in measurement.name for measurement in reading(True)):
        found += reading(images.has_python(forms))
    return [measurement for measurement in found if only in measurement.name]


def main() -> int:
    """Run what matches and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds that count (default 9)")
    parser.add_argument("--only", default="", help="run the measurements whose name holds this text")
    parser.add_argument("--minidock", default="minidock", help="the command to measure (default: minidock on PATH)")
    options = parser.parse_args()
    if os.geteuid():
        print("containers are started, so this needs root: sudo", *sys.argv, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="minidock-bench-", dir="/var/tmp") as folder:
        command = tuple(shlex.split(options.minidock))
        forms = [Form(name, command, Path(folder) / f"root-{name}") for name in ("tarball", "tree")]
        try:
            print(f"{'':<62} {'tarball':>9} {'tree':>9} {'ratio':>6}  {'from':<14} bar")
            for measurement in measurements(Path(folder), forms, options.only):
                report(measurement, measure(measurement, forms, options.rounds))
        finally:
            for root in Path(folder).iterdir():
                let_go(root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
