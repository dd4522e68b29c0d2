"""Each defence at the front matters: of builds, names, output and volumes (rows 15, 48, 49, 55 to 57, 65, 69 and 71).

As in test_defences_matter.py, in an engine in a child of the test. The list of all pairs is docs/security-tests.md.
"""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from minidock.build import context as build_context
from minidock.build import putting, selection
from minidock.build import tree as build_tree
from minidock.dockerfile import ignore
from minidock.drivers import unpack
from minidock.model import names, reference
from minidock.runtime import process_steps
from minidock.store.layout import DataRoot
from minidock.volumes import volumes as volumes_module
from tests.integration.attack.tools import Standing, apart, engine_apart, naive_open, output, reachable


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A directory of the host that an attack is to reach."""
    path = tmp_path / "victim"
    path.mkdir()
    (path / "treasure").write_text("treasure")
    (path / "deep").mkdir()
    (path / "deep/treasure").write_text("treasure")
    return path


def building(folder: Path) -> Callable[[Any], str]:
    """A build of the folder as "built"."""
    return lambda engine: engine.build(str(folder), tags=["built"], no_cache=True, quiet=True, progress=2)


# Row 15


def test_row_15_a_helper_that_is_called_in_the_root_is_the_images(
    minidock: Any, make_image: Callable[..., None], context: Callable[..., Path]
) -> None:
    """The defence is that the engine takes archives apart itself. With a step that calls a program after entering the
    image's root, as docker's did (CVE-2026-41567), the image's own runs."""

    def change(tree: Path) -> None:
        (tree / "bin/xz").unlink(missing_ok=True)
        (tree / "bin/xz").write_text("#!/bin/sh\n: >/ran.xz\n")
        (tree / "bin/xz").chmod(0o755)

    make_image("evil", change)
    folder = context("FROM evil\nADD a.tar.xz /added/\n", {"content": "x"})
    subprocess.run(["tar", "-C", folder, "-cJf", folder / "a.tar.xz", "content"], check=True)

    def patch() -> None:
        before = unpack.extract

        def extract(reader: Any, root: int, *rest: Any, **options: Any) -> None:
            command = ["chroot", f"/proc/self/fd/{root}", "xz", "-d"]
            subprocess.run(command, pass_fds=[root], stdin=subprocess.DEVNULL, check=True)
            before(reader, root, *rest, **options)

        unpack.extract = extract

    for change_down, ran in ((bool, "no"), (patch, "ran")):
        assert engine_apart(minidock.root, building(folder), change_down).startswith("sha256:")
        script = "[ -e /added/content ] && { [ -e /ran.xz ] && echo ran || echo no; }"
        assert minidock.out("run", "--rm", "--network", "none", "built", "sh", "-c", script) == ran


# Row 48


def replace(name: str, function: Callable[..., Any], modules: Iterable[Any]) -> None:
    """Give each module, which has to use it, another function under the name."""
    for module in modules:
        assert hasattr(module, name), f"{module.__name__} does not use {name}"
        setattr(module, name, function)


def unresolved() -> None:
    """Links are not looked for before a path of a context is opened."""
    replace("real_path", lambda _, path, **__: path, (build_tree, putting, build_context))


def followed() -> None:
    """And then they lead where they say."""

    def open_real(root: int, path: str, flags: int = os.O_PATH | os.O_NOFOLLOW) -> int:
        return naive_open(root, path or ".", flags)

    unresolved()
    replace("open_real", open_real, (build_tree, selection, build_context))


@pytest.mark.parametrize("source", ["folder/deep/treasure", "folder/deep/tr*"])
def test_row_48_a_path_through_a_link_of_the_context(
    minidock: Any, context: Callable[..., Path], victim: Path, source: str
) -> None:
    """Links are read and expanded inside the context, and what is opened then may hold none."""
    folder = context(f"FROM busybox\nCOPY {source} /got/\n")
    (folder / "folder").symlink_to(victim)
    use = building(folder)
    show = ("run", "--rm", "--network", "none", "built", "sh", "-c", "cat /got/treasure 2>/dev/null || true")
    for patch in (lambda: None, unresolved):
        answer = engine_apart(minidock.root, use, patch)
        assert "Error" in answer or minidock.out(*show) == ""
    assert engine_apart(minidock.root, use, followed).startswith("sha256:")
    assert minidock.out(*show) == "treasure"


def test_row_48_a_dockerfile_that_is_a_link_is_shown_in_an_error(
    minidock: Any, context: Callable[..., Path], victim: Path
) -> None:
    folder = context("")
    (folder / "Dockerfile").unlink()
    (folder / "Dockerfile").symlink_to(victim / "treasure")

    def patch() -> None:
        followed()
        build_context._READ &= ~os.O_NOFOLLOW

    assert "cannot read the Dockerfile" in engine_apart(minidock.root, building(folder))
    answer = engine_apart(minidock.root, building(folder), patch)
    assert "treasure" in answer.lower()
    assert "cannot read" not in answer


# Row 49


def test_row_49_without_the_look_at_its_kind_a_pipe_is_a_file_of_rules(
    minidock: Any, context: Callable[..., Path]
) -> None:
    """The look comes after an opening that does not wait: without both, the build waits for ever."""
    folder = context("FROM busybox\nCOPY . /d\n")
    os.mkfifo(folder / ".dockerignore")

    def unseen() -> None:
        build_context.stat = Standing(build_context.stat, S_ISREG=lambda _: True)  # type: ignore[assignment]

    def waiting() -> None:
        build_context._READ &= ~os.O_NONBLOCK
        signal.setitimer(signal.ITIMER_REAL, 3)

    assert "not a regular file" in engine_apart(minidock.root, building(folder))
    assert engine_apart(minidock.root, building(folder), unseen).startswith("sha256:")
    assert engine_apart(minidock.root, building(folder), waiting) == "killed"


@pytest.mark.parametrize("pattern", ["*a" * 60 + "b", "**a" * 3 + "*a" * 30 + "/b"])
def test_row_49_a_pattern_that_is_read_as_it_stands_takes_for_ever(pattern: str) -> None:
    def naive(text: str) -> str:
        return re.escape(text).replace(r"\*\*", ".*").replace(r"\*", "[^/]*") + r"\Z"

    def patch() -> None:
        ignore.ignore_regex = naive

    def use() -> bool:
        return ignore.IgnoreRules([pattern]).matches("a" * 200)

    assert apart(use, seconds=10) == "False"
    assert apart(use, patch, seconds=3) == "killed"


# Row 55


def test_row_55_an_environment_that_the_engine_took_over_would_be_its_own(
    minidock: Any, context: Callable[..., Path]
) -> None:
    """The defence is that an image's variables are handed to the last exec and to nothing else. What a step would see
    that put them into its own environment first."""
    minidock.build(context("FROM busybox\nENV LD_PRELOAD=/evil.so\n"), "-t", "evil")
    use = output("evil", "cat", "/seen")

    def look(*, taking: bool) -> None:
        before = process_steps.EnterDirectory.execute

        def execute(step: Any, context: Any) -> None:
            if taking:
                os.environ.update(context.env)
            with open("/seen", "w") as file:
                print(os.environ.get("LD_PRELOAD"), file=file)
            before(step, context)

        process_steps.EnterDirectory.execute = execute  # type: ignore[method-assign]

    assert engine_apart(minidock.root, use, lambda: look(taking=False)) == "None\n"
    assert engine_apart(minidock.root, use, lambda: look(taking=True)) == "/evil.so\n"


# Rows 56 and 57


@pytest.mark.parametrize("text", ["a/../b", "a\x1b[31m", "-x", "UPPER"])
def test_row_56_without_the_grammar_anything_is_a_reference(minidock: Any, text: str) -> None:
    def patch() -> None:
        reference._PATH = reference._DOMAIN = "(?s:.)*"

    def use(engine: Any) -> str:
        return str(engine.tag("busybox", text))

    assert "invalid image reference" in engine_apart(minidock.root, use)
    assert text in engine_apart(minidock.root, use, patch)


def test_row_57_without_the_grammar_a_volume_is_made_elsewhere(minidock: Any, victim: Path) -> None:
    """Behind it stands that names are looked up as names, and that what is made is moved by its name."""
    name = os.path.relpath(victim / "made", minidock.root / "volumes")

    def use(engine: Any) -> str:
        return str(engine.volume_create(name))

    def nameless() -> None:
        names._NAME = "(?s:.)*"

    assert "invalid volume name" in engine_apart(minidock.root, use)
    answer = engine_apart(minidock.root, use, nameless)
    assert (answer, sorted(os.listdir(victim))) == (answer, ["deep", "treasure"])


# Row 65


def test_row_65_without_its_modes_a_socket_is_everybodys(minidock: Any) -> None:
    """It lies in directories that nobody else may search, and has a mode of its own."""
    minidock("run", "-d", "-i", "--name", "it", "--network", "none", "busybox", "sleep", "1000")
    run = Path(DataRoot(str(minidock.root)).run)
    path = next(path for path in run.rglob("*") if path.is_socket())
    modes = {directory: directory.stat().st_mode for directory in path.parents if directory != Path("/")}
    assert not reachable(path)
    path.chmod(0o777)
    assert not reachable(path)
    for directory, mode in modes.items():
        directory.chmod(stat.S_IMODE(mode) | 0o011)
    try:
        assert reachable(path)
        path.chmod(0o700)
        assert not reachable(path)
    finally:
        for directory, mode in modes.items():
            directory.chmod(stat.S_IMODE(mode))


# Row 69


CLI = "import sys\nimport minidock.cli.text as text\n{}\nfrom minidock.cli.main import main\nmain()\n"
UNESCAPED = "text.printable = lambda text, **_: text\nimport json\ntext.json_text = lambda value, **_: str(value)"


def test_row_69_without_escaping_a_label_drives_the_terminal(minidock: Any) -> None:
    minidock("volume", "create", "--label", "l=\x1b]52;c;eA==\x07", "data")
    minidock("create", "--name", "it", "busybox", "echo", "\x1b[2J")

    def printed(patch: str, *arguments: str) -> str:
        command = [sys.executable, "-c", CLI.format(patch), *arguments]
        done = subprocess.run(command, env=minidock.environment, capture_output=True, text=True)
        return done.stdout + done.stderr

    for arguments in (
        ("ps", "-a", "--no-trunc"),
        ("volume", "inspect", "-f", "{{.Labels}}", "data"),
        ("import", "/no/such\x1b[31m"),
    ):
        assert "\x1b" not in printed("", *arguments), arguments
        assert "\x1b" in printed(UNESCAPED, *arguments), arguments


# Row 71


def test_row_71_without_the_look_a_volume_is_written_over(minidock: Any, context: Callable[..., Path]) -> None:
    """Behind it stands that nothing is moved over what is there."""
    minidock.build(context("FROM busybox\nRUN mkdir /d && echo image > /d/file\n"), "-t", "filled")
    minidock("volume", "create", "data")
    data = minidock.root / "volumes/data/_data"
    (data / "file").write_text("mine\n")
    (data / "other").write_text("mine\n")
    use = output("filled", "cat", "/d/file", volumes=["data:/d"])

    def unseen() -> None:
        volumes_module.Volumes.is_empty = lambda *_: True  # type: ignore[method-assign]

    def moved_over() -> None:
        unseen()
        files = volumes_module.kernel_files
        replacing = Standing(files, renameat2=lambda a, b, c, d, _: os.rename(b, d, src_dir_fd=a, dst_dir_fd=c))
        volumes_module.kernel_files = replacing  # type: ignore[assignment]

    assert engine_apart(minidock.root, use) == "mine\n"
    assert engine_apart(minidock.root, use, unseen) == "mine\n"
    assert engine_apart(minidock.root, use, moved_over) == "image\n"
