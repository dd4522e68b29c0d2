"""Mount options, taken apart for the kernel."""

from __future__ import annotations

import pytest

from minidock.kernel import mount as km
from minidock.runtime.options import parse_options


@pytest.mark.parametrize(
    ("options", "attrs"),
    [
        ("nosuid noexec nodev", km.MOUNT_ATTR_NOSUID | km.MOUNT_ATTR_NOEXEC | km.MOUNT_ATTR_NODEV),
        ("ro rw", 0),
        ("rw ro", km.MOUNT_ATTR_RDONLY),
        ("noexec exec nosuid", km.MOUNT_ATTR_NOSUID),
        ("strictatime noatime", km.MOUNT_ATTR_NOATIME),
        ("noatime strictatime nosuid", km.MOUNT_ATTR_STRICTATIME | km.MOUNT_ATTR_NOSUID),
        ("noatime relatime", 0),
        ("noatime atime nodiratime", km.MOUNT_ATTR_NODIRATIME),
    ],
)
def test_of_two_that_contradict_each_other_the_later_counts(options: str, attrs: int) -> None:
    assert parse_options(options.split()).attrs == attrs


def test_the_rest() -> None:
    parsed = parse_options(["rbind", "rslave", "rro", "size=64k", "flag", "newinstance"])
    assert (parsed.bind, parsed.recursive) == (True, True)
    assert (parsed.propagation, parsed.propagation_recursive) == (km.MS_SLAVE, True)
    assert (parsed.attrs, parsed.recursive_attrs) == (0, km.MOUNT_ATTR_RDONLY)
    assert parsed.data == (("size", "64k"), ("flag", None))
    one = parse_options(["bind", "shared"])
    assert (one.recursive, one.propagation, one.propagation_recursive) == (False, km.MS_SHARED, False)
    assert parse_options([]).propagation == km.MS_PRIVATE
