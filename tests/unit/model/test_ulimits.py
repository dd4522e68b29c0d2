"""The grammar of --ulimit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.errors import UsageError
from minidock.kernel.process import limit_number
from minidock.model.ulimits import NAMES, UNLIMITED, Ulimit, parse_ulimit, parse_ulimits

NUMBERS = st.integers(0, 2**63 - 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nofile=1024", Ulimit("nofile", 1024, 1024)),
        ("nofile=1024:2048", Ulimit("nofile", 1024, 2048)),
        ("core=-1", Ulimit("core", UNLIMITED, UNLIMITED)),
        ("core=0:unlimited", Ulimit("core", 0, UNLIMITED)),
        ("memlock=unlimited:-1", Ulimit("memlock", UNLIMITED, UNLIMITED)),
        ("as=9223372036854775807", Ulimit("as", 2**63 - 1, 2**63 - 1)),
    ],
)
def test_limits(text: str, expected: Ulimit) -> None:
    assert parse_ulimit(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "nofile",
            "nofile=",
            "=1",
            "nofile=1:",
            "nofile=:1",
            "nofile=1:2:3",
            "nofile=-2",
            "nofile=x",
            "nofile=1.5",
        ),
        *("nofile=20:10", "nofile=-1:10", "nofile=unlimited:1", "NOFILE=1", "RLIMIT_NOFILE=1", "files=1", "nofile= 1"),
        *("nofile=9223372036854775808", "nofile=+1", "nofile=1_0", "nofile=\u0661", "nofile=" + "9" * 5000),
    ],
)
def test_what_is_no_limit(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_ulimit(text)
    assert repr(text) in caught.value.message
    assert caught.value.exit_status == 125


def test_the_last_of_a_name_counts() -> None:
    assert parse_ulimits(("cpu=1", "core=0", "cpu=2")) == (Ulimit("cpu", 2, 2), Ulimit("core", 0, 0))


@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_has_every_name(name: str) -> None:
    assert 0 <= limit_number(parse_ulimit(f"{name}=1").kernel_name) < 16
    assert len({limit_number(other) for other in NAMES}) == len(NAMES) == 16


@given(st.sampled_from(NAMES), NUMBERS, NUMBERS)
def test_round_trip(name: str, one: int, two: int) -> None:
    soft, hard = sorted((one, two))
    assert parse_ulimit(f"{name}={soft}:{hard}") == Ulimit(name, soft, hard)


@given(st.text(max_size=30) | st.builds("nofile={}:{}".format, st.text(max_size=20), st.text(max_size=20)))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        limit = parse_ulimit(text)
    except UsageError:
        return
    assert limit.soft <= limit.hard <= UNLIMITED
