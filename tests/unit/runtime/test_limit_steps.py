"""Limits that were asked for: raised where that may be, refused in a sentence where not."""

from __future__ import annotations

import resource
from typing import Any

import pytest

from minidock.errors import ContainerStartError
from minidock.runtime import limit_steps
from minidock.runtime.limit_steps import raise_limit


class Kernel:
    """The caller's limits, and whether it has CAP_SYS_RESOURCE."""

    def __init__(self, soft: int, hard: int, *, capable: bool) -> None:
        self.soft, self.hard, self.capable = soft, hard, capable

    def get(self, _: int) -> tuple[int, int]:
        return self.soft, self.hard

    def set(self, _: int, limits: tuple[int, int]) -> None:
        if not self.capable:
            raise ValueError("not allowed to raise maximum limit")
        self.soft, self.hard = limits


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(soft: int, hard: int, *, capable: bool) -> Kernel:
        made = Kernel(soft, hard, capable=capable)
        monkeypatch.setattr(resource, "getrlimit", made.get)
        monkeypatch.setattr(resource, "setrlimit", made.set)
        return made

    return make


@pytest.mark.parametrize(("hard", "after"), [(20, 100), (100, 100), (101, 101), (-1, -1)])
def test_only_what_is_lower_is_raised(kernel: Any, hard: int, after: int) -> None:
    made = kernel(10, 100, capable=True)
    raise_limit("RLIMIT_CORE", hard)
    assert (made.soft, made.hard) == (10, after)


def test_no_limit_is_above_all(kernel: Any) -> None:
    made = kernel(10, -1, capable=False)
    raise_limit("RLIMIT_CORE", -1)
    raise_limit("RLIMIT_CORE", 2**63 - 1)
    assert (made.soft, made.hard) == (10, -1)


@pytest.mark.parametrize(("hard", "shown"), [(101, "101"), (-1, "unlimited")])
def test_without_the_capability_the_error_names_it(kernel: Any, hard: int, shown: str) -> None:
    kernel(10, 100, capable=False)
    with pytest.raises(ContainerStartError) as caught:
        raise_limit("RLIMIT_MEMLOCK", hard)
    assert caught.value.message == (
        f"cannot set ulimit memlock to {shown}: the engine's own hard limit is 100, and without CAP_SYS_RESOURCE it "
        "cannot raise it"
    )
    assert caught.value.hint == "use at most --ulimit memlock=100"


@pytest.mark.parametrize("hard", [2000, -1])
def test_the_kernel_s_own_bound_of_descriptors(
    kernel: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, hard: int
) -> None:
    (tmp_path / "nr_open").write_text("1000\n")
    monkeypatch.setattr(limit_steps, "_NR_OPEN", str(tmp_path / "nr_open"))
    kernel(10, 100, capable=False)
    with pytest.raises(ContainerStartError, match=r"fs\.nr_open is 1000"):
        raise_limit("RLIMIT_NOFILE", hard)
    (tmp_path / "nr_open").write_text("nonsense")
    with pytest.raises(ContainerStartError, match="CAP_SYS_RESOURCE"):
        raise_limit("RLIMIT_NOFILE", hard)
