"""What --parents and --exclude select, on plain directories."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidock.build.parents import ParentsSource, selections_with_parents
from minidock.build.putting import selections
from minidock.build.selection import Selection, join, select_below
from minidock.build.tree import SourceTree
from minidock.dockerfile.glob import match
from minidock.dockerfile.ignore import IgnoreRules
from minidock.errors import DockerfileError, MinidockError

Open = Callable[[str], SourceTree]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens ``tmp_path`` as a context with these ignore rules."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield lambda ignore: SourceTree(
        fd, name="the build context", keep_owner=False, rules=IgnoreRules.parse(ignore) if ignore else None
    )
    os.close(fd)


def make(root: Path, *paths: str) -> None:
    """Files, directories (with an end slash) and links (``name->target``)."""
    for path in paths:
        name, arrow, target = path.partition("->")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if arrow:
            os.symlink(target, root / name)
        elif name.endswith("/"):
            (root / name).mkdir(exist_ok=True)
        else:
            (root / name).write_text(name)


def paths_of(found: list[Selection]) -> list[str]:
    """All that is selected, as paths below the destination; directories end in a slash."""
    paths = []
    for selection in found:
        directories = {group.path for group in selection.groups}
        for group in selection.groups:
            for entry in group.entries:
                path = join(group.path, entry.name)
                paths.append(f"{path}/" if path in directories and selection.is_directory else path)
    return sorted(paths)


TREE = (
    "a/b/c/d/foo",
    "a/b/c/d/e/bay",
    "a/b2/c/d/e/bar",
    "a/b/c2/d/e/baz",
    "a/b/c2/d/e2/baz",
    "a/empty/",
    "x/y/a.txt",
    "x/y/b.txt",
    "x/y/c.md",
    "x/a.txt",
    "top.txt",
)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        # The manual's examples, and those of BuildKit's tests of --parents.
        ("./x/a.txt", "x/ x/a.txt"),
        ("./x/./y/*.txt", "y/ y/a.txt y/b.txt"),
        ("./x/**/*.txt", "x/ x/a.txt x/y/ x/y/a.txt x/y/b.txt"),
        ("/a/b/./c/d", "c/ c/d/ c/d/e/ c/d/e/bay c/d/foo"),
        ("/a/b/c/d/.", "a/ a/b/ a/b/c/ a/b/c/d/ a/b/c/d/e/ a/b/c/d/e/bay a/b/c/d/foo"),
        ("/a/./b/./c", "b/ b/c/ b/c/d/ b/c/d/e/ b/c/d/e/bay b/c/d/foo"),
        ("/a/./*/c", "b/ b/c/ b/c/d/ b/c/d/e/ b/c/d/e/bay b/c/d/foo b2/ b2/c/ b2/c/d/ b2/c/d/e/ b2/c/d/e/bar"),
        ("/a/b*/./c/**/e", "c/ c/ c/d/ c/d/ c/d/e/ c/d/e/ c/d/e/bar c/d/e/bay"),
        ("/a/b/c*/./d/**/baz", "d/ d/e/ d/e/baz d/e2/ d/e2/baz"),
        # A directory that matches is taken with all that is in it, also with nothing.
        ("a/empty", "a/ a/empty/"),
        ("a/e*", "a/ a/empty/"),
        ("**/d", "a/ a/b/ a/b/c/ a/b/c/d/ a/b/c/d/e/ a/b/c/d/e/bay a/b/c/d/foo a/b/c2/ a/b/c2/d/ "
                  "a/b/c2/d/e/ a/b/c2/d/e/baz a/b/c2/d/e2/ a/b/c2/d/e2/baz a/b2/ a/b2/c/ a/b2/c/d/ a/b2/c/d/e/ "
                  "a/b2/c/d/e/bar"),
        # What only leads to a match is taken for that alone.
        ("*/y/c.md", "x/ x/y/ x/y/c.md"),
        ("**/c.md", "x/ x/y/ x/y/c.md"),
        ("x/**", "x/ x/a.txt x/y/ x/y/a.txt x/y/b.txt x/y/c.md"),
        ("*.txt", "top.txt"),
        ("x/y**/a.txt", "x/ x/y/ x/y/a.txt"),
        ("[x]/\\y/a.txt", "x/ x/y/ x/y/a.txt"),
        ("x/./.", "a.txt y/ y/a.txt y/b.txt y/c.md"),
        ("../../x/./a.txt", "a.txt"),
        ("no*/x", ""),
        ("no*/./x", ""),
        ("x/no*", ""),
        ("top*/./x", ""),
        ("a/**/no", ""),
    ],
)  # fmt: skip
def test_sources_with_their_parents(tmp_path: Path, opened: Open, source: str, found: str) -> None:
    make(tmp_path, *TREE)
    assert paths_of(selections_with_parents(opened(""), ParentsSource(source), None)) == found.split()


def test_everything_is_what_a_plain_copy_takes(tmp_path: Path, opened: Open) -> None:
    make(tmp_path, *TREE, "a/link->b")
    everything = paths_of(selections(opened(""), "."))
    for source in (".", "./", "/", "*", "**", "a/.././."):
        assert paths_of(selections_with_parents(opened(""), ParentsSource(source), None)) == everything, source


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("no", "a source is relative"),
        ("x/no", "a source is relative"),
        ("no/./x", "a source is relative"),
        ("top.txt/./x", "a source is relative"),
        ("top.txt/x", "a source is relative"),
        ("hidden", ".dockerignore leaves it out"),
        ("x/./hidden", ".dockerignore leaves it out"),
        ("to-x/a.txt", "to-x is a link, and --parents keeps paths as they are: write to-x/./ to follow it"),
        (
            "./a/./to-x/y/a.txt",
            "./a/to-x is a link, and --parents keeps paths as they are: write ./a/to-x/./ to follow",
        ),
        ("a/to-x/y/a.txt", "a/to-x is a link, and --parents keeps paths as they are: write a/to-x/./ to follow it"),
    ],
)
def test_a_source_that_is_not_there(tmp_path: Path, opened: Open, source: str, hint: str) -> None:
    make(tmp_path, *TREE, "hidden/file", "x/hidden", "to-x->x", "a/to-x->/x")
    tree = opened("hidden\nx/hidden\n")
    with pytest.raises(MinidockError, match="is not found in the build context") as caught:
        selections_with_parents(tree, ParentsSource(source), None)
    assert repr(source) in caught.value.message
    assert hint in caught.value.hint


def test_links_before_the_pivot_are_followed_and_kept_after_it(tmp_path: Path, opened: Open) -> None:
    make(tmp_path, *TREE, "to-x->x", "a/to-x->/x", "a/loop->loop")
    tree = opened("")
    assert paths_of(selections_with_parents(tree, ParentsSource("a/to-x/./y/c.md"), None)) == ["y/", "y/c.md"]
    (selection,) = selections_with_parents(tree, ParentsSource("./to-x"), None)
    assert [(entry.name, entry.link) for entry in selection.groups[0].entries] == [("to-x", "x")]
    (selection,) = selections_with_parents(tree, ParentsSource("**/*o*"), None)
    assert {"to-x", "a/to-x", "a/loop"} < {*paths_of([selection])}


def test_sockets_are_passed_over(tmp_path: Path, opened: Open) -> None:
    make(tmp_path, "d/file")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "d/s"))
        assert paths_of(selections_with_parents(opened(""), ParentsSource("d"), None)) == ["d/", "d/file"]
        with pytest.raises(MinidockError, match="is not found"):
            selections_with_parents(opened(""), ParentsSource("d/s"), None)


@pytest.mark.parametrize("source", ["..", "a/..", "a/../b", "a/./../b", "/../a"])
def test_what_leads_up_cannot_be_kept(source: str) -> None:
    with pytest.raises(DockerfileError, match=r"COPY --parents cannot keep the '\.\.' of '"):
        ParentsSource(source)


@pytest.mark.parametrize("source", ["a/[", "[a-/b", "a/./b\\", "a/**/[]"])
def test_patterns_that_are_not_well_formed(source: str) -> None:
    with pytest.raises(DockerfileError, match="syntax error in the pattern"):
        ParentsSource(source)


def test_directories_that_cannot_matter_are_not_read(
    tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, *TREE)
    listed = []
    real = os.scandir

    def scandir(fd: int) -> object:
        listed.append(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), tmp_path))
        return real(fd)

    monkeypatch.setattr(os, "scandir", scandir)
    for source, directories in (
        ("x/y/c.md", []),
        ("x/y/*.md", ["x/y"]),
        ("*/y/c.md", ["."]),
        ("x/**/c.md", ["x", "x/y"]),
        ("a/b2/c", ["a/b2/c", "a/b2/c/d", "a/b2/c/d/e"]),
    ):
        listed.clear()
        selections_with_parents(opened(""), ParentsSource(source), None)
        assert listed == directories, source


@pytest.mark.parametrize(
    ("source", "patterns", "expected"),
    [
        # The manual's examples; the last is where a pattern without ** stays at its depth.
        ("hom*", ["*.txt"], ["home.md", "home.png"]),
        ("hom*", ["*.txt", "*.md"], ["home.png"]),
        (".", ["*.txt"], ["d/", "d/e/", "d/e/f.md", "d/e/f.txt", "d/f.md", "d/f.txt", "home.md", "home.png"]),
        (".", ["**/*.txt"], ["d/", "d/e/", "d/e/f.md", "d/f.md", "home.md", "home.png"]),
        ("d", ["*.txt"], ["e/", "e/f.md", "e/f.txt", "f.md"]),
        ("d", ["d/*.txt"], ["e/", "e/f.md", "e/f.txt", "f.md", "f.txt"]),
        ("d", ["/e"], ["f.md", "f.txt"]),
        ("d", ["e", "!e/f.md"], ["e/", "e/f.md", "f.md", "f.txt"]),
        ("d", ["!e/f.md", "e"], ["f.md", "f.txt"]),
        ("d", ["*"], []),
        ("d*", ["*"], []),
        ("d/f.txt", ["*.txt"], []),
        ("link", ["l*"], []),
        ("link", ["home*"], ["home.md"]),
        ("d/f.txt", ["*", "!*.txt"], ["f.txt"]),
        (".", ["", " ", "."], ["d/", "d/e/", "d/e/f.md", "d/e/f.txt", "d/f.md", "d/f.txt", "home.md", "home.png",
                               "home.txt"]),
    ],
)  # fmt: skip
def test_what_is_excluded(tmp_path: Path, opened: Open, source: str, patterns: list[str], expected: list[str]) -> None:
    make(tmp_path, "home.txt", "home.md", "home.png", "d/f.txt", "d/f.md", "d/e/f.txt", "d/e/f.md", "link->home.md")
    if source == ".":
        (tmp_path / "link").unlink()
    assert paths_of(selections(opened(""), source, IgnoreRules(patterns))) == expected


def test_an_excluded_directory_is_still_made(tmp_path: Path, opened: Open) -> None:
    make(tmp_path, "d/f")
    (selection,) = selections(opened(""), "d", IgnoreRules(["*"]))
    assert selection.empty


@pytest.mark.parametrize(
    ("source", "patterns", "expected"),
    [
        ("x", ["x/y"], ["x/", "x/a.txt"]),
        ("x", ["y"], ["x/", "x/a.txt", "x/y/", "x/y/a.txt", "x/y/b.txt", "x/y/c.md"]),
        ("x/./y", ["y/*.txt"], ["y/", "y/c.md"]),
        ("x/**/*.txt", ["**/y"], ["x/", "x/a.txt"]),
        ("x/**/*.txt", ["x", "!x/y"], ["x/", "x/y/", "x/y/a.txt", "x/y/b.txt"]),
        ("x/a.txt", ["**/a.txt"], []),
        ("x/y", ["*"], []),
    ],
)
def test_what_is_excluded_with_parents(
    tmp_path: Path, opened: Open, source: str, patterns: list[str], expected: list[str]
) -> None:
    make(tmp_path, *TREE)
    assert paths_of(selections_with_parents(opened(""), ParentsSource(source), IgnoreRules(patterns))) == expected


def test_a_source_that_is_not_there_is_an_error_whatever_is_excluded(tmp_path: Path, opened: Open) -> None:
    make(tmp_path, *TREE)
    rules = IgnoreRules(["no", "**/no", "top.txt"])
    with pytest.raises(MinidockError, match="'no' is not found"):
        selections(opened(""), "no", rules)
    with pytest.raises(MinidockError, match="'x/no' is not found"):
        selections_with_parents(opened(""), ParentsSource("x/no"), rules)


def test_ignore_rules_count_first(tmp_path: Path, opened: Open) -> None:
    make(tmp_path, *TREE)
    tree = opened("*\n!x/y\n!a/b*\n")
    assert paths_of(selections(tree, ".", IgnoreRules(["**/*.txt", "a/b", "!top.txt"]))) == [
        "a/", "a/b2/", "a/b2/c/", "a/b2/c/d/", "a/b2/c/d/e/", "a/b2/c/d/e/bar", "x/", "x/y/", "x/y/c.md",
    ]  # fmt: skip
    assert paths_of(selections_with_parents(tree, ParentsSource("*/*"), IgnoreRules(["a"]))) == [
        "x/", "x/y/", "x/y/a.txt", "x/y/b.txt", "x/y/c.md",
    ]  # fmt: skip


NAMES = ["a", "b", "ab", "c.x"]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)
PATTERNS = st.lists(st.sampled_from([*NAMES, "*", "a*", "?", "**", "*.x", "[ab]"]), min_size=1, max_size=4).map(
    "/".join
)


def by_components(pattern: list[str], path: list[str]) -> bool:
    """Whether a pattern matches a path or something above it: by the manual's words, and slowly."""
    if not pattern:
        return True
    if pattern[0] == "**":
        rest = pattern[1:]
        if not rest:
            return bool(path)
        return any(by_components(rest, path[start:]) for start in range(len(path) + 1))
    return bool(path) and match(pattern[0], path[0]) and by_components(pattern[1:], path[1:])


@settings(deadline=None, max_examples=200)
@given(PATTERNS, st.lists(PATHS, max_size=8))
def test_a_pattern_selects_what_its_words_say(pattern: str, paths: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for path in paths:
            (root / path).mkdir(parents=True, exist_ok=True)
        there = {str(path.relative_to(root)) for path in root.rglob("*")}
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            tree = SourceTree(fd, name="it", keep_owner=False)
            found = {path.rstrip("/") for path in paths_of([select_below(tree, "", choice=ParentsSource(pattern))])}
        finally:
            os.close(fd)
    matched = {path for path in there if by_components(pattern.split("/"), path.split("/"))}
    on_the_way = {path for path in there if any(other.startswith(f"{path}/") for other in matched)}
    assert found == matched | on_the_way
