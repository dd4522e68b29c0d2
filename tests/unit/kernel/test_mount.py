"""Mounts: what is decided before the kernel is asked."""

from __future__ import annotations

import errno

import pytest

from minidock.kernel import mount


def test_options_that_the_kernel_would_cut_are_refused() -> None:
    with pytest.raises(OSError, match="mount options of 4096 bytes") as caught:
        mount.mount("overlay", "/nonexistent", "overlay", 0, "x" * 4096)
    assert (caught.value.errno, caught.value.filename) == (errno.E2BIG, "/nonexistent")


def test_errors_name_the_path() -> None:
    for call in (
        lambda: mount.umount2("/nonexistent"),
        lambda: mount.open_tree("/nonexistent"),
        lambda: mount.mount("", "/nonexistent", "tmpfs", 0),
    ):
        with pytest.raises(OSError, match="/nonexistent") as caught:
            call()
        assert caught.value.errno in (errno.ENOENT, errno.EPERM)
