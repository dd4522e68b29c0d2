"""The grammar of --sysctl and its allow-list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.errors import UsageError
from minidock.model.sysctls import parse_sysctl, parse_sysctls


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("net.core.somaxconn=1024", ("net.core.somaxconn", "1024")),
        ("net/core/somaxconn=1024", ("net.core.somaxconn", "1024")),
        ("net/ipv4/conf/eth0.7/forwarding=1", ("net/ipv4/conf/eth0.7/forwarding", "1")),
        ("net.ipv4.ping_group_range=0 100", ("net.ipv4.ping_group_range", "0 100")),
        ("fs.mqueue.msg_max=10", ("fs.mqueue.msg_max", "10")),
        ("kernel.sem=1 2 3 4", ("kernel.sem", "1 2 3 4")),
        ("kernel.shm_rmid_forced=1+kernel.core_pattern=|/x", ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/x")),
        ("kernel.msgmax=1\nkernel.core_pattern=x", ("kernel.msgmax", "1\nkernel.core_pattern=x")),
        ("kernel.msgmax=", ("kernel.msgmax", "")),
    ],
)
def test_one_name_and_one_value(text: str, expected: tuple[str, str]) -> None:
    assert parse_sysctl(text, network="bridge") == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "=1", "net.core.somaxconn", "kernel.core_pattern=|/x", "kernel.hostname=x", "vm.swappiness=1", "net=1"),
        *("kernel.shm_rmid_forced/../core_pattern=x", "net/../kernel/core_pattern=x", "net...kernel.core_pattern=x"),
        *("net.=1", "net..x=1", ".net.x=1", "/net/x=1", "net//x=1", "net/./x=1", "net/x/..=1", "net.x\n.y=1"),
        *("kernel.semx=1", "kernel.sem.x=1", "KERNEL.SEM=1", "fs.mqueue=1", "fs.file-max=1", "net.x y=1"),
        *("net.core.x=\0", "kernel.msgmax\0=1", "kernel.shm*=1"),
    ],
)
def test_what_is_not_the_containers_own(text: str) -> None:
    with pytest.raises(UsageError, match="sysctl") as caught:
        parse_sysctl(text, network="bridge")
    assert caught.value.exit_status == 125


def test_the_hosts_network_is_not_the_containers_own() -> None:
    with pytest.raises(UsageError, match=r"net\.core\.somaxconn is not allowed with --network host"):
        parse_sysctl("net.core.somaxconn=1", network="host")
    assert parse_sysctl("kernel.sem=1", network="host")
    assert parse_sysctl("net.core.somaxconn=1", network="none")


def test_the_last_of_a_name_counts() -> None:
    texts = ("kernel.sem=1", "kernel.msgmax=2", "kernel/sem=3")
    assert parse_sysctls(texts, network="none") == {"kernel.sem": "3", "kernel.msgmax": "2"}


@given(st.text(alphabet="netkrlfsmqu./=-0\n\0 .", max_size=40) | st.text(max_size=40))
def test_no_name_leads_anywhere_else(text: str) -> None:
    try:
        name, value = parse_sysctl(text, network="bridge")
    except UsageError:
        return
    parts = name.split("/") if "/" in name else name.split(".")
    assert ".." not in parts
    assert "" not in parts
    assert parts[0] in {"net", "fs", "kernel"}
    assert text.endswith(f"={value}")


@given(st.text(max_size=40).filter(lambda text: "\0" not in text))
def test_a_value_is_never_split(value: str) -> None:
    assert parse_sysctl(f"kernel.msgmax={value}", network="bridge") == ("kernel.msgmax", value)
