"""Connections: through which proxy, with which certificates."""

from __future__ import annotations

import ssl
import warnings

import pytest
import urllib3

from minidock.errors import MinidockError
from minidock.transport.pools import open_pool


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, "http://a.test/", None),
        ({"http_proxy": "http://p.test:8080"}, "http://a.test/", "http://p.test:8080"),
        ({"http_proxy": "p.test:8080"}, "http://a.test/", "http://p.test:8080"),
        ({"http_proxy": "http://p.test"}, "https://a.test/", None),
        ({"https_proxy": "https://p.test"}, "https://a.test/", "https://p.test:443"),
        ({"all_proxy": "http://p.test"}, "https://a.test/", "http://p.test:80"),
        ({"http_proxy": "http://p.test", "no_proxy": "a.test"}, "http://a.test/", None),
        ({"http_proxy": "http://p.test", "no_proxy": ".test"}, "http://a.test:5000/", None),
        ({"http_proxy": "http://p.test", "no_proxy": "b.test"}, "http://a.test/", "http://p.test:80"),
    ],
)
def test_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str, proxy: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    pool = open_pool(url)
    found = pool.proxy.url if isinstance(pool, urllib3.ProxyManager) and pool.proxy else None
    assert found == proxy


def test_a_proxy_that_wants_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:p%40ss@p.test:3128")
    pool = open_pool("http://a.test/")
    assert isinstance(pool, urllib3.ProxyManager)
    assert pool.proxy_headers == {"proxy-authorization": "Basic bWU6cEBzcw=="}
    assert pool.proxy is not None
    assert pool.proxy.auth is None


@pytest.mark.parametrize(
    "proxy", ["socks5://p.test", "http://", "http://me:hidden@p.test:x", "http://me:hidden@p test"]
)
def test_a_proxy_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(MinidockError, match="cannot use the proxy") as caught:
        open_pool("http://a.test/")
    assert "hidden" not in str(caught.value)


def test_what_is_not_verified_is_not_warned_of_and_changes_no_filter() -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    filters = list(warnings.filters)
    pool = open_pool("https://127.0.0.1:1/", context=context)
    with pytest.raises(urllib3.exceptions.HTTPError):
        pool.request("GET", "https://127.0.0.1:1/", retries=False)
    assert warnings.filters == filters
