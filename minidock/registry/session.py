"""Requests to one server of a registry: authentication, redirects, patience, and errors in words.

Sources: OCI distribution-spec 1.1; distribution's token authentication (``Bearer`` with ``realm``, ``service`` and
``scope``, OAuth2 for identity tokens); RFC 9110. Redirects are followed here, each looked at: credentials go to the
server itself and to no other, and none leads from https to http.
"""

from __future__ import annotations

import base64
import re
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

import urllib3
from urllib3.util import Timeout

from minidock import __version__
from minidock.errors import RegistryError
from minidock.registry import retry
from minidock.registry.answers import MAX_ERROR, decode, read_all, refusal
from minidock.registry.challenges import parse_challenges
from minidock.registry.retry import Patience
from minidock.registry.trust import may_know, place_of, tls_context
from minidock.transport.pools import open_pool
from minidock.transport.reasons import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from minidock.registry.challenges import Challenge
    from minidock.registry.credentials import Credentials
    from minidock.registry.places import Place

CONNECT = 20.0
READ = 60.0
_REDIRECTS = 5
_MOVED = frozenset({301, 302, 303, 307, 308})
_MAX_TOKEN = 64 << 10
# More requests at once than this come to nothing but waiting.
_CONNECTIONS = 8

Body = bytes | None


class Answered(NamedTuple):
    """An answer, and the URL that gave it in the end."""

    response: urllib3.BaseHTTPResponse
    url: str


class Session:
    """A server of one repository. Used by several threads; ``close`` when done.

    ``repository`` is the path without the host; ``actions`` are what it is asked for: ``pull`` or ``pull,push``;
    ``credentials`` gives those of the server, when it asks for them.
    """

    __slots__ = (
        "_authorization",
        "_base",
        "_credentials",
        "_given",
        "_lock",
        "_patience",
        "_pools",
        "_scopes",
        "_tls",
        "actions",
        "debug",
        "place",
        "repository",
    )

    def __init__(
        self,
        place: Place,
        repository: str,
        *,
        actions: str,
        credentials: Callable[[], Credentials | None],
        certificates: tuple[str, ...] = (),
        patience: Patience = Patience(),  # noqa: B008 - a frozen value
        debug: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.place = place
        self.repository = repository
        self.actions = actions
        self.debug = debug
        self._credentials = credentials
        self._patience = patience
        self._tls = tls_context(place, certificates)
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._lock = threading.Lock()
        self._authorization = ""
        self._given = False
        self._scopes = [f"repository:{repository}:{actions}"] if repository else []
        self._base = f"{place.schemes[0]}://{place.host}" if len(place.schemes) == 1 else ""

    def close(self) -> None:
        for pool in self._pools.values():
            pool.clear()
        self._pools.clear()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def authorized(self) -> bool:
        """Whether credentials of a person were given to the server."""
        return self._given

    def allow(self, repository: str) -> None:
        """Ask, from the next authentication on, also for reading another repository of the server."""
        scope = f"repository:{repository}:pull"
        with self._lock:
            if scope not in self._scopes:
                self._scopes.append(scope)
                self._authorization = ""

    def leads_to(self, answered: Answered, *, what: str) -> str:
        """Where an answer's ``Location`` leads. Raises RegistryError for what is no place to go."""
        return self._redirected(answered.url, answered.response.headers.get("Location", ""), what)

    @contextmanager
    def request(
        self,
        method: str,
        path: str,
        *,
        what: str,
        headers: Mapping[str, str] | None = None,
        body: Body | Callable[[], object] = None,
        expect: Collection[int] = (200,),
        again: bool = True,
    ) -> Iterator[Answered]:
        """One answer, whose body is not read yet. ``path`` is below the server's ``/v2/``, or a whole URL that the
        server has given; ``body`` may be what makes a body, anew for each try; ``again`` says whether what failed on
        its way may be sent again. ``what`` is what is to be done, for errors.

        Raises RegistryError for any status that is not expected, and for whatever keeps an answer from coming.
        """
        failures, asked = 0, False
        while True:
            try:
                answered = self._send(method, self._url(path), dict(headers or {}), body, what)
            except urllib3.exceptions.HTTPError as error:
                failures += 1
                if not again or failures >= self._patience.tries or not _passing(error):
                    raise self._failure(what, self.place.host, error) from error
                self.debug(f"registry: {method} failed: {reason_of(error, connect=CONNECT, read=READ)}; trying again")
                self._patience.wait(failures)
                continue
            response = answered.response
            try:
                if response.status in expect:
                    yield answered
                    return
                if response.status == 401 and not asked and self._is_own(answered.url):
                    asked = True
                    self._authenticate(response, what)
                    continue
                if response.status in retry.STATUSES and again and failures + 1 < self._patience.tries:
                    failures += 1
                    after = response.headers.get("Retry-After", "")
                    self.debug(f"registry: {method} answered {response.status}; trying again")
                    response.close()
                    self._patience.wait(failures, asked=after)
                    continue
                raise refusal(response, what=what, host=self.place.host, authorized=self._given)
            except urllib3.exceptions.HTTPError as error:
                # The body has ended, or never came.
                raise self._failure(what, self.place.host, error) from error
            finally:
                response.close()
                response.release_conn()

    def _failure(self, what: str, host: str, error: urllib3.exceptions.HTTPError) -> RegistryError:
        reason = reason_of(error, connect=CONNECT, read=READ)
        return RegistryError(f"cannot {what}: {host}: {reason}", hint=_hint(error, host))

    def _url(self, path: str) -> str:
        return path if "://" in path else f"{self._origin()}/v2/{path}"

    def _origin(self) -> str:
        """``https://HOST``, or http where that may be and nothing else answers."""
        with self._lock:
            if not self._base:
                self._base = self._probe()
            return self._base

    def _probe(self) -> str:
        *first, last = self.place.schemes
        for scheme in first:
            base = f"{scheme}://{self.place.host}"
            try:
                answer = self._pool(base).request(
                    "GET",
                    f"{base}/v2/",
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    timeout=Timeout(connect=CONNECT, read=READ),
                )
                # Its body may have no end.
                answer.close()
                answer.release_conn()
            except urllib3.exceptions.HTTPError as error:
                self.debug(f"registry: no {scheme}: {reason_of(error, connect=CONNECT, read=READ)}")
                if "certificate" in str(error).lower():
                    return base
            else:
                return base
        return f"{last}://{self.place.host}"

    def _pool(self, url: str) -> urllib3.PoolManager:
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        pool = self._pools.get(origin)
        if pool is None:
            # What the settings say of the registry's host is not said of another one.
            own = origin.rpartition("//")[2] == self.place.host
            pool = open_pool(url, connections=_CONNECTIONS, context=self._tls if own else None)
            pool = self._pools.setdefault(origin, pool)
        return pool

    def _send(
        self, method: str, url: str, headers: dict[str, str], body: Body | Callable[[], object], what: str
    ) -> Answered:
        headers |= {"User-Agent": f"minidock/{__version__}", "Accept-Encoding": "identity"}
        for _ in range(_REDIRECTS + 1):
            own = {"Authorization": self._authorization} if self._authorization and self._is_own(url) else {}
            response = self._pool(url).request(
                method,
                url,
                headers={**headers, **own},
                body=body() if callable(body) else body,  # type: ignore[arg-type]
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=Timeout(connect=CONNECT, read=READ),
            )
            shown = urlsplit(url)
            self.debug(f"registry: {method} {shown.scheme}://{shown.netloc}{shown.path}: {response.status}")
            if response.status not in _MOVED or method not in ("GET", "HEAD"):
                return Answered(response, url)
            location = response.headers.get("Location", "")
            response.close()
            response.release_conn()
            url = self._redirected(url, location, what)
        raise RegistryError(f"cannot {what}: {self.place.host} redirects more than {_REDIRECTS} times")

    def _redirected(self, url: str, location: str, what: str) -> str:
        try:
            found = urljoin(url, location) if location and not any(c <= " " or c == "\x7f" for c in location) else ""
        except ValueError:
            found = ""
        if place_of(found) is None:
            # Behind '?' there may be a signature, and before '@' a password.
            shown = re.sub(r"//[^/]*@", "//xxxxx@", location.partition("?")[0])[:200]
            raise RegistryError(f"cannot {what}: {self.place.host} redirects to {shown!r}, which is no place to go")
        if url.startswith("https:") and not found.startswith("https:"):
            raise RegistryError(f"cannot {what}: {self.place.host} redirects from https to http, which is not followed")
        return found

    def _is_own(self, url: str) -> bool:
        return bool(self._base) and url.startswith(f"{self._base}/")

    def _authenticate(self, response: urllib3.BaseHTTPResponse, what: str) -> None:
        """Find what the server lets in. Raises RegistryError."""
        found = parse_challenges(response.headers.get("WWW-Authenticate", ""))
        ways = {challenge.scheme: challenge for challenge in reversed(found)}
        if "bearer" in ways:
            self._set(f"Bearer {self._token(ways['bearer'], what)}")
            return
        credentials = self._credentials()
        if "basic" in ways and credentials is not None and credentials.user:
            self._given = True
            self._set(_basic(credentials))
            return
        raise refusal(response, what=what, host=self.place.host, authorized=self._given)

    def _set(self, authorization: str) -> None:
        with self._lock:
            self._authorization = authorization

    def _token(self, challenge: Challenge, what: str) -> str:
        realm = challenge.parameters.get("realm", "")
        parts = place_of(realm)
        if parts is None:
            shown = re.sub(r"//[^/]*@", "//xxxxx@", realm)[:200]
            raise RegistryError(f"cannot {what}: {self.place.host} names no place that gives tokens: {shown!r}")
        if self._base.startswith("https:") and parts.scheme != "https":
            raise RegistryError(f"cannot {what}: {self.place.host} wants a token to be asked for without TLS")
        credentials = self._credentials() if may_know(self.place.host, parts.netloc) else None
        self._given = credentials is not None
        fields = [("service", challenge.parameters.get("service", ""))]
        scopes = self._scopes or challenge.parameters.get("scope", "").split(" ")
        headers = {"User-Agent": f"minidock/{__version__}"}
        options: dict[str, object] = {"redirect": False, "retries": False, "preload_content": False}
        pool, timeout = self._pool(realm), Timeout(connect=CONNECT, read=READ)
        if credentials is not None and not credentials.user:
            form = [*fields, ("grant_type", "refresh_token"), ("client_id", "minidock"), ("scope", " ".join(scopes))]
            data = urlencode([*form, ("refresh_token", credentials.secret)])
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            options["body"] = data
            method, url = "POST", realm
        else:
            if credentials is not None:
                headers["Authorization"] = _basic(credentials)
                fields.append(("account", credentials.user))
            query = urlencode([(name, text) for name, text in fields if text] + [("scope", s) for s in scopes if s])
            method, url = "GET", f"{realm}{'&' if parts.query else '?'}{query}"
        answer = self._patiently(
            lambda: pool.request(method, url, headers=headers, timeout=timeout, **options),  # type: ignore[arg-type]
            parts.netloc,
            what,
        )
        try:
            self.debug(f"registry: token from {parts.scheme}://{parts.netloc}{parts.path}: {answer.status}")
            if answer.status != 200:
                raise refusal(answer, what=what, host=parts.netloc, login=self.place.host, authorized=self._given)
            which = f"cannot {what}: the token of {parts.netloc}"
            value = decode(read_all(answer, limit=MAX_ERROR, what=which), what=which)
        finally:
            answer.close()
            answer.release_conn()
        token = (value.get("token") or value.get("access_token")) if isinstance(value, dict) else None
        if not isinstance(token, str) or len(token) > _MAX_TOKEN or not token.isascii() or not token.isprintable():
            raise RegistryError(f"cannot {what}: {parts.netloc} gives no token, and {self.place.host} wants one")
        return token

    def _patiently(
        self, send: Callable[[], urllib3.BaseHTTPResponse], host: str, what: str
    ) -> urllib3.BaseHTTPResponse:
        """The answer of a token server, which is asked again as the registry itself is."""
        for failures in range(1, self._patience.tries + 1):
            last, after = failures == self._patience.tries, ""
            try:
                answer = send()
            except urllib3.exceptions.HTTPError as error:
                if last or not _passing(error):
                    raise self._failure(what, host, error) from error
            else:
                if last or answer.status not in retry.STATUSES:
                    break
                after = answer.headers.get("Retry-After", "")
                answer.close()
                answer.release_conn()
            self._patience.wait(failures, asked=after)
        return answer


def _basic(credentials: Credentials) -> str:
    text = base64.b64encode(f"{credentials.user}:{credentials.secret}".encode()).decode()
    return f"Basic {text}"


def _passing(error: urllib3.exceptions.HTTPError) -> bool:
    """Whether it may go better the next time: not where a name, a certificate or a protocol is wrong."""
    return not isinstance(
        error, urllib3.exceptions.SSLError | urllib3.exceptions.LocationValueError
    ) and not isinstance(error, urllib3.exceptions.NameResolutionError | urllib3.exceptions.NewConnectionError)


def _hint(error: urllib3.exceptions.HTTPError, host: str) -> str:
    if not isinstance(error, urllib3.exceptions.SSLError):
        return ""
    if "certificate" in str(error).lower():
        return f"put its authority's certificate into /etc/minidock/certs.d/{host}/ca.crt"
    return f"if it has no TLS, add {host!r} to insecure_registries in the configuration"
