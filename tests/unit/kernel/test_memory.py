"""Memory that is had from the kernel."""

from __future__ import annotations

import resource

from minidock.kernel.memory import mapped, populate


def test_populated_memory_is_writable_and_has_no_more_faults() -> None:
    view = mapped(8 << 20)
    assert len(view) == 8 << 20
    populate(view)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for offset in range(0, len(view), 4096):
        view[offset] = 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 200


def test_what_is_written_before_the_pages_come_stays() -> None:
    view = mapped(1 << 20)
    view[5000:5003] = b"abc"
    populate(view)
    assert bytes(view) == b"abc".rjust(5003, b"\0").ljust(1 << 20, b"\0")


def test_views_keep_it() -> None:
    part = mapped(10)[2:4]
    part[:] = b"ab"
    assert part == b"ab"
