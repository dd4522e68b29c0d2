"""What a failed step tells."""

from __future__ import annotations

from typing import Any

import pytest

from minidock.build.failures import advice
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
