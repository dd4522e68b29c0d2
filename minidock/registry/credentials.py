"""Credentials of registries, where docker and podman keep them: ``config.json``, and helpers that it names.

Sources: docker's ``config.json`` (``auths``, ``credHelpers``, ``credsStore``), the protocol of
docker-credential-helpers, podman's ``auth.json`` (the same form). A host's credentials go to that host and to the
realms that it may name (see ``session``): never to another one. A helper that is named and fails gives none at all
(CVE-2021-41092).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from minidock.errors import CorruptObjectError, RegistryError
from minidock.log import printable
from minidock.model.reference import DEFAULT_DOMAIN
from minidock.store import files, locks

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "MINIDOCK_AUTH_FILE"
# How docker calls its own registry in its files.
_DOCKER_HUB = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MAX = 1 << 20
_HELPER_SECONDS = 60
_HELPER_HINT = "mend it, or take it out of config.json"


class Credentials(NamedTuple):
    """A user's name and password; or, with an empty name, a token that is exchanged for others (OAuth2)."""

    user: str
    secret: str

    def __repr__(self) -> str:
        return "Credentials(...)"


class CredentialFiles:
    """The files that credentials are read from, the first that has some for a host; ``write`` is the one that ``login``
    changes, or makes with mode 0600."""

    __slots__ = ("paths", "write")

    def __init__(self, environ: Mapping[str, str]) -> None:
        home = environ.get("HOME") or os.path.expanduser("~")
        docker = f"{environ.get('DOCKER_CONFIG') or f'{home}/.docker'}/config.json"
        own = environ.get(VARIABLE, "")
        configured = f"{environ.get('XDG_CONFIG_HOME') or f'{home}/.config'}/minidock/auth.json"
        self.paths = (own,) if own else (configured, docker)
        self.write = own or (configured if os.path.exists(configured) else docker)

    def find(self, domain: str) -> Credentials | None:
        """The credentials for a registry's domain, None where there are none.

        Raises RegistryError for a helper that is named for the domain and does not work, CorruptObjectError.
        """
        for path in self.paths:
            value = _read(path)
            helper = _helper_for(value, domain)
            if helper:
                found = _ask(helper, domain)
                if found is not None:
                    return found
                continue
            found = _stored(value, domain, path)
            if found is not None:
                return found
        return None

    def save(self, domain: str, credentials: Credentials) -> str:
        """Keep credentials; returns where: a file, or a helper's name. Raises RegistryError, StoreError."""
        helper = _helper_for(_read(self.write), domain)
        if helper:
            user, secret = credentials.user or _TOKEN_USER, credentials.secret
            _call(helper, "store", json.dumps({"ServerURL": _key(domain), "Username": user, "Secret": secret}))
            return f"the helper docker-credential-{helper}"
        if credentials.user:
            text = base64.b64encode(f"{credentials.user}:{credentials.secret}".encode()).decode()
            entry = {"auth": text}
        else:
            entry = {"auth": "", "identitytoken": credentials.secret}
        self._change(lambda auths: auths.__setitem__(_key(domain), entry))
        return self.write

    def erase(self, domain: str) -> bool:
        """Forget a domain's credentials; whether there were any. Raises RegistryError, StoreError."""
        helper = _helper_for(_read(self.write), domain)
        if helper:
            there = _ask(helper, domain) is not None
            if there:
                _call(helper, "erase", _key(domain))
            return there
        gone: list[str] = []

        def drop(auths: dict[str, Any]) -> None:
            gone.extend(key for key in list(auths) if _names(key, domain))
            for key in gone:
                del auths[key]

        if any(_names(key, domain) for key in _auths(_read(self.write))):
            self._change(drop)
        return bool(gone)

    def _change(self, change: Any) -> None:
        # Where the file is a link, as a person's dotfiles may be, what it leads to is changed.
        path = os.path.realpath(self.write)
        directory = os.path.dirname(path)
        _make_private(directory)
        with locks.exclusive(f"{directory}/.minidock-auth.lock"):
            value = _read(path)
            auths = value.setdefault("auths", {})
            if not isinstance(auths, dict):
                raise CorruptObjectError(f"{path}: 'auths' is no object")
            change(auths)
            data = json.dumps(value, indent="\t").encode() + b"\n"
            files.write_atomic(path, data, sync=True, mode=0o600)


def _make_private(directory: str) -> None:
    """Have a directory; whatever of its path is missing is made for its owner alone, whatever the umask."""
    if not os.path.isdir(directory):
        _make_private(os.path.dirname(directory))
        with suppress(FileExistsError):
            os.mkdir(directory, 0o700)


def _read(path: str) -> dict[str, Any]:
    try:
        # It may be a link, as a person's dotfiles are.
        return files.read_json(os.path.realpath(path), limit=_MAX)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise RegistryError(f"cannot read {path}: {error.strerror}") from None


def _auths(value: Mapping[str, Any]) -> dict[str, Any]:
    auths = value.get("auths")
    return auths if isinstance(auths, dict) else {}


def _key(domain: str) -> str:
    return _DOCKER_HUB if domain == DEFAULT_DOMAIN else domain


def _names(key: str, domain: str) -> bool:
    """Whether a key of a file means the domain: people and old tools write URLs."""
    host = re.sub(r"\Ahttps?://", "", key).partition("/")[0]
    if domain == DEFAULT_DOMAIN:
        return host in ("docker.io", "index.docker.io", "registry-1.docker.io")
    return host == domain


def _helper_for(value: Mapping[str, Any], domain: str) -> str:
    helpers = value.get("credHelpers")
    named = [text for key, text in helpers.items() if _names(key, domain)] if isinstance(helpers, dict) else []
    found = named[0] if named else value.get("credsStore", "")
    if not found:
        return ""
    if not isinstance(found, str) or not _HELPER.fullmatch(found):
        raise RegistryError(f"the credential helper {str(found)[:100]!r} has no possible name")
    return found


def _stored(value: Mapping[str, Any], domain: str, path: str) -> Credentials | None:
    for key, entry in _auths(value).items():
        if not _names(key, domain) or not isinstance(entry, dict):
            continue
        token = entry.get("identitytoken")
        if isinstance(token, str) and token:
            return Credentials("", token)
        try:
            text = base64.b64decode(entry.get("auth") or "", validate=True).decode()
        except (binascii.Error, ValueError, TypeError):
            what = f"{path}: the credentials of {domain} cannot be read"
            raise CorruptObjectError(what, hint=f"run `minidock login {domain}`") from None
        user, colon, secret = text.partition(":")
        user, secret = user or str(entry.get("username") or ""), secret.rstrip("\0") or str(entry.get("password") or "")
        if user and (colon or secret):
            return Credentials(user, secret)
    return None


def _ask(helper: str, domain: str) -> Credentials | None:
    text = _call(helper, "get", _key(domain))
    if text is None:
        return None
    try:
        value = json.loads(text)
        user, secret = value["Username"], value["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RegistryError(f"docker-credential-{helper} gave no credentials that can be read") from None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise RegistryError(f"docker-credential-{helper} gave no credentials that can be read")
    if not secret:
        return None
    return Credentials("" if user == _TOKEN_USER else user, secret)


def _call(helper: str, verb: str, text: str) -> str | None:
    """What the helper says; None where it has no credentials."""
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, verb], input=text.encode(), capture_output=True, timeout=_HELPER_SECONDS, check=False
        )
    except FileNotFoundError:
        raise RegistryError(
            f"the credential helper {program} is not installed", hint="install it, or take it out of config.json"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error.strerror) if isinstance(error, OSError) else f"no answer for {_HELPER_SECONDS} seconds"
        raise RegistryError(f"the credential helper {program} failed: {reason}", hint=_HELPER_HINT) from None
    said = done.stdout[:_MAX].decode(errors="replace").strip()
    if done.returncode:
        if verb == "get" and "not found" in said.lower():
            return None
        # What it says stays with it where it may be what it keeps.
        reason = printable(" ".join(said.split()))[:200]
        if not reason or '"Secret"' in said:
            reason = f"status {done.returncode}"
        raise RegistryError(f"the credential helper {program} failed: {reason}", hint=_HELPER_HINT)
    return said
