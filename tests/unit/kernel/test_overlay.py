"""The overlay mount: what is decided before the kernel is asked."""

from __future__ import annotations

import pytest

from minidock.kernel import overlay


def test_overlay_of_nothing() -> None:
    with pytest.raises(OSError, match="at least one lower"):
        overlay.overlay([])


def test_unknown_strategy() -> None:
    with pytest.raises(ValueError, match="'magic'"):
        overlay.overlay(["/a", "/b"], strategy="magic")


@pytest.mark.parametrize("strategy", ["string", "thread"])
def test_descriptors_go_by_themselves(strategy: str) -> None:
    with pytest.raises(ValueError, match=f"{strategy!r} takes no descriptors"):
        overlay.overlay(["/a", 7], strategy=strategy)


@pytest.mark.parametrize(
    ("release", "lowers", "upper", "expected"),
    [
        ("6.18.44-generic", ["/l/1", "/l/2"] * 200, "", "append"),
        ("6.7.0", ["/l/1"], "/u", "append"),
        ("7.0-rc1", ["/l/1"], "/u", "append"),
        ("6.6-rc7", ["/l/1"], "/u", "string"),
        ("6.1.0-18-amd64", ["/l/1", "/l/2"], "/u", "string"),
        ("5.10.0", ["/l/1", "/l/2"], "", "string"),
        ("6.6.9", ["/" + "x" * 127, "/" + "y" * 125], "", "string"),
        ("6.6.9", ["/" + "x" * 127, "/" + "y" * 126], "", "thread"),
        ("6.1.0", ["/l/1"], "/" + "u" * 255, "thread"),
        ("6.1.0", ["/l/a:b", "/l/2"], "", "thread"),
        ("6.1.0", ["/l/a,b", "/l/2"], "", "thread"),
        ("6.1.0", ["/l/a\\b", "/l/2"], "", "thread"),
        ("6.1.0", ["/l/1"], "/u,v", "thread"),
    ],
)
def test_strategy_by_kernel_and_paths(
    monkeypatch: pytest.MonkeyPatch, release: str, lowers: list[str], upper: str, expected: str
) -> None:
    class Uname:
        pass

    name = Uname()
    name.release = release  # type: ignore[attr-defined]
    monkeypatch.setattr(overlay.os, "uname", lambda: name)
    assert overlay._strategy(lowers, upper, upper and "/w") == expected
