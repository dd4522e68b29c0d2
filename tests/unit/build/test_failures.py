"""What a failed step tells."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from minidock.build.failures import advice, build_error
from minidock.dockerfile.excerpt import Source
from minidock.dockerfile.instructions import Location
from minidock.errors import BuildError


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (1, "the next build goes on from here"),
        (126, "cannot be executed"),
        (127, "was not found"),
        (137, "memory"),
        (139, "segmentation fault"),
        (143, "signal 15 ended it"),
        (255, "see the end of its output"),
    ],
)
def test_advice_goes_by_the_exit_status(status: int, words: str) -> None:
    assert words in advice(status)


def test_a_failed_command_has_its_place_its_status_and_advice(shop: Any) -> None:
    with pytest.raises(BuildError, match="exit code: 3") as caught:
        shop.build("FROM scratch\nRUN write /a A\n\nRUN fail\n")
    assert caught.value.line == 4
    assert ">>> RUN fail" in caught.value.excerpt
    assert caught.value.hint == advice(3)


def test_a_full_disk_is_told_with_what_to_do() -> None:
    source = Source("Dockerfile", "FROM scratch\nCOPY a /\n")
    error = build_error(source, Location(2, 2, "COPY a /"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert error.message == "no space left on device"
    assert error.hint.startswith("free some space: ")
    assert ">>> COPY a /" in error.excerpt
