from __future__ import annotations

from pathlib import Path

import pytest

from minidock.network import resolvconf

HOST = """\
# made by a program
; another comment
search old.example
nameserver 127.0.0.53
nameserver 192.0.2.53
nameserver 2001:db8::53
nameserver
search corp.example lan
options ndots:2 edns0
"""


def test_hosts() -> None:
    assert resolvconf.hosts_text("web", "10.90.0.2") == "127.0.0.1\tlocalhost\n10.90.0.2\tweb\n"
    assert resolvconf.hosts_text("web", "") == "127.0.0.1\tlocalhost\n"


def test_hosts_with_extra_names() -> None:
    text = resolvconf.hosts_text(
        "web", "10.90.0.2", [("db", "10.0.0.9"), ("host.internal", "host-gateway")], gateway="10.90.0.1"
    )
    assert text.splitlines() == [
        "127.0.0.1\tlocalhost",
        "10.0.0.9\tdb",
        "10.90.0.1\thost.internal",
        "10.90.0.2\tweb",
    ]


def test_hosts_with_ipv6() -> None:
    lines = resolvconf.hosts_text("web", "10.90.0.2", ipv6=True).splitlines()
    assert "::1\tlocalhost ip6-localhost ip6-loopback" in lines
    assert "ff02::2\tip6-allrouters" in lines
    assert lines[-1] == "10.90.0.2\tweb"


def test_hostname() -> None:
    assert resolvconf.hostname_text("0123456789ab") == "0123456789ab\n"


def test_resolv_keeps_what_a_container_can_reach() -> None:
    assert resolvconf.resolv_text(HOST) == "nameserver 192.0.2.53\nsearch corp.example lan\noptions ndots:2 edns0\n"


def test_resolv_with_ipv6() -> None:
    assert resolvconf.nameservers(resolvconf.resolv_text(HOST, ipv6=True)) == ["192.0.2.53", "2001:db8::53"]
    assert resolvconf.nameservers(resolvconf.resolv_text("nameserver ::1\nnameserver fe80::1%2\n", ipv6=True)) == [
        "fe80::1%2"
    ]


def test_resolv_in_the_host_s_network_keeps_everything() -> None:
    text = resolvconf.resolv_text(HOST, own_namespace=False)
    assert resolvconf.nameservers(text) == ["127.0.0.53", "192.0.2.53", "2001:db8::53"]


def test_resolv_never_falls_back_to_a_public_server() -> None:
    assert resolvconf.resolv_text("nameserver 127.0.0.1\nnameserver 0.0.0.0\nnameserver ::1\n") == ""
    assert resolvconf.resolv_text("") == ""


def test_resolv_with_wishes() -> None:
    text = resolvconf.resolv_text(HOST, servers=["127.0.0.1", "198.51.100.1"], search=["x.example"], options=["rotate"])
    assert text == "nameserver 127.0.0.1\nnameserver 198.51.100.1\nsearch x.example\noptions rotate\n"
    assert "search" not in resolvconf.resolv_text(HOST, search=["."])


def test_domain_counts_as_search() -> None:
    assert "search corp.example\n" in resolvconf.resolv_text("domain corp.example\nnameserver 192.0.2.1\n")


@pytest.mark.parametrize(
    ("host", "real", "expected"),
    [
        ("nameserver 127.0.0.53\n", "nameserver 192.0.2.1\n", ["192.0.2.1"]),
        ("nameserver 127.0.0.53\n", None, ["127.0.0.53"]),
        ("nameserver 127.0.0.53\n", "# none\n", ["127.0.0.53"]),
        ("nameserver 198.51.100.1\nnameserver 127.0.0.53\n", "nameserver 192.0.2.1\n", ["198.51.100.1", "127.0.0.53"]),
        (None, "nameserver 192.0.2.1\n", []),
    ],
)
def test_host_resolvers(tmp_path: Path, host: str | None, real: str | None, expected: list[str]) -> None:
    for name, text in (("host", host), ("real", real)):
        if text is not None:
            (tmp_path / name).write_text(text)
    text = resolvconf.host_resolvers(host_file=str(tmp_path / "host"), resolved_file=str(tmp_path / "real"))
    assert resolvconf.nameservers(text) == expected


def test_container_resolv_conf_is_the_host_s_without_the_unreachable() -> None:
    expected = resolvconf.resolv_text(resolvconf.host_resolvers())
    assert resolvconf.container_resolv_conf() == expected
    assert resolvconf.container_resolv_conf(servers=["192.0.2.1"]).startswith("nameserver 192.0.2.1\n")
