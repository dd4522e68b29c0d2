"""Servers on loopback: files over HTTP and HTTPS as a test scripts them, and git repositories over smart HTTP."""

from __future__ import annotations

import contextlib
import http.server
import os
import ssl
import subprocess
import threading
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any, NamedTuple

Handler = http.server.BaseHTTPRequestHandler


class Asked(NamedTuple):
    """One request: its path with the query, and its headers."""

    path: str
    headers: dict[str, str]


class Server:
    """``files`` are served with their version (ETag, Last-Modified) and answer conditions; ``actions`` are called with
    the handler for their path instead; below ``/git/`` is what lies in ``repositories``."""

    def __init__(self, folder: Path, certificate: Path | None) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.actions: dict[str, Callable[[Any], None]] = {}
        self.asked: list[Asked] = []
        self.sent: list[int] = []
        self.repositories = folder
        self.password = ""
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.place = f"127.0.0.1:{self._http.server_address[1]}"
        self.scheme = "https" if certificate else "http"
        self.url = f"{self.scheme}://{self.place}"
        # Their connections are closed with the server.
        self._http.daemon_threads = False
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def file(self, path: str, content: bytes, **headers: str) -> str:
        """Serve ``content``; its URL."""
        self.files[path] = content
        self.headers[path] = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.url + path

    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]

    def _handler(self) -> type[Handler]:
        server = self

        class _Handler(Handler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                return

            def handle(self) -> None:
                # A client that was killed, or does not trust us.
                with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
                    super().handle()

            def do_GET(self) -> None:  # noqa: N802 - the base's name
                server.answer(self)

            def do_POST(self) -> None:  # noqa: N802 - the base's name
                server.answer(self)

        return _Handler

    def answer(self, handler: Any) -> None:
        self.asked.append(Asked(handler.path, {name.lower(): value for name, value in handler.headers.items()}))
        path = handler.path.partition("?")[0]
        if path in self.actions:
            self.actions[path](handler)
        elif path.startswith("/git/"):
            self._git(handler)
        elif path in self.files:
            self._file(handler, path)
        else:
            self.reply(handler, 404, b"no such file\n")

    def reply(self, handler: Any, status: int, body: bytes = b"", **headers: str) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if status != 304:
            handler.wfile.write(body)
            self.sent.append(len(body))

    def _file(self, handler: Any, path: str) -> None:
        headers = self.headers[path]
        asked = handler.headers
        same = asked.get("If-None-Match") == headers.get("ETag", " ") or (
            "If-None-Match" not in asked and asked.get("If-Modified-Since") == headers.get("Last-Modified", " ")
        )
        if same:
            self.reply(handler, 304, **headers)
        else:
            self.reply(handler, 200, self.files[path], **headers)

    def _git(self, handler: Any) -> None:
        """git-http-backend(1), as a web server calls it."""
        if self.password and handler.headers.get("Authorization") != f"Basic {self.password}":
            self.reply(handler, 401, b"", WWW_Authenticate='Basic realm="git"')
            return
        path, _, query = handler.path.removeprefix("/git").partition("?")
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.repositories),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": handler.command,
            "CONTENT_TYPE": handler.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": handler.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": handler.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(["git", "http-backend"], env=environment, input=body, capture_output=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(headers.pop("Status", "200").split()[0])
        self.reply(handler, status, content, **headers)


def date(seconds: int) -> str:
    """A time as HTTP writes it."""
    return formatdate(seconds, usegmt=True)


class Repository:
    """A bare repository that is served, and a place to work on it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.bare = folder / name
        self.work = folder.with_name("work") / name
        self.environment = {
            **os.environ,
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@example.org",
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@example.org",
            "GIT_AUTHOR_DATE": "@1500000000 +0000",
            "GIT_COMMITTER_DATE": "@1500000000 +0000",
            "GIT_ALLOW_PROTOCOL": "file:http",
        }
        self.work.mkdir(parents=True)
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(self.bare))
        self.git("init", "--quiet", "--initial-branch=main", ".")
        self.git("remote", "add", "origin", str(self.bare))

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.work, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, **files: str) -> str:
        """Commit files, ``__`` for ``/`` and ``_`` for ``.`` in their names, and push them; the commit."""
        for name, content in files.items():
            path = self.work / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=x")
        self.git("push", "--quiet", "--all", "origin")
        return self.git("rev-parse", "HEAD")
