"""The grammar of --device and --device-cgroup-rule."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.errors import UsageError
from minidock.model.devices import DeviceRequest, is_taken, parse_device, parse_device_rule


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/dev/sda", ("/dev/sda", "/dev/sda", "rwm")),
        ("/dev/sda:/dev/xvda", ("/dev/sda", "/dev/xvda", "rwm")),
        ("/dev/sda:r", ("/dev/sda", "/dev/sda", "r")),
        ("/dev/sda:/dev/xvda:mr", ("/dev/sda", "/dev/xvda", "mr")),
        ("/dev//snd/", ("/dev/snd", "/dev/snd", "rwm")),
        ("/x/../tmp/disk:/dev/a/b", ("/tmp/disk", "/dev/a/b", "rwm")),
        ("/dev/rwm", ("/dev/rwm", "/dev/rwm", "rwm")),
        ("/dev:/dev:r", ("/dev", "/dev", "r")),
    ],
)
def test_devices(text: str, expected: tuple[str, str, str]) -> None:
    assert parse_device(text) == DeviceRequest(*expected)


@pytest.mark.parametrize(
    "text",
    [
        *("", "sda", "dev/sda", ":/dev/x", "/dev/a:", "/dev/a:b", "/dev/a:/dev/b:", "/dev/a:/dev/b:x", "/dev/a:rr"),
        *("/dev/a:/dev/b:rw:m", "/dev/a:/b", "/dev/a:/dev/../etc/x", "/tmp/a", "/dev/a:/dev/b:rwmr", "/dev/a\n"),
        *("/dev/a:/dev/ptmx", "/dev/a:/dev/pts/0", "/dev/a:/dev/fd", "/dev/a:/dev/./shm/x", "/dev/console", "/dev/\0"),
        *("vendor.com/gpu=0", "/dev/a:/developer"),
    ],
)
def test_what_is_no_device(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_device(text)
    assert repr(text) in caught.value.message
    assert caught.value.exit_status == 125


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c 10:200 rwm", {"type": "c", "major": 10, "minor": 200, "access": "rwm"}),
        ("b 8:* rm", {"type": "b", "major": 8, "access": "rm"}),
        ("a *:* rwm", {"type": "a", "access": "rwm"}),
        ("c *:7 rr", {"type": "c", "minor": 7, "access": "r"}),
        ("c 4095:1048575 mwr", {"type": "c", "major": 4095, "minor": 1048575, "access": "rwm"}),
        ("c 00000000001:3 r", {"type": "c", "major": 1, "minor": 3, "access": "r"}),
    ],
)
def test_rules(text: str, expected: dict[str, Any]) -> None:
    assert parse_device_rule(text) == {"allow": True, **expected}


@pytest.mark.parametrize(
    "text",
    [
        *("", "c 10:200", "d 1:3 r", "c 1:3 x", "c 1 r", "c 1:3:4 r", " c 1:3 r", "c 1:3 r ", "c  1:3 r", "c 1:3 rwmr"),
        *(
            "c 4096:1 r",
            "c 1:1048576 r",
            "c -1:1 r",
            "c 1:3 r\n",
            "c \u0661:3 r",
            "C 1:3 r",
            "c 1:" + "9" * 5000 + " r",
        ),
    ],
)
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_device_rule(text)
    assert repr(text) in caught.value.message


def test_places_of_a_container_s_own() -> None:
    assert is_taken("/dev/pts")
    assert is_taken("/dev/shm/x")
    assert is_taken("/dev/stdin")
    assert not is_taken("/dev/ptsx")
    assert not is_taken("/dev/null")


@given(
    st.text(max_size=30)
    | st.builds(":".join, st.lists(st.sampled_from(["/dev/a", "/x", "rwm", "r", "", "/dev/.."]), max_size=4))
)
def test_any_device_is_read_or_refused(text: str) -> None:
    try:
        request = parse_device(text)
    except UsageError:
        return
    assert request.host.startswith("/")
    assert request.container == "/dev" or request.container.startswith("/dev/")
    assert ".." not in request.container.split("/")
    assert re.fullmatch("[rwm]{1,3}", request.access)
