"""Mounts: what is decided before the kernel is asked."""

from __future__ import annotations

import errno

import pytest

from minidock.kernel import mount


def test_options_that_the_kernel_would_cut_are_refused() -> None:
    with pytest.raises(OSError, match="mount options of 4096 bytes") as caught:
        mount.mount("overlay", "/nonexistent", "overlay", 0, "x" * 4096)
    assert (caught.value.errno, caught.value.filename) == (errno.E2BIG, "/nonexistent")


def test_overlay_of_nothing() -> None:
    with pytest.raises(OSError, match="at least one lower"):
        mount.overlay([])


def test_unknown_strategy() -> None:
    with pytest.raises(ValueError, match="'magic'"):
        mount.overlay(["/a", "/b"], strategy="magic")


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
        ("6.6.9", ["/" + "x" * 127, "/" + "y" * 126], "", "child"),
        ("6.1.0", ["/l/1"], "/" + "u" * 255, "child"),
        ("6.1.0", ["/l/a:b", "/l/2"], "", "child"),
        ("6.1.0", ["/l/a,b", "/l/2"], "", "child"),
        ("6.1.0", ["/l/a\\b", "/l/2"], "", "child"),
        ("6.1.0", ["/l/1"], "/u,v", "child"),
    ],
)
def test_strategy_by_kernel_and_paths(
    monkeypatch: pytest.MonkeyPatch, release: str, lowers: list[str], upper: str, expected: str
) -> None:
    class Uname:
        pass

    name = Uname()
    name.release = release  # type: ignore[attr-defined]
    monkeypatch.setattr(mount.os, "uname", lambda: name)
    assert mount._overlay_strategy(lowers, upper, upper and "/w") == expected


def test_errors_name_the_path() -> None:
    for call in (
        lambda: mount.umount2("/nonexistent"),
        lambda: mount.open_tree("/nonexistent"),
        lambda: mount.mount("", "/nonexistent", "tmpfs", 0),
    ):
        with pytest.raises(OSError, match="/nonexistent") as caught:
            call()
        assert caught.value.errno in (errno.ENOENT, errno.EPERM)
