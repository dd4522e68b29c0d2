"""The algebra of --cap-add and --cap-drop."""

from __future__ import annotations

import pytest

from minidock.errors import UsageError
from minidock.kernel import caps
from minidock.model.capabilities import ALL, DEFAULT, effective_set

EVERYTHING = frozenset(ALL)


def result(add: str = "", drop: str = "", available: frozenset[str] = EVERYTHING) -> frozenset[str]:
    return effective_set(add=add.split(), drop=drop.split(), available=available)


def test_the_default_is_dockers_fourteen() -> None:
    assert result() == DEFAULT
    assert caps.mask(DEFAULT) == 0xA80425FB


def test_the_names_are_the_kernels_in_its_order() -> None:
    assert [caps.NAMES[name] for name in ALL] == list(range(41))


@pytest.mark.parametrize("name", ["SYS_ADMIN", "sys_admin", "CAP_SYS_ADMIN", "cap_sys_admin", "Cap_Sys_Admin"])
def test_names_in_any_case_with_and_without_the_prefix(name: str) -> None:
    assert result(add=name) == DEFAULT | {"CAP_SYS_ADMIN"}
    assert result(add="ALL", drop=name) == EVERYTHING - {"CAP_SYS_ADMIN"}


def test_adding_all_gives_everything_less_the_drops() -> None:
    assert result(add="ALL") == EVERYTHING
    assert result(add="all chown", drop="CHOWN MKNOD") == EVERYTHING - {"CAP_CHOWN", "CAP_MKNOD"}
    assert result(add="ALL", drop="ALL") == EVERYTHING


def test_dropping_all_leaves_what_is_added() -> None:
    assert result(drop="ALL") == frozenset()
    assert result(add="CHOWN KILL", drop="all") == {"CAP_CHOWN", "CAP_KILL"}
    assert result(add="CHOWN", drop="ALL CHOWN") == {"CAP_CHOWN"}


def test_drops_and_adds_change_the_default() -> None:
    assert result(add="NET_ADMIN", drop="CHOWN") == (DEFAULT - {"CAP_CHOWN"}) | {"CAP_NET_ADMIN"}
    assert result(add="CHOWN", drop="CHOWN") == DEFAULT


def test_nobody_gets_more_than_the_engine_has() -> None:
    few = frozenset({"CAP_CHOWN", "CAP_SYS_ADMIN"})
    assert result(available=few) == {"CAP_CHOWN"}
    assert result(add="ALL", available=few) == few
    with pytest.raises(UsageError, match="capability CAP_BPF is not available on this host"):
        result(add="BPF", available=few)
    with pytest.raises(UsageError, match="CAP_BPF"):
        result(add="ALL BPF", available=few)
    assert result(drop="BPF", available=few) == {"CAP_CHOWN"}


@pytest.mark.parametrize("name", ["", "CAP_", "NONSENSE", "CAP_ALL", "CHOWN ", "41", "cap_cap_chown"])
def test_unknown_names(name: str) -> None:
    for flag, values in (("--cap-add", {"add": [name], "drop": []}), ("--cap-drop", {"add": [], "drop": [name]})):
        with pytest.raises(UsageError) as caught:
            effective_set(available=EVERYTHING, **values)
        assert caught.value.message == f"unknown capability {name!r} in {flag}"
        assert caught.value.hint == "capabilities(7) lists them"
