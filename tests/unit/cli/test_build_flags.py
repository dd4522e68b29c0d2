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


def test_platform_and_what_leaves_the_image_reach_the_engine(run: Any, engine: Any) -> None:
    engine.results["build"] = "sha256:b"
    run("build", "--platform", "arm64", "--pull", "--unsetenv", "A", "--unsetenv", "B", "--unsetlabel", "l", ".")
    given = engine.calls[0][2]
    assert {name: given[name] for name in ("platform", "pull", "unsetenv", "unsetlabel")} == {
        "platform": "arm64",
        "pull": True,
        "unsetenv": ("A", "B"),
        "unsetlabel": ("l",),
    }
    run("build", ".")
    assert not {"platform", "pull", "unsetenv", "unsetlabel", "attestations"} & engine.calls[1][2].keys()


def test_what_is_to_be_attested_reaches_the_engine(run: Any, engine: Any) -> None:
    engine.results["build"] = "sha256:b"
    run("build", "--attest", "type=provenance,mode=max", "--sbom=false", ".")
    run("build", "--provenance", "mode=max", ".")
    assert [call[2]["attestations"] for call in engine.calls] == [
        ("type=provenance,mode=max", "type=sbom,disabled=true"),
        ("type=provenance,mode=max",),
    ]


def test_flags_that_ask_for_what_is_so_anyway_change_nothing(run: Any, engine: Any) -> None:
    engine.results["build"] = "sha256:b"
    run("build", ".")
    run("build", "--rm", "--force-rm=false", "--compress", "--load", "--call=build", ".")
    assert engine.calls[0] == engine.calls[1]
    run("build", "--load", "-o", "out", ".")
    assert engine.calls[2][2]["outputs"] == ("out", "type=image")


def test_debug_of_build_is_that_of_the_command(run: Any, engine: Any) -> None:
    engine.results["build"] = "sha256:b"
    run("build", "-D", ".")
    assert engine.made_with["debug"] is True
    run("build", ".")
    assert engine.made_with["debug"] is False


def test_call_check_is_check(run: Any, engine: Any) -> None:
    engine.results["lint"] = ((), None)
    run("build", "--call", "check", "--platform", "arm64", ".")
    run("build", "--check", "--platform", "arm64", ".")
    assert engine.calls[0] == engine.calls[1]
    assert (engine.calls[0][0], engine.calls[0][2]["platform"]) == ("lint", "arm64")
    done = run("build", "--call", "outline", ".")
    assert (done.status, len(engine.calls)) == (125, 2)
    assert "there is no method 'outline' of --call" in done.err
