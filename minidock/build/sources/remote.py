"""Sources that are not of this host, as text: git repositories and files behind HTTP. Pure; nothing is fetched here.

The grammar is BuildKit's: an ``http`` or ``https`` URL whose path ends with ``.git``, ``git://``, ``ssh://`` and
``user@host:path`` name repositories, any other ``http`` or ``https`` URL names a file. What follows ``#`` is
``ref:subdir``; the same may be said by a query (``?branch=...&subdir=...``). What would reach the command line of git
or ssh is checked part by part: neither takes a ``--`` before everything that it reads.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from minidock.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_LENGTH = 8192
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SCP = re.compile(
    r"(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@(?P<host>[^][/:@]+|\[[^]/@]*\]):(?P<path>[^#]*)(?:#(?P<rest>.*))?"
)
_SHORTHAND = "github.com/"
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\]")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PREFIX = re.compile(r"[0-9a-f]{7,64}")
# git-check-ref-format(1), and no option.
_REF = re.compile(r"(?![-/.])(?!.*(?:\.\.|@\{|//|/\.|\.lock(?:/|$)))[^\x00-\x20\x7f~^:?*\[\\]+(?<![/.])")
_GIT_FORM = "the form is URL.git#REF:SUBDIR"
_TRUE = {"": True, "1": True, "true": True, "0": False, "false": False}
_KINDS = {"ref": "", "branch": "refs/heads/", "tag": "refs/tags/"}


class Credentials(NamedTuple):
    """What an URL said before ``@``. Never shown, never on a command line."""

    user: str
    password: str


class HttpSource(NamedTuple):
    """A file behind HTTP. ``url`` is without credentials and fragment; ``name`` is the last part of its path, or
    empty."""

    url: str
    name: str
    credentials: Credentials | None = None

    @property
    def shown(self) -> str:
        """What people are shown."""
        return self.url


class GitSource(NamedTuple):
    """A git repository. ``remote`` is what git is given, without credentials, fragment and query.

    ``ref`` is a branch, tag, full reference or commit, empty for the default branch; ``subdir`` is relative and clean;
    ``commit`` is the beginning of what the commit must be, or empty; ``keep_git_dir`` is None where the source says
    nothing about it. ``scheme`` is ``https``, ``http``, ``ssh`` or ``git``.
    """

    remote: str
    scheme: str
    ref: str = ""
    subdir: str = ""
    commit: str = ""
    keep_git_dir: bool | None = None
    submodules: bool = True
    credentials: Credentials | None = None

    @property
    def shown(self) -> str:
        """What people are shown."""
        place = f"{self.ref}:{self.subdir}" if self.subdir else self.ref
        return f"{self.remote}#{place}" if place else self.remote


Remote = GitSource | HttpSource


def parse_remote(text: str, *, shorthand: bool = False) -> Remote | None:
    """What a context or a source of ADD names that is not of this host; None for a path.

    ``shorthand`` allows ``github.com/OWNER/REPOSITORY``. Raises UsageError for what looks like an URL and is none that
    can be fetched.
    """
    if text.startswith(("/", "./", "../")):
        return None
    if shorthand and text.startswith(_SHORTHAND):
        return _read(_url, f"https://{text}", git=True)
    scheme = _SCHEME.match(text)
    if scheme:
        return _read(_url, text)
    return _read(_scp, text) if _SCP.fullmatch(text) else None


def parse_http(text: str) -> HttpSource:
    """The file that an ``http`` or ``https`` URL names, whatever its path ends with. Raises UsageError."""
    found = _read(_url, text, git=False)
    assert isinstance(found, HttpSource)
    return found


def is_remote(text: str) -> bool:
    """Whether a source is an URL of any kind, well-formed or not."""
    return bool(_SCHEME.match(text) or _SCP.fullmatch(text))


def is_commit(text: str) -> bool:
    """Whether a reference is the whole name of a commit."""
    return _COMMIT.fullmatch(text) is not None


def redacted(text: str) -> str:
    """A text with what URLs in it say before ``@`` hidden: all of it, since a token may be called a user; but for ssh,
    where the user is part of the place."""
    if "@" not in text:
        return text

    def hide(match: re.Match[str]) -> str:
        scheme, user, password = match[1], match[2], match[3]
        if scheme.lower() == "ssh://":
            return f"{scheme}{user}{':xxxxx' if password is not None else ''}@"
        return f"{scheme}xxxxx@"

    return re.sub(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s/@:?#]*)(:[^\s/?#]*)?@", hide, text)


def check_commit(text: str, *, what: str) -> str:
    """The beginning of a commit's name, at least seven digits. Raises UsageError."""
    if not _PREFIX.fullmatch(text):
        raise UsageError(f"{what} {text!r} is no commit", hint="give 7 or more of its hexadecimal digits")
    return text


def _read(read: Callable[..., Remote], text: str, **options: bool) -> Remote:
    # Where the URL is malformed, so may be the place of its credentials.
    shown = re.sub(r"://.*@", "://xxxxx@", text[:200])
    # Before anything takes it apart: urlsplit drops what it does not like.
    if len(text) > _MAX_LENGTH:
        raise UsageError(f"the URL {shown!r}... is longer than {_MAX_LENGTH} characters")
    if any(char <= " " or char == "\x7f" for char in text):
        raise UsageError(f"the URL {shown!r} holds a blank or a control character", hint="write it as %20 or the like")
    if "\\" in text:
        raise UsageError(f"the URL {shown!r} holds a backslash")
    try:
        return read(text, **options)
    except ValueError as error:
        raise UsageError(f"invalid URL {shown!r}: {error}") from None


def _url(text: str, *, git: bool | None = None) -> Remote:
    """``git`` says whether an URL of HTTP is a repository, where its path does not."""
    parts = urlsplit(text)
    scheme = parts.scheme.lower()
    if scheme not in ("http", "https", "git", "ssh"):
        raise UsageError(
            f"the URL {redacted(text)!r} has a scheme that cannot be fetched", hint="it is https, http, git or ssh"
        )
    place = _place(parts)
    user, password = (unquote(part or "") for part in (parts.username, parts.password))
    if _is_odd(user + password):
        raise ValueError("what stands before '@' holds a control character")
    credentials = Credentials(user, password) if user or password else None
    if scheme in ("http", "https"):
        if not (parts.path.endswith(".git") if git is None else git):
            return _file(parts, f"{scheme}://{place}", credentials)
    elif git is False:
        raise ValueError("it is not http or https")
    elif scheme == "git" and credentials:
        raise UsageError("a git:// URL takes no user name", hint="use https:// or ssh://")
    elif credentials:
        place, credentials = f"{_ssh_user(credentials)}@{place}", None
    if not parts.path.strip("/"):
        raise ValueError("it names no repository")
    source = GitSource(f"{scheme}://{place}{parts.path}", scheme, credentials=credentials)
    if not parts.query:
        return _with_fragment(source, unquote(parts.fragment))
    if parts.fragment:
        raise ValueError("it has a query and a fragment")
    return _with_query(source, parts.query)


def _file(parts: SplitResult, origin: str, credentials: Credentials | None) -> HttpSource:
    name = unquote(parts.path).rpartition("/")[2]
    if _is_odd(name):
        raise ValueError("its file name holds a control character")
    query = f"?{parts.query}" if parts.query else ""
    return HttpSource(f"{origin}{parts.path or '/'}{query}", "" if name in (".", "..") else name, credentials)


def _place(parts: SplitResult) -> str:
    """Host and port."""
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    if not _HOST.fullmatch(host):
        raise ValueError(f"{host!r} is no host name")
    try:
        port = parts.port
    except ValueError:
        # What stands there may be half a password.
        raise ValueError("its port is no number up to 65535") from None
    return host if port is None else f"{host}:{port}"


def _ssh_user(credentials: Credentials) -> str:
    if credentials.password:
        raise UsageError("a git URL over ssh takes no password", hint="use a key, or an agent")
    if not _USER.fullmatch(credentials.user):
        raise ValueError(f"{credentials.user!r} is no user name")
    return credentials.user


def _scp(text: str) -> GitSource:
    match = _SCP.fullmatch(text)
    assert match is not None
    host, path = match["host"], match["path"]
    if not _HOST.fullmatch(host):
        raise ValueError(f"{host!r} is no host name")
    if not path or path.startswith("-"):
        raise ValueError("it names no repository")
    return _with_fragment(GitSource(f"{match['user']}@{host}:{path}", "ssh"), match["rest"] or "")


def _with_fragment(source: GitSource, fragment: str) -> GitSource:
    ref, _, subdir = fragment.partition(":")
    return source._replace(ref=_ref(ref), subdir=_subdir(subdir))


def _with_query(source: GitSource, query: str) -> GitSource:
    given: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, max_num_fields=16):
        key = {"commit": "checksum"}.get(name, name)
        if key in given:
            raise ValueError(f"it says {name} twice")
        given[key] = value
    found = source
    for key, value in given.items():
        if key in _KINDS:
            if found.ref:
                raise ValueError("it names more than one of ref, branch and tag")
            found = found._replace(ref=_ref(f"{_KINDS[key]}{value}" if value else ""))
        elif key == "subdir":
            found = found._replace(subdir=_subdir(value))
        elif key == "checksum":
            found = found._replace(commit=check_commit(value, what="the checksum"))
        elif key == "keep-git-dir":
            found = found._replace(keep_git_dir=_boolean(key, value))
        elif key == "submodules":
            found = found._replace(submodules=_boolean(key, value))
        else:
            raise ValueError(f"{key!r} is nothing that the query of a git URL may say")
    return found


def _boolean(key: str, value: str) -> bool:
    if value.lower() not in _TRUE:
        raise ValueError(f"{key} is true or false, not {value!r}")
    return _TRUE[value.lower()]


def _ref(text: str) -> str:
    if text and not _REF.fullmatch(text):
        raise UsageError(f"{text!r} is no branch, tag or commit", hint=_GIT_FORM)
    return text


def _subdir(text: str) -> str:
    names = [name for name in text.split("/") if name not in ("", ".")]
    if ".." in names or _is_odd(text):
        raise UsageError(f"the directory {text!r} leads out of the repository", hint=_GIT_FORM)
    return "/".join(names)


def _is_odd(text: str) -> bool:
    return any(char < " " or char == "\x7f" for char in text)
