"""What a build says no to: files that cannot be read, forms without an executor, paths in the way."""

from __future__ import annotations

import os
from typing import Any, NamedTuple, get_args

import pytest

from minidock.build.executors.find import executor_of
from minidock.dockerfile.instructions import Instruction, Location
from minidock.errors import BuildError, DockerfileError, UsageError

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="COPY makes files root's; without root that is refused")


class Teleport(NamedTuple):
    location: Location


def test_every_instruction_has_an_executor() -> None:
    for kind in get_args(Instruction):
        name = f"minidock.build.executors.{kind.__name__.lower()}"
        assert executor_of(kind.__new__(kind, *[()] * len(kind._fields))).__name__ == name  # type: ignore[attr-defined]


def test_an_instruction_without_executor_is_refused_by_name() -> None:
    with pytest.raises(DockerfileError, match="TELEPORT is not executed"):
        executor_of(Teleport(Location(1, 1, "TELEPORT")))  # type: ignore[arg-type]


def test_dockerfile_is_found_by_either_name(shop: Any) -> None:
    with pytest.raises(UsageError, match="there is no Dockerfile"):
        shop.build(None)
    (shop.context / "dockerfile").write_text("FROM scratch\nENV a=lower\n")
    assert "a=lower" in shop.build(None).config.config["Env"]
    (shop.context / "Dockerfile").write_text("FROM scratch\nENV a=upper\n")
    assert "a=upper" in shop.build(None).config.config["Env"]
    (shop.context / "other").write_text("FROM scratch\nENV a=other\n")
    os.symlink("other", shop.context / "link")
    assert "a=other" in shop.build(None, dockerfile=str(shop.context / "link")).config.config["Env"]


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "binary", "link out", "loop"])
def test_dockerfile_that_cannot_be_read(shop: Any, kind: str) -> None:
    path = shop.context / "Dockerfile"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link out":
        os.symlink("/etc/passwd", path)
    elif kind == "loop":
        os.symlink("Dockerfile", path)
    elif kind == "binary":
        path.write_bytes(b"FROM scratch\nENV a=\xff\n")
    with pytest.raises(UsageError, match="Dockerfile") as caught:
        shop.build(None, dockerfile=str(path))
    assert caught.value.exit_status == 125


@pytest.mark.parametrize("bad", ["\0", "\udcff"])
def test_text_that_no_environment_can_hold(shop: Any, bad: str) -> None:
    with pytest.raises(UsageError, match=r"the Dockerfile (is not UTF-8|holds a NUL)"):
        shop.build(f"FROM scratch\nCOPY a{bad} /\n")
    with pytest.raises(UsageError, match=r"the build argument 'A' (is not UTF-8|holds a NUL)"):
        shop.build("FROM scratch\nARG A\n", build_args=[("A", bad)])
    with pytest.raises(UsageError, match=r"the label 'l' (is not UTF-8|holds a NUL)"):
        shop.build("FROM scratch\n", labels=[("l", bad)])


def test_a_bad_ignore_pattern_names_its_line(shop: Any) -> None:
    (shop.context / ".dockerignore").write_text("fine\n[\n")
    with pytest.raises(DockerfileError, match="syntax error") as caught:
        shop.build("FROM scratch\n")
    assert (caught.value.filename, caught.value.line) == (".dockerignore", 2)


def test_global_argument_that_cannot_be_expanded(shop: Any) -> None:
    with pytest.raises(DockerfileError) as caught:
        shop.build("ARG A=1\nARG B=${A\nFROM scratch\n")
    assert caught.value.line == 2


def test_trigger_that_cannot_be_read(shop: Any) -> None:
    shop.base("base", {"x": "x"}, OnBuild=["NOSUCH thing"])
    with pytest.raises(BuildError, match=r"ONBUILD 'NOSUCH thing' cannot be read: .*unknown instruction") as caught:
        shop.build("FROM scratch\nFROM base\n")
    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ADD --unpack a /d/", "a is not a tar archive"),
        ("WORKDIR /f/below", "cannot make the working directory /f/below"),
        ("COPY a /f/below/a", "a file is in the way"),
        ("COPY . /f", "not a directory"),
        ("COPY a /f/", "not a directory"),
        ("COPY a* /new", "needs a directory as destination"),
        ("COPY --chmod=99 a /", "invalid mode '99'"),
        ("COPY --chown=: a /", "invalid user ':'"),
        ("USER 1:2:3", "invalid user '1:2:3'"),
        ("ENV a=${x?gone}", "gone"),
        ("STOPSIGNAL SIGNOTHING", "SIGNOTHING"),
    ],
)
def test_failures_name_their_line(shop: Any, line: str, message: str) -> None:
    for name in ("a", "aa"):
        (shop.context / name).write_text("text")
    with pytest.raises(BuildError) as caught:
        shop.build(f"FROM scratch\nRUN write /f F\n{line}\n", tags=["t"])
    assert message in caught.value.message
    assert (caught.value.line, caught.value.exit_status) == (3, 1)
    assert shop.images.list() == []


def test_kernel_s_answer_is_told_with_the_path(shop: Any) -> None:
    (shop.context / "loop").symlink_to("loop")
    with pytest.raises(BuildError, match="loop: Too many levels of symbolic links"):
        shop.build("FROM scratch\nCOPY loop /\n")
