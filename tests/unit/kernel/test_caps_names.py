from __future__ import annotations

import pytest

from minidock.kernel import caps


def status_mask(field: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith(f"{field}:"))


def test_names_are_numbered_without_a_gap() -> None:
    assert list(caps.NAMES.values()) == list(range(41))
    assert caps.NAMES["CAP_CHOWN"] == 0
    assert caps.NAMES["CAP_SYS_ADMIN"] == 21
    assert caps.NAMES["CAP_CHECKPOINT_RESTORE"] == 40


def test_last_cap_is_the_kernels() -> None:
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        assert caps.last_cap() == int(file.read())


def test_sets_agree_with_proc() -> None:
    known = (1 << len(caps.NAMES)) - 1
    assert caps.mask(caps.bounding_set()) == status_mask("CapBnd") & known
    assert caps.mask(caps.effective_set()) == status_mask("CapEff") & known


def test_mask_is_docker_s_default_as_proc_prints_it() -> None:
    names = (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
        "AUDIT_WRITE"
    )
    assert caps.mask(frozenset(f"CAP_{name}" for name in names.split())) == 0xA80425FB


def test_unknown_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="CAP_NONSENSE"):
        caps.mask(frozenset({"CAP_NONSENSE"}))
