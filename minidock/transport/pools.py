"""Connections to servers over HTTP, through the proxy that the environment says (``https_proxy``, ``no_proxy``)."""

from __future__ import annotations

import re
import ssl
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.util import make_headers

from minidock.errors import MinidockError


def open_pool(url: str, *, connections: int = 1, context: ssl.SSLContext | None = None) -> urllib3.PoolManager:
    """What keeps up to ``connections`` connections to the host of ``url``; whoever is done with it calls ``clear``.

    ``context`` stands in for the usual one, which knows the host's certificate authorities. Raises MinidockError for a
    proxy that makes no sense.
    """
    options: dict[str, Any] = {"maxsize": connections, "block": True, "ssl_context": context}
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    if proxy and not proxy_bypass(parts.netloc, proxies):
        return _through(proxy if "://" in proxy else f"http://{proxy}", options)
    manager = urllib3.PoolManager(num_pools=2, **options)
    if context is not None and context.verify_mode == ssl.CERT_NONE:
        manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "https": _Unverified}
    return manager


class _Unverified(urllib3.HTTPSConnectionPool):
    """What a person has allowed by name is not warned of at each connection; a filter of warnings would be the whole
    process's."""

    def _validate_conn(self, conn: Any) -> None:
        if conn.is_closed:
            conn.connect()


def _through(proxy: str, options: dict[str, Any]) -> urllib3.ProxyManager:
    headers = {}
    try:
        parts = urlsplit(proxy)
        if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\x00-\x20\x7f\\]", proxy):
            raise ValueError("it is no http or https URL")
        if parts.username or parts.password:
            named = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
            headers = make_headers(proxy_basic_auth=named)
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        return urllib3.ProxyManager(place, num_pools=2, proxy_headers=headers, **options)
    except (ValueError, UnicodeError, urllib3.exceptions.HTTPError) as error:
        # What stands before '@' is nobody's to see.
        shown = re.sub(r"//.*@", "//xxxxx@", proxy)[:200]
        raise MinidockError(
            f"cannot use the proxy {shown!r}: {error}", hint="look at *_proxy in the environment"
        ) from None
