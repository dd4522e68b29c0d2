"""``--plan`` and ``--explain`` on a matrix of single mutations: the plan is what the build then does, writing nothing,
and both name the input that changed and no other."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from minidock.build.explaining import NEW
from minidock.build.file_changes import short
from minidock.drivers.registry import open_driver
from minidock.drivers.tarballs import Tars
from minidock.kernel.pinned import Pinned
from minidock.log import Log
from minidock.model.digest import chain_id
from minidock.model.forecast import CACHED, MAY_RUN, RUNS, StepForecast
from minidock.rootfs import Rootfs
from minidock.store.blobs import Blobs
from minidock.store.layout import DataRoot

BELOW = "below it, "
BASE = "FROM busybox\nCOPY <<F /base\n{}\nF\n"
TEXT = """FROM base AS build
ARG V=1
ENV E=1
WORKDIR /w
COPY src src
COPY --chmod=0644 one.txt one
COPY spare /spare
RUN --mount=target=/m,source=mounted cat src/* /m/f one > out || true
FROM busybox
COPY --from=build /w/out /out
COPY <<F /heredoc
text
F
RUN <<F
cat /out
true
F
"""
SRC, ONE, SPARE = "COPY src src", "COPY --chmod=0644 one.txt one", "COPY spare /spare"
RUN_MOUNT = "RUN --mount=target=/m,source=mounted cat src/* /m/f one > out || true"
FROM_STAGE = "COPY --from=build /w/out /out"
RUN_LAST = "RUN <<F"


def write_context(context: Path) -> None:
    """The context that the mutations begin with."""
    contents = {"src/a": "a", "src/b": "b", "src/d/c": "c", "mounted/f": "f", "one.txt": "one", "spare": "spare"}
    for path, content in contents.items():
        (context / path).parent.mkdir(parents=True, exist_ok=True)
        (context / path).write_text(content)
        (context / path).chmod(0o644)
    (context / "src/d").chmod(0o755)
    os.symlink("a", context / "src/link")
    os.mkfifo(context / "src/pipe.skip")
    (context / ".dockerignore").write_text("src/*.skip\n")


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, busybox_tar: bytes, mounts_tarballs: str, shop_class: type
) -> Iterator[Any]:
    """A workshop in which the Dockerfile above is built, with an image ``base`` that is not busybox itself."""
    form = "tree" if mounts_tarballs else "tarball"

    def open_rootfs(root: DataRoot) -> Rootfs:
        tars = Tars(root.blobs, root.run, form)
        return Rootfs(root, open_driver("overlay2", root.layers, root.tmp, tars=tars), Blobs(root), Log())

    shop = shop_class(tmp_path_factory.mktemp("shop"), busybox_tar, open_rootfs)
    shop.build(BASE.format(1), tags=("base",))
    write_context(shop.context)
    shop.build(TEXT)
    yield shop
    pinned = Pinned(f"{shop.root.run}/layers")
    with pinned.lock():
        pinned.unpin()


@pytest.fixture
def shop(built: Any) -> Any:
    """The same, with everything as it was, and all of it cached."""
    shutil.rmtree(built.context)
    built.context.mkdir()
    write_context(built.context)
    built.build(BASE.format(1), tags=("base",))
    built.build(TEXT)
    assert built.steps("DONE") == []
    return built


class Mutation(NamedTuple):
    """What is changed (the context, the text, the options of the build, what the base has), and the misses, but for
    those of steps that stand on what is made anew: the step, and what is said of it."""

    misses: tuple[tuple[str, str], ...]
    context: Callable[[Path], object] | None = None
    text: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    base: int = 1


def was(old: str, new: str) -> str:
    return "was {}, is {}".format(
        *(short(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}") for text in (old, new))
    )


def out(new: str) -> tuple[str, str]:
    """What is said of the copy of the file that the command writes."""
    return FROM_STAGE, f"file w/out {was('abafone', new)}"


def write(path: str, content: str) -> Callable[[Path], object]:
    return lambda context: (context / path).write_text(content)


def instead(path: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(context: Path) -> None:
        (context / path).unlink()
        make(context / path)

    return change


def changed(old: str, new: str) -> tuple[tuple[str, str], ...]:
    assert TEXT.count(old) == 1
    return ((old, new),)


MUTATIONS = {
    "file": Mutation(((SRC, f"file src/a {was('a', 'longer')}"), out("longerblongerfone")), write("src/a", "longer")),
    "file of the same size": Mutation(((SRC, f"file src/d/c {was('c', 'C')}"),), write("src/d/c", "C")),
    "file of its own": Mutation(((ONE, f"file one.txt {was('one', 'two')}"), out("abaftwo")), write("one.txt", "two")),
    "new file": Mutation(((SRC, "file src/d/new is new"),), write("src/d/new", "n")),
    "file that is gone": Mutation(((SRC, "file src/d/c is gone"),), lambda context: (context / "src/d/c").unlink()),
    "link that is ignored": Mutation(
        ((SRC, "link src/link is gone"), out("abfone")), write(".dockerignore", "src/*.skip\nsrc/link\n")
    ),
    "mode": Mutation(
        ((SRC, "the mode of file src/a was 0644, is 0755"),), lambda context: (context / "src/a").chmod(0o755)
    ),
    "directory's mode": Mutation(
        ((SRC, "the mode of directory src/d was 0755, is 0700"),), lambda context: (context / "src/d").chmod(0o700)
    ),
    "attribute": Mutation(
        ((SRC, "the extended attributes of file src/a changed"),),
        lambda context: os.setxattr(context / "src/a", "user.note", b"1"),
    ),
    "link": Mutation(
        ((SRC, "link src/link led to a, leads to b"), out("abbfone")),
        instead("src/link", lambda path: os.symlink("b", path)),
    ),
    "kind": Mutation(((SRC, "src/b was a file, is a directory"), out("aafone")), instead("src/b", Path.mkdir)),
    "--chmod": Mutation(
        (("COPY --chmod=0600 one.txt one", "--chmod was 0644, is 0600"),), text=changed("chmod=0644", "chmod=0600")
    ),
    "--chown": Mutation(
        (("COPY --chown=bob spare /spare", "--chown was not given, is 'bob'"),),
        text=changed(SPARE, "COPY --chown=bob spare /spare"),
    ),
    "destination": Mutation(
        (("COPY spare /other", "the destination was '/spare', is '/other'"),), text=changed(SPARE, "COPY spare /other")
    ),
    "argument": Mutation(((RUN_MOUNT, "ARG V was '1', is '2'"),), options=(("build_args", (("V", "2"),)),)),
    "argument that is gone": Mutation(((RUN_MOUNT, "ARG V is gone, was '1'"),), text=changed("ARG V=1\n", "")),
    "variable": Mutation(((RUN_MOUNT, "ENV E was '1', is '2'"),), text=changed("ENV E=1", "ENV E=2")),
    "variable that is new": Mutation(((RUN_MOUNT, "ENV F is new: 'x y'"),), text=changed("E=1", "E=1 F='x y'")),
    "base": Mutation((("WORKDIR /w", "the base was base ({base}), is base ({other})"),), base=2),
    "name of the base": Mutation(
        (("WORKDIR /w", "the base was base ({base}), is busybox ({busybox})"),),
        text=changed("FROM base", "FROM busybox"),
    ),
    "command": Mutation(
        (
            (
                RUN_MOUNT.replace("true", ":"),
                "the command was 'cat src/* /m/f one > out || true', is 'cat src/* /m/f one > out || :'",
            ),
        ),
        text=changed("|| true", "|| :"),
    ),
    "line of a command": Mutation(
        ((RUN_LAST, "line 2 of the command was 'true', is 'echo true'"),), text=changed("\ntrue\n", "\necho true\n")
    ),
    "user": Mutation(((RUN_LAST, "the user was '', is 'bob'"),), text=changed(RUN_LAST, f"USER bob\n{RUN_LAST}")),
    "shell": Mutation(
        ((RUN_LAST, """the shell was ["/bin/sh", "-c"], is ["/bin/sh", "-ec"]"""),),
        text=changed(RUN_LAST, f'SHELL ["/bin/sh", "-ec"]\n{RUN_LAST}'),
    ),
    "working directory": Mutation(
        (("WORKDIR /etc", NEW), (RUN_LAST, "the working directory was '/', is '/etc'")),
        text=changed(RUN_LAST, f"WORKDIR /etc\n{RUN_LAST}"),
    ),
    "network": Mutation(
        ((RUN_MOUNT, "the network was 'none', is 'host'"), (RUN_LAST, "the network was 'none', is 'host'")),
        options=(("network", "host"),),
    ),
    "limit": Mutation(
        tuple((step, """--ulimit was not given, is ["nofile=64"]""") for step in (RUN_MOUNT, RUN_LAST)),
        options=(("ulimits", ("nofile=64",)),),
    ),
    "mounted file": Mutation(
        ((RUN_MOUNT, f"the mount /m: file mounted/f {was('f', 'g')}"), out("abagone")), write("mounted/f", "g")
    ),
    "mount": Mutation(
        ((RUN_MOUNT.replace("=/m", "=/m,rw"), "read_only of the mount /m was true, is false"),),
        text=changed("target=/m", "target=/m,rw"),
    ),
    "heredoc": Mutation(
        (("COPY <<F /heredoc", f"the heredoc F {was(chr(10).join(('text', '')), chr(10).join(('other', '')))}"),),
        text=changed("\ntext\n", "\nother\n"),
    ),
    "line that is gone": Mutation(((RUN_MOUNT, f"{BELOW}{SPARE} is gone"),), text=changed(f"{SPARE}\n", "")),
    "line that is new": Mutation((("RUN :", NEW),), text=changed("FROM busybox\n", "FROM busybox\nRUN :\n")),
    "order": Mutation(((SPARE, f"{BELOW}{ONE} is gone"),), text=changed(f"{ONE}\n{SPARE}\n", f"{SPARE}\n{ONE}\n")),
}
# What decides nothing: every step is cached.
HARMLESS = {
    "times": Mutation((), lambda context: [os.utime(path, (0, 0)) for path in context.rglob("*") if path.is_file()]),
    "owner": Mutation((), lambda context: os.chown(context / "src/a", 7, 7)),
    "ignored": Mutation((), write("src/x.skip", "x")),
    "unused file": Mutation((), write("unused", "x")),
    "label": Mutation((), text=changed("RUN <<F", "LABEL a=b\nCMD x\nRUN <<F")),
    "comment": Mutation((), text=changed("ARG V=1", "# nothing\nARG V=1")),
}


def snapshot(root: str) -> str:
    """A digest of every path below a data root, with its mode, owner, size, times of change and content."""
    found = hashlib.sha256()
    for directory, names, files in sorted(os.walk(root)):
        for name in ["", *sorted(files)]:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            seen = (
                path,
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
            )
            found.update(repr(seen).encode())
            if stat.S_ISREG(status.st_mode):
                found.update(Path(path).read_bytes())
        names.sort()
    return found.hexdigest()


def mutate(shop: Any, mutation: Mutation) -> tuple[str, dict[str, Any]]:
    """Do what the mutation says; the text and options to build with."""
    if mutation.context is not None:
        mutation.context(shop.context)
    if mutation.base != 1:
        shop.build(BASE.format(mutation.base), tags=("base",))
    text = TEXT
    for old, new in mutation.text:
        text = text.replace(old, new)
    return text, dict(mutation.options)


def is_anew(reason: str) -> bool:
    """Whether a miss is another step's."""
    return reason.startswith(BELOW) and reason.endswith(" is made anew")


def base_of(shop: Any, name: str) -> str:
    """What is said of the layers of an image."""
    return short(chain_id(shop.images.get(name).config.diff_ids))


def check_plan(shop: Any, steps: tuple[StepForecast, ...]) -> None:
    """The build that followed did what the plan said."""
    cached, done = shop.steps("CACHED"), shop.steps("DONE")
    assert sorted(step.title for step in steps) == sorted(cached + done)
    for step in steps:
        assert step.forecast in {CACHED: (CACHED,), RUNS: ()}.get(step.forecast, (MAY_RUN,)) or step.title in done, step
        assert step.forecast != CACHED or step.title in cached, step
        if step.forecast == RUNS:
            title = step.title.partition("] ")[2]
            told = [reason for name, reason in shop.misses() if name == title and not is_anew(reason)]
            assert told == [reason for reason in step.why if not is_anew(reason)]


@pytest.mark.parametrize("name", [*MUTATIONS, *HARMLESS])
def test_the_plan_is_what_is_built_and_the_misses_name_what_changed(shop: Any, name: str) -> None:
    mutation = {**MUTATIONS, **HARMLESS}[name]
    chains = {"{base}": base_of(shop, "base"), "{busybox}": base_of(shop, "busybox")}
    text, options = mutate(shop, mutation)
    chains["{other}"] = base_of(shop, "base")
    before = snapshot(shop.root.path)
    steps = shop.plan(text, **options)
    assert snapshot(shop.root.path) == before
    shop.build(text, explain=True, **options)
    check_plan(shop, steps)
    told = [miss for miss in shop.misses() if not is_anew(miss[1])]
    for placeholder, chain in chains.items():
        told = [(title, reason.replace(chain, placeholder)) for title, reason in told]
    assert told == list(mutation.misses)


def test_there_are_enough_mutations() -> None:
    assert len(MUTATIONS) >= 20
