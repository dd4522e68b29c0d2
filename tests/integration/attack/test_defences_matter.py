"""Each defence matters: with it taken down, in an engine in a child of the test, its row's attack succeeds.

The victims are directories of the test's own, never the sentinel. What is patched is named in each test; the tests of
the rows are the same attacks against the engine as it is.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from minidock.build.executors import workdir
from minidock.kernel import process as kp
from minidock.kernel import trampoline
from minidock.model import users
from minidock.model.users import MAX_FILE, UserSpec
from minidock.runtime import context, mount_steps, process_steps
from tests.integration.attack.tools import Standing, engine_apart, install, naive_open, output, until

FILES = {"m": "matter", "u": "unpack", "a": "archives", "f": "front", "s": "sandbox"}
LOADER = ("-nostdlib", "-static-pie", "-fno-stack-protector")
on_x86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the loader of this test is written for x86_64")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A directory of the host that an attack is to reach."""
    path = tmp_path / "victim"
    path.mkdir()
    (path / "treasure").write_text("treasure")
    return path


@on_x86_64
def test_row_01_without_the_trampoline_the_engines_program_loads_the_images_loader(
    minidock: Any, make_image: Callable[..., None], build_static: Callable[..., Path]
) -> None:
    def change(tree: Path) -> None:
        (tree / "lib64").mkdir()
        (tree / "lib64/ld-linux-x86-64.so.2").write_bytes(build_static("loader", *LOADER).read_bytes())
        (tree / "lib64/ld-linux-x86-64.so.2").chmod(0o755)
        (tree / "script").write_text("#!/proc/self/exe\n")
        (tree / "script").chmod(0o755)

    def direct(fd: int, path: str, argv: Sequence[str], env: Any, **_: object) -> None:
        os.execve(path, argv, env)

    def patch() -> None:
        process_steps.exec_trampoline = direct  # type: ignore[assignment]

    make_image("evil", change)
    # Whether the loader survives in a program that is not linked for it does not matter: it was loaded.
    assert "LOADED" not in engine_apart(minidock.root, output("evil", "/script"))
    assert "LOADED" in engine_apart(minidock.root, output("evil", "/script"), patch)


def test_row_02_without_the_check_of_magic_links_the_directory_is_the_hosts(minidock: Any, victim: Path) -> None:
    """Two defences: the resolution without magic links, and behind it the kernel's own word for where one stands. What
    they are for is a descriptor that the engine left open, which is made here."""
    use = output("busybox", "ls", workdir="/proc/self/fd/200")

    def leak() -> None:
        before = mount_steps.DetachFromHost.execute

        def execute(step: Any, context: Any) -> None:
            os.dup2(os.open(victim, os.O_PATH | os.O_DIRECTORY), 200)
            before(step, context)

        mount_steps.DetachFromHost.execute = execute  # type: ignore[method-assign]

    def no_resolution() -> None:
        leak()
        process_steps.open_in_root = naive_open

    def neither() -> None:
        no_resolution()
        process_steps.os = Standing(os, getcwd=lambda: "/")  # type: ignore[assignment]

    assert "out of the container" in engine_apart(minidock.root, use, leak)
    # The C library makes that of the kernel's "(unreachable)".
    assert "no such file or directory (while: chdir" in engine_apart(minidock.root, use, no_resolution)
    assert "treasure" in engine_apart(minidock.root, use, neither)


def test_row_03_without_closing_descriptors_they_are_the_commands(
    minidock: Any, make_image: Callable[..., None], build_static: Callable[..., Path], victim: Path
) -> None:
    make_image("probes", lambda tree: install(tree, build_static("fdprobe")))

    def use(engine: Any) -> str:
        os.dup2(os.open(victim, os.O_RDONLY | os.O_DIRECTORY), 99)
        return output("probes", "/fdprobe")(engine)

    def patch() -> None:
        kp.close_from = lambda *_, **__: None

    assert "directory" not in engine_apart(minidock.root, use)
    assert "directory 99" in engine_apart(minidock.root, use, patch)


def test_row_04_without_the_look_at_the_null_device_masks_are_what_the_image_says(minidock: Any) -> None:
    minidock("run", "--rm", "-v", "dev:/d", "busybox", "ln", "-s", "/proc/sys/kernel/hostname", "/d/null")
    use = output("busybox", "sh", "-c", "[ -c /proc/interrupts ] && echo masked || echo open", volumes=["dev:/dev"])

    def patch() -> None:
        mount_steps.MaskPaths._null = lambda _, context: naive(context.root)  # type: ignore[method-assign]

    def naive(root: int) -> int:
        from minidock.kernel.resolve import open_in_root

        return open_in_root(root, "/dev/null", os.O_PATH)

    assert engine_apart(minidock.root, use) == "masked\n"
    assert engine_apart(minidock.root, use, patch) == "open\n"


def test_row_06_07_without_the_check_of_the_file_system_a_link_leads_a_mount_into_proc(
    minidock: Any, make_image: Callable[..., None]
) -> None:
    make_image("evil", lambda tree: (tree / "link").symlink_to("/proc/tty"))
    use = output("evil", "cat", "/proc/self/mountinfo", tmpfs=["/link"])

    def patch() -> None:
        context.fs_magic = lambda _: 0  # type: ignore[assignment]

    assert "leads into /proc" in engine_apart(minidock.root, use)
    assert " /proc/tty " in engine_apart(minidock.root, use, patch)


def test_row_08_10_without_resolution_in_the_root_mount_points_are_made_on_the_host(
    minidock: Any, make_image: Callable[..., None], victim: Path
) -> None:
    make_image("evil", lambda tree: (tree / "link").symlink_to(victim))
    use = output("evil", "true", tmpfs=["/link/made"])

    def patch() -> None:
        context.open_in_root = naive_open

    engine_apart(minidock.root, use)
    assert os.listdir(victim) == ["treasure"]
    engine_apart(minidock.root, use, patch)
    assert sorted(os.listdir(victim)) == ["made", "treasure"]


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_row_09_10_without_the_strict_places_a_link_moves_them(
    minidock: Any, make_image: Callable[..., None], name: str
) -> None:
    def change(tree: Path) -> None:
        (tree / name).rmdir()
        (tree / "x").mkdir()
        (tree / name).symlink_to("/x")

    def patch() -> None:
        mount_steps._STRICT = frozenset()

    make_image("evil", change)
    use = output("evil", "echo", "started")
    assert "ordinary directory" in engine_apart(minidock.root, use)
    answer = engine_apart(minidock.root, use, patch)
    assert "ordinary directory" not in answer


def test_row_12_without_resolution_in_the_root_a_workdir_is_made_on_the_host(
    minidock: Any, make_image: Callable[..., None], victim: Path, tmp_path: Path
) -> None:
    make_image("evil", lambda tree: (tree / "w").symlink_to(victim))
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM evil\nUSER 1000\nWORKDIR /w/made\n")

    def use(engine: Any) -> str:
        return str(engine.build(str(folder), no_cache=True, quiet=True, progress=2))

    def naive(root: int, path: str, *, mode: int, uid: int, gid: int) -> int:
        os.makedirs(f"/proc/self/fd/{root}/{path}", mode, exist_ok=True)
        return os.open(f"/proc/self/fd/{root}/{path}", os.O_PATH)

    def patch() -> None:
        workdir.mkdirs_in_root = naive  # type: ignore[assignment]

    assert engine_apart(minidock.root, use).startswith("sha256:")
    assert os.listdir(victim) == ["treasure"]
    engine_apart(minidock.root, use, patch)
    assert sorted(os.listdir(victim)) == ["made", "treasure"]


def test_row_16_a_module_that_is_imported_too_late_is_the_images(
    minidock: Any, make_image: Callable[..., None]
) -> None:
    """The defence is that everything is imported beforehand: a step that imports after the root has changed is seen."""
    import colorsys

    late = Path(colorsys.__file__)
    make_image("evil", lambda tree: evil_module(tree, late))
    use = output("evil", "cat", "/imported")

    def patch() -> None:
        import sys

        sys.modules.pop("colorsys")
        before = process_steps.lookup

        def lookup(*arguments: Any) -> Any:
            import colorsys  # noqa: F401

            return before(*arguments)

        process_steps.lookup = lookup

    assert "evil" not in engine_apart(minidock.root, use)
    assert "evil" in engine_apart(minidock.root, use, patch)


def evil_module(tree: Path, source: Path) -> None:
    inside = tree / str(source)[1:]
    inside.parent.mkdir(parents=True, exist_ok=True)
    inside.write_text('open("/imported", "w").write("evil")\n')


def test_row_20_without_taking_proc_at_its_word_the_kernels_log_is_read(
    minidock: Any, make_image: Callable[..., None]
) -> None:
    def change(tree: Path) -> None:
        (tree / "etc/passwd").unlink()
        (tree / "etc/passwd").symlink_to("/proc/kmsg")

    def read(root: int, path: str) -> str:
        fd = process_steps.open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
        return os.fsdecode(os.read(fd, MAX_FILE))

    def patch() -> None:
        process_steps.read_account_file = read

    make_image("evil", change)
    unread = ctypes.CDLL(None).klogctl
    Path("/dev/kmsg").write_text("a line for those who read the log\n")
    before = unread(9, None, 0)
    engine_apart(minidock.root, output("evil", "true", user="1000"))
    # Old messages make room for new ones meanwhile.
    assert unread(9, None, 0) > before // 2 > 0
    engine_apart(minidock.root, output("evil", "true", user="1000"), patch)
    assert unread(9, None, 0) < before // 2


def test_row_21_without_the_grammar_half_a_user_is_one(minidock: Any) -> None:
    use = output("busybox", "id", "-u", user="1:")

    def patch() -> None:
        users.parse_user = process_steps.parse_user = lambda text: UserSpec(*text.partition(":")[::2])

    assert "invalid user" in engine_apart(minidock.root, use)
    assert engine_apart(minidock.root, use, patch) == "1\n"


def probed(minidock: Any, patch: Callable[[], object], seconds: float = 4) -> list[list[str]]:
    """What a container's probe finds of the processes that an engine has join it meanwhile."""
    minidock("run", "-d", "--name", "it", "--network", "none", "evil", "/nsprobe", str(seconds))

    def use(engine: Any) -> str:
        for _ in until(seconds - 0.5):
            try:
                engine.exec("it", "true")
            except Exception:
                # The probe may have spoilt it.
                continue
        return ""

    engine_apart(minidock.root, use, patch)
    minidock("wait", "it")
    lines = [line.split(maxsplit=2) for line in minidock.out("logs", "it").splitlines()]
    minidock("rm", "-f", "it")
    return lines


def test_row_22_a_joining_process_that_is_dumpable_is_read(
    minidock: Any, make_image: Callable[..., None], build_static: Callable[..., Path]
) -> None:
    make_image("evil", lambda tree: install(tree, build_static("nsprobe")))

    def patch() -> None:
        kp.set_dumpable = lambda _: None

    def pythons(lines: list[list[str]]) -> list[list[str]]:
        return [line for line in lines if line[0] in ("exe", "mem", "traced") and "python" in line[-1]]

    assert pythons(probed(minidock, lambda: None)) == []
    assert pythons(probed(minidock, patch)) != []


def readable_trampoline() -> None:
    trampoline._EXECUTE_ONLY = 0o777


def test_row_22_a_trampoline_that_may_be_read_is_reached(
    minidock: Any, make_image: Callable[..., None], build_static: Callable[..., Path]
) -> None:
    """Two halves of one wall: the program's mode, and that its process puts aside the capability to read everything."""
    make_image("evil", lambda tree: install(tree, build_static("nsprobe")))

    def able() -> None:
        process_steps._be_unreadable = lambda _: None

    def reached(patch: Callable[[], object]) -> list[list[str]]:
        lines = probed(minidock, patch)
        return [line for line in lines if line[0] == "link" or "/memfd:minidock-exec" in line[-1]]

    assert reached(lambda: None) == []
    assert reached(readable_trampoline) != []
    assert reached(able) != []


def test_row_22_without_a_bound_a_report_is_read_without_end(
    minidock: Any, make_image: Callable[..., None], build_static: Callable[..., Path]
) -> None:
    """The bound stands behind the trampoline's being out of reach."""
    make_image("evil", lambda tree: install(tree, build_static("nsprobe")))

    def unbounded() -> None:
        kp._FAILURE_MOST = 1 << 40

    def neither() -> None:
        unbounded()
        readable_trampoline()

    def most(patch: Callable[[], object]) -> int:
        lines = probed(minidock, patch)
        return max((int(line[2]) for line in lines if line[0] == "report"), default=0)

    assert most(unbounded) == 0
    assert 0 < most(readable_trampoline) <= 80 << 10
    assert most(neither) > 256 << 10


def test_the_list_of_pairs_is_whole() -> None:
    """docs/security-tests.md names each of these tests, and as many as there are."""
    folder = Path(__file__).parent
    text = (folder.parents[2] / "docs/security-tests.md").read_text()
    listed: Counter[tuple[str, str]] = Counter()
    for line in text.splitlines():
        for letter, names in re.findall(r"\b([muafs]): ((?:rows?_[^;|]+))", line):
            for name, count in re.findall(r"(rows?_\w+)(?: \((\d)\))?", names):
                listed[letter, name] = max(listed[letter, name], int(count or 1))
    files = {letter: folder / f"test_defences_{name}.py" for letter, name in FILES.items()}
    there = Counter(
        (letter, found)
        for letter, path in files.items()
        for found in re.findall(r"^def test_(rows?_\d+(?:_and_\d+|_\d+)*)_", path.read_text(), re.MULTILINE)
    )
    assert listed == there
