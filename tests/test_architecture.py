"""The floors of the design, as data: who may import whom, and what only one unit may do.

A unit imports from lower floors only, and only from those that its row allows; siblings on a floor never import each
other; inside a unit there are no cycles. The rules about kernel calls, printing and third-party packages are checked on
the syntax tree, so that a comment or a string never trips them.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "minidock"

FLOORS: dict[str, int] = {
    "errors": 0,
    "log": 0,
    "model": 1,
    "kernel": 2,
    "dockerfile": 2,
    "transport": 2,
    "store": 3,
    "drivers": 3,
    "rootfs": 4,
    "volumes": 4,
    "network": 4,
    "registry": 4,
    "runtime": 4,
    "containers": 5,
    "build": 5,
    "engine": 6,
    "cli": 7,
    "oci": 7,
    "api": 7,
}

BASE = {"errors", "log", "model"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "log": set(),
    "model": {"errors", "log"},
    "kernel": set(),
    "dockerfile": BASE,
    "transport": {"errors"},
    "store": BASE | {"kernel"},
    "drivers": BASE | {"kernel"},
    "rootfs": BASE | {"kernel", "store", "drivers"},
    "volumes": BASE | {"kernel", "store"},
    "network": BASE | {"kernel", "store"},
    "registry": BASE | {"kernel", "store", "transport"},
    "runtime": BASE | {"kernel"},
    "containers": BASE | {"kernel", "store", "rootfs", "volumes", "network", "runtime"},
    "build": BASE | {"kernel", "dockerfile", "store", "rootfs", "runtime", "network", "transport"},
    "engine": {unit for unit, floor in FLOORS.items() if floor < 6},
    "cli": BASE | {"engine"},
    "oci": BASE | {"runtime"},
    "api": BASE | {"engine"},
}

THIRD_PARTY: dict[str, set[str]] = {
    "click": {"cli"},
    "isal": {"drivers"},
    "tabulate": {"cli"},
    "prctl": {"kernel"},
    "pyroute2": {"kernel"},
    "pyseccomp": {"kernel"},
    "rich": {"cli"},
    "urllib3": {"build", "registry", "transport"},
    "zstandard": {"drivers"},
}

KERNEL_ONLY_MODULES = {"ctypes", "prctl", "pyroute2", "pyseccomp", "mmap"}
KERNEL_ONLY_CALLS = {"fork", "forkpty", "chroot", "unshare", "setns", "pidfd_open", "posix_spawnp"}
FORBIDDEN_FILES = {"utils.py", "helpers.py", "common.py", "misc.py"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
DATACLASSES_ON_RUN = 8


class Module(NamedTuple):
    """A source file: its dotted name below the package, its unit and its syntax tree."""

    path: Path
    name: str
    unit: str
    tree: ast.Module


def modules() -> list[Module]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts in {("__init__",), ("__main__",)}:
            continue
        found.append(Module(path, ".".join(parts), parts[0], ast.parse(path.read_text(encoding="utf-8"))))
    return found


MODULES = modules()
IDS = [module.name for module in MODULES]


def imports(module: Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported, wherever it stands; relative imports are an error of their own."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.path}:{node.lineno}: relative import"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def own_imports(module: Module) -> Iterator[tuple[int, list[str]]]:
    for line, name in imports(module):
        parts = name.split(".")
        if parts[0] == "minidock" and len(parts) > 1 and parts[1] != "__version__":
            yield line, parts[1:]


def calls(module: Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every call."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.lineno, node.func.id
            elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                yield node.lineno, f"{node.func.value.id}.{node.func.attr}"


def test_the_table_covers_every_unit() -> None:
    assert {module.unit for module in MODULES} <= set(FLOORS)
    assert set(MAY_IMPORT) == set(FLOORS)
    for unit, allowed in MAY_IMPORT.items():
        for other in allowed:
            assert FLOORS[other] < FLOORS[unit] or {unit, other} <= {"errors", "log"}, f"{unit} -> {other} is not down"


@pytest.mark.parametrize("module", MODULES, ids=IDS)
def test_imports_go_down_only(module: Module) -> None:
    for line, parts in own_imports(module):
        target = parts[0]
        assert target in FLOORS, f"{module.path}:{line}: imports {'.'.join(parts)}: not a unit"
        if target != module.unit:
            assert target in MAY_IMPORT[module.unit], f"{module.path}:{line}: {module.unit} may not import {target}"


def test_no_cycles_inside_a_unit() -> None:
    names = {module.name.removesuffix(".__init__") for module in MODULES}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for module in MODULES:
        for _, parts in own_imports(module):
            for length in (len(parts), len(parts) - 1):
                target = ".".join(parts[:length])
                if target in names:
                    if target != module.name:
                        graph[module.name.removesuffix(".__init__")].add(target)
                    break
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"cycle: {' -> '.join((*trail[trail.index(name) :], name))}"
        if name in done:
            return
        for target in sorted(graph[name]):
            visit(target, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


@pytest.mark.parametrize("module", MODULES, ids=IDS)
def test_third_party_packages_stay_in_their_unit(module: Module) -> None:
    for line, name in imports(module):
        package = name.split(".")[0]
        if package in THIRD_PARTY:
            assert module.unit in THIRD_PARTY[package], f"{module.path}:{line}: {module.unit} imports {package}"


@pytest.mark.parametrize("module", MODULES, ids=IDS)
def test_kernel_calls_stay_in_kernel(module: Module) -> None:
    if module.unit != "kernel":
        for line, name in imports(module):
            assert name.split(".")[0] not in KERNEL_ONLY_MODULES, f"{module.path}:{line}: imports {name}"
        for line, name in calls(module):
            owner, _, function = name.rpartition(".")
            assert owner != "os" or function not in KERNEL_ONLY_CALLS, f"{module.path}:{line}: calls {name}"
    if module.name != "kernel.process":
        for line, name in calls(module):
            assert name != "os._exit", f"{module.path}:{line}: os._exit belongs in kernel/process.py"


@pytest.mark.parametrize("module", MODULES, ids=IDS)
def test_only_fronts_print_and_exit(module: Module) -> None:
    if module.unit in {"cli", "oci", "api"}:
        return
    for line, name in calls(module):
        assert name not in {"print", "sys.exit", "exit", "quit"}, f"{module.path}:{line}: calls {name}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sys":
            assert node.attr not in {"stdout", "stderr"}, f"{module.path}:{node.lineno}: uses sys.{node.attr}"


@pytest.mark.parametrize("module", MODULES, ids=IDS)
def test_shape(module: Module) -> None:
    text = module.path.read_text(encoding="utf-8")
    assert module.path.name not in FORBIDDEN_FILES
    assert text.count("\n") <= MAX_FILE_LINES, f"{module.path} is longer than {MAX_FILE_LINES} lines"
    if module.path.name == "__init__.py":
        assert not text.strip(), f"{module.path}: no logic in an __init__.py"
        return
    assert ast.get_docstring(module.tree), f"{module.path}: no module docstring"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{module.path}:{node.lineno}: {node.name} has {length} lines"


@pytest.mark.parametrize("module", MODULES, ids=IDS)
def test_no_module_state(module: Module) -> None:
    for node in ast.walk(module.tree):
        assert not isinstance(node, ast.Global), f"{module.path}:{node.lineno}: global statement"


@pytest.mark.parametrize("module", MODULES, ids=IDS)
def test_public_functions_have_docstrings(module: Module) -> None:
    """Public functions of a module say what they do; a command's ``execute`` is described by its declaration."""
    for node in module.tree.body:
        described = isinstance(node, ast.FunctionDef) and module.name.startswith("cli.commands.")
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and len(node.body) > 3 and not described:
            assert ast.get_docstring(node), f"{module.path}:{node.lineno}: {node.name} has no docstring"
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and len(node.body) > 4:
            assert ast.get_docstring(node), f"{module.path}:{node.lineno}: class {node.name} has no docstring"
