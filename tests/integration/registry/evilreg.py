"""evilreg: a registry that does what a test tells it, on loopback, in the tests' own process.

It holds manifests, indexes and blobs that are made in memory, and answers as distribution does. ``on`` puts an action
before that: a function that is handed the exchange and answers in its own way. It is a proxy, too: a client whose
``http_proxy`` it is reaches it under any name of a host, so that there are other hosts. Everything that was asked is
kept in ``asked``.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.server
import io
import json
import re
import socket
import ssl
import tarfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import zstandard

from minidock.model.oci import (
    CONFIG,
    DOCKER_CONFIG,
    DOCKER_INDEX,
    DOCKER_LAYER_GZIP,
    DOCKER_MANIFEST,
    INDEX,
    LAYER_GZIP,
    LAYER_TAR,
    LAYER_ZSTD,
    MANIFEST,
)

_FORMS: dict[str, Callable[[bytes], bytes]] = {
    LAYER_TAR: bytes,
    LAYER_GZIP: lambda data: gzip.compress(data, 1, mtime=0),
    LAYER_ZSTD: lambda data: zstandard.ZstdCompressor().compress(data),
    DOCKER_LAYER_GZIP: lambda data: gzip.compress(data, 1, mtime=0),
}


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar_of(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


class Layer(NamedTuple):
    """A layer: its bytes on the wire, and what they unpack to."""

    data: bytes
    media_type: str
    diff_id: str

    @property
    def digest(self) -> str:
        return digest_of(self.data)

    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.data)}


def layer(files: Mapping[str, bytes], media_type: str = LAYER_GZIP) -> Layer:
    tar = tar_of(files)
    return Layer(_FORMS[media_type](tar), media_type, digest_of(tar))


class Asked(NamedTuple):
    """A request: ``host`` is whom it was for, ``path`` has the query, headers have lower-case names."""

    method: str
    host: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


class Exchange:
    """A request in the hands of an action."""

    def __init__(self, registry: EvilRegistry, handler: Any, asked: Asked) -> None:
        self.registry = registry
        self.handler = handler
        self.asked = asked

    @property
    def path(self) -> str:
        return self.asked.path.partition("?")[0]

    def answer(self, status: int = 200, body: bytes | str = b"", **headers: str) -> None:
        """A whole answer; ``_`` in a header's name stands for ``-``."""
        data = body.encode() if isinstance(body, str) else body
        self.head(status, **{"Content_Length": str(len(data)), **headers})
        self.send(data)

    def head(self, status: int = 200, **headers: str) -> None:
        self.handler.send_response(status)
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.end_headers()

    def send(self, data: bytes) -> None:
        if self.asked.method != "HEAD":
            # In pieces, so that what was counted was sent but for one.
            for start in range(0, len(data), 1 << 16):
                piece = data[start : start + (1 << 16)]
                self.handler.wfile.write(piece)
                self.registry.sent += len(piece)

    def hang_up(self) -> None:
        self.handler.close_connection = True

    def endless(self, piece: bytes) -> None:
        """Send the same for ever."""
        while not self.registry.closing.is_set():
            self.send(piece)

    def stall(self) -> None:
        """Answer nothing more, until the registry is closed or released."""
        self.registry.released.wait(60)
        self.hang_up()


Action = Callable[[Exchange], object]


class EvilRegistry:
    """See the module. ``host`` is ``127.0.0.1:PORT``; ``sent`` counts bytes of bodies."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.asked: list[Asked] = []
        self.sent = 0
        self.closing = threading.Event()
        self.released = threading.Event()
        self._actions: list[list[Any]] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        context = None
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
        self._http = _Server(self, context)
        self.host = f"127.0.0.1:{self._http.server_address[1]}"
        self.url = f"{'https' if certificate else 'http'}://{self.host}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self.closing.set()
        self.released.set()
        self._http.shutdown()
        self._thread.join()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._http.server_close()

    # What it holds

    def blob(self, data: bytes) -> str:
        self.blobs[digest_of(data)] = data
        return digest_of(data)

    def manifest(self, name: str, value: object, media_type: str = MANIFEST, *, tag: str = "latest") -> str:
        """Have a manifest or index (an object, or bytes) under a tag and its digest."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.manifests[name, tag] = self.manifests[name, digest_of(data)] = media_type, data
        return digest_of(data)

    def image(self, name: str, *layers: Layer, tag: str = "latest", docker: bool = False, **changes: Any) -> str:
        """Have a whole image; its digest. ``changes`` are the configuration's."""
        for one in layers:
            self.blob(one.data)
        config = config_of(layers, **changes)
        self.blob(config)
        return self.manifest(
            name, manifest_of(config, layers, docker=docker), DOCKER_MANIFEST if docker else MANIFEST, tag=tag
        )

    def index(self, name: str, entries: Sequence[tuple[str, dict[str, Any]]], *, tag: str, docker: bool = False) -> str:
        """Have an index of manifests that it holds by digest, with their platforms."""
        found = []
        for digest, platform in entries:
            media_type, data = self.manifests[name, digest]
            found.append({"mediaType": media_type, "digest": digest, "size": len(data), "platform": platform})
        kind = DOCKER_INDEX if docker else INDEX
        return self.manifest(name, {"schemaVersion": 2, "mediaType": kind, "manifests": found}, kind, tag=tag)

    # What it does

    def on(self, part: str, action: Action, *, times: int = -1) -> None:
        """Have ``action`` answer requests whose host and path hold the regular expression ``part``, so many times. The
        latest that fits is the one."""
        self._actions.insert(0, [re.compile(part), action, times])

    def clear(self) -> None:
        self._actions.clear()

    def paths(self, part: str = "") -> list[str]:
        """The paths that were asked for, those that hold ``part``."""
        return [asked.path for asked in self.asked if part in asked.path]

    def with_secret(self, *secrets: str) -> set[str]:
        """The hosts that were told one of these texts, plain or in base64."""
        found = set()
        for asked in self.asked:
            text = f"{asked.path} {asked.headers} {asked.body!r}"
            for blob in re.findall(r"Basic ([A-Za-z0-9+/=]+)", text):
                text += base64.b64decode(blob).decode(errors="replace")
            if any(secret in text for secret in secrets):
                found.add(asked.host)
        return found

    def take(self, host: str, path: str) -> Action | None:
        with self._lock:
            for entry in self._actions:
                pattern, action, times = entry
                if times and pattern.search(f"{host}{path}"):
                    entry[2] -= 1
                    found: Action = action
                    return found
        return None

    def serve(self, exchange: Exchange) -> None:
        """As a good registry answers."""
        path = exchange.path
        if path == "/v2/":
            exchange.answer(200, "{}")
        elif match := re.fullmatch(r"/v2/(.+)/manifests/(.+)", path):
            found = self.manifests.get((match[1], match[2]))
            if found is None:
                exchange.answer(404, json.dumps({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "unknown"}]}))
            else:
                exchange.answer(200, found[1], Content_Type=found[0], Docker_Content_Digest=digest_of(found[1]))
        elif match := re.fullmatch(r"/v2/(.+)/blobs/(.+)", path):
            data = self.blobs.get(match[2])
            begin = re.fullmatch(r"bytes=(\d+)-", exchange.asked.headers.get("range", ""))
            if data is None:
                exchange.answer(404, json.dumps({"errors": [{"code": "BLOB_UNKNOWN", "message": "unknown"}]}))
            elif begin:
                start = int(begin[1])
                said = f"bytes {start}-{len(data) - 1}/{len(data)}"
                exchange.answer(206, data[start:], Content_Range=said)
            else:
                exchange.answer(200, data)
        elif match := re.fullmatch(r"/v2/(.+)/tags/list", path):
            tags = sorted(tag for name, tag in self.manifests if name == match[1] and ":" not in tag)
            exchange.answer(200, json.dumps({"name": match[1], "tags": tags}))
        else:
            exchange.answer(404)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self, registry: EvilRegistry, context: ssl.SSLContext | None) -> None:
        self.registry = registry
        self.context = context
        super().__init__(("127.0.0.1", 0), _Handler)

    def get_request(self) -> tuple[Any, Any]:
        sock, address = super().get_request()
        # An answer is written in several parts, which must not wait for each other.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.registry._lock:
            self.registry._open.add(sock)
        if self.context is not None:
            # The handshake is made by the thread that reads: one who never ends it stops nobody else.
            plain = sock
            sock = self.context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            with self.registry._lock:
                self.registry._open.discard(plain)
                self.registry._open.add(sock)
        return sock, address

    def shutdown_request(self, request: Any) -> None:
        with self.registry._lock:
            self.registry._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, *_: Any) -> None:
        return


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def handle(self) -> None:
        # A client that was killed, hung up, or does not trust us.
        with contextlib.suppress(OSError, ValueError):
            super().handle()

    def answer(self) -> None:
        registry: EvilRegistry = self.server.registry  # type: ignore[attr-defined]
        parts = urlsplit(self.path) if self.path.startswith("http") else None
        path = self.path
        host = self.headers.get("Host", "")
        if parts is not None:
            host, path = parts.netloc, parts.path + (f"?{parts.query}" if parts.query else "")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(self.command, host, path, headers, body)
        registry.asked.append(asked)
        exchange = Exchange(registry, self, asked)
        action = registry.take(host, path)
        if action is not None:
            action(exchange)
        else:
            registry.serve(exchange)

    do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815 - the base's names

    def do_CONNECT(self) -> None:
        # Nobody behind this proxy speaks TLS.
        self.send_error(502)


def config_of(layers: Sequence[Layer], **changes: Any) -> bytes:
    value = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers]},
        "history": [],
        **changes,
    }
    return json.dumps(value).encode()


def manifest_of(config: bytes, layers: Sequence[Layer], *, docker: bool = False) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST if docker else MANIFEST,
        "config": {
            "mediaType": DOCKER_CONFIG if docker else CONFIG,
            "digest": digest_of(config),
            "size": len(config),
        },
        "layers": [one.descriptor() for one in layers],
    }
