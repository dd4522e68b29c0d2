"""Who serves a domain, and how it is spoken to."""

from __future__ import annotations

import pytest

from minidock.errors import UsageError
from minidock.registry.places import Place, Settings, is_local, places


def test_docker_hub_is_served_elsewhere() -> None:
    assert places("docker.io", Settings()) == [Place("registry-1.docker.io")]
    assert places("quay.test", Settings(default="https://hub.test")) == [Place("quay.test")]


def test_the_default_registry() -> None:
    assert places("docker.io", Settings(default="https://hub.test/")) == [Place("hub.test")]
    assert places("docker.io", Settings(default="hub.test:5000")) == [Place("hub.test:5000")]


def test_mirrors_come_first_and_are_marked() -> None:
    settings = Settings(mirrors={"docker.io": ["m1.test", "https://m2.test:5000"]})
    assert places("docker.io", settings) == [
        Place("m1.test", mirror=True),
        Place("m2.test:5000", mirror=True),
        Place("registry-1.docker.io"),
    ]
    assert places("other.test", settings) == [Place("other.test")]


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:5000", "LOCALHOST", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"]
)
def test_this_machine_may_do_without_tls(host: str) -> None:
    assert is_local(host)
    # Its certificate counts where it has one.
    assert places(host, Settings()) == [Place(host, ("https", "http"), True)]


@pytest.mark.parametrize(
    "host", ["localhost.test", "127.0.0.1.test", "10.0.0.1:5000", "[fe80::1]", "local", "notlocalhost:80", "128.0.0.1"]
)
def test_no_other_may(host: str) -> None:
    assert not is_local(host)
    assert places(host, Settings()) == [Place(host)]


def test_insecure_is_for_the_host_and_port_that_are_named() -> None:
    settings = Settings(insecure=("a.test:5000",))
    assert places("a.test:5000", settings) == [Place("a.test:5000", ("https", "http"), False)]
    assert places("a.test", settings) == [Place("a.test")]
    assert places("b.a.test:5000", settings) == [Place("b.a.test:5000")]


def test_a_scheme_in_the_configuration_is_the_only_one() -> None:
    settings = Settings(default="http://hub.test", insecure=("hub.test",))
    assert places("docker.io", settings) == [Place("hub.test", ("http",), False)]
    assert places("docker.io", Settings(default="https://localhost")) == [Place("localhost")]


def test_http_has_to_be_allowed() -> None:
    with pytest.raises(UsageError, match=r"'http://hub.test' in the configuration is without TLS") as caught:
        places("docker.io", Settings(default="http://hub.test"))
    assert caught.value.hint == "add 'hub.test' to insecure_registries to allow it"


@pytest.mark.parametrize(
    "text", ["", "a b", "ftp://a.test", "https://", "https://u:p@a.test", "a.test/path", "-a", "a\n", "a.test/"]
)
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(UsageError, match="in the configuration is no registry"):
        places("docker.io", Settings(mirrors={"docker.io": [text]}))
