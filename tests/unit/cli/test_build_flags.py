"""``build``'s flags for progress and outputs, over a stand-in engine."""

from __future__ import annotations

from typing import Any

import pytest


def test_outputs_reach_the_engine(run: Any, engine: Any) -> None:
    engine.results["build"] = "sha256:b"
    run(
        *("build", "-o", "out", "--output", "type=tar,dest=f", "--label", "a=b", "--label", "c", "--annotation", "d=e"),
        *("--iidfile", "i", "--metadata-file", "m", "--squash", "."),
    )
    given = engine.calls[0][2]
    assert {
        name: given[name] for name in ("outputs", "labels", "annotations", "iidfile", "metadata_file", "squash")
    } == {
        "outputs": ("out", "type=tar,dest=f"),
        "labels": ("a=b", "c"),
        "annotations": ("d=e",),
        "iidfile": "i",
        "metadata_file": "m",
        "squash": True,
    }
    assert given["stdout"] == 1


def test_without_them_the_engine_decides(run: Any, engine: Any) -> None:
    engine.results["build"] = "sha256:b"
    run("build", ".")
    assert not {"outputs", "stdout", "iidfile", "metadata_file", "squash", "progress_form"} & engine.calls[0][2].keys()


def test_rawjson_is_the_engines(run: Any, engine: Any) -> None:
    engine.results["build"] = "sha256:b"
    assert run("build", "--progress", "rawjson", ".").out == ""
    given = engine.calls[0][2]
    assert (given["progress"], given["progress_form"], given["quiet"]) == (2, "rawjson", False)


@pytest.mark.parametrize("kind", ["auto", "plain"])
def test_what_is_no_terminal_gets_plain_lines(
    run: Any, engine: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("os.isatty", lambda _: kind == "plain")
    engine.results["build"] = "sha256:b"
    run("build", "--progress", kind, ".")
    assert "progress_form" not in engine.calls[0][2]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--progress", "loud"), "there is no progress 'loud'"),
        (("--progress", "tty"), "needs a terminal"),
        (("-q", "-o", "-"), "cannot both go to standard output"),
        (("-q", "-o", "type=oci"), "cannot both go to standard output"),
        (("--label", "=x"), "invalid value '=x' for --label"),
    ],
)
def test_what_makes_no_sense(run: Any, engine: Any, flags: tuple[str, ...], sentence: str) -> None:
    done = run("build", *flags, ".")
    assert (done.status, engine.calls) == (125, [])
    assert sentence in done.err
