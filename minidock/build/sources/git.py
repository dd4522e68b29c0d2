"""Git repositories, through the host's git: the commit that a reference means, and its tree.

Git is given nothing of the host's and the user's configuration and no way to ask; it speaks https and the scheme that
was asked for and no other (no ``ext::``, no files of the host, in submodules neither); hooks are off; credentials are
in its environment, for their host only, and never on a command line. It ends with the build, however that ends.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, NamedTuple

from minidock.build.sources.remote import GitSource, is_commit
from minidock.errors import HostError, MinidockError
from minidock.kernel.programs import NOT_FOUND, start_program
from minidock.log import printable
from minidock.store.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_TAIL = 20
_MAX_LINE = 1 << 16
_MAX_OUTPUT = 4 << 20
_MAX_TIME = (1 << 34) - 1
_LINE = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64})\t(\S+)")
_PASSED_ON = ("SSH_AUTH_SOCK", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH")
_OPTIONS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "core.askPass=",
    "gc.auto=0",
    "maintenance.auto=false",
    "init.defaultBranch=main",
    "advice.detachedHead=false",
    "http.followRedirects=initial",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
)
# Answers the question for a password from the environment (gitcredentials(7), "Custom helpers").
_HELPER = '!printf "username=%s\\npassword=%s\\n" "$MINIDOCK_GIT_USER" "$MINIDOCK_GIT_PASSWORD"; :'


class Commit(NamedTuple):
    """A commit, and the reference of the repository that meant it (empty where the commit itself was named)."""

    digest: str
    reference: str


def find_commit(source: GitSource, *, home: str, tell: Callable[[bytes], None]) -> Commit:
    """Ask the repository what ``source`` means: a branch before a tag of the same name, as ``git checkout`` has it.

    ``home`` is a private directory. Raises MinidockError if there is no such reference or git fails, HostError where
    there is no git.
    """
    if is_commit(source.ref):
        return _checked(source, Commit(source.ref, ""), source.ref)
    names = ["HEAD"]
    if source.ref not in ("", "HEAD"):
        full = f"refs/{source.ref.removeprefix('refs/')}"
        tag = f"refs/tags/{source.ref}"
        # An annotated tag is an object of its own, whose commit is listed with ^{}.
        names = [f"refs/heads/{source.ref}", f"{tag}^{{}}", tag, f"{full}^{{}}", full]
    lines = _Git(source, home=home, tell=tell).ask(["ls-remote", "--quiet", "--", source.remote, *names])
    found = {match[2]: match[1] for line in lines if (match := _LINE.fullmatch(line))}
    for name in names:
        if name in found:
            plain = name.removesuffix("^{}")
            return _checked(source, Commit(found[name], plain), found.get(plain, ""))
    what = f"no branch, tag or reference {source.ref!r}" if source.ref else "no commit"
    raise MinidockError(f"the git repository {source.remote} has {what}")


def check_out(
    source: GitSource, commit: Commit, directory: str, *, home: str, keep: bool, tell: Callable[[bytes], None]
) -> None:
    """Make the new directory ``directory``, 0755, and put the commit's tree there, submodules included; with ``keep``
    its ``.git`` too. Every file has the commit's time: what is made of it is the same on every day.

    Raises as ``find_commit``.
    """
    os.mkdir(directory, 0o755)
    os.chmod(directory, 0o755)
    git = _Git(source, home=home, tell=tell)
    kind = ["--object-format=sha256"] if len(commit.digest) == 64 else []
    git.run(["init", "--quiet", "--template=", *kind, "--", directory])
    git.directory = directory
    git.run(["remote", "add", "--", "origin", source.remote])
    _fetch(git, source, commit)
    git.run(["checkout", "--quiet", "--force", "--detach", commit.digest, "--"])
    if source.submodules and os.path.lexists(f"{directory}/.gitmodules"):
        git.run(["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1", "--recommend-shallow"])
    seconds = git.ask(["show", "--no-patch", "--format=%ct", commit.digest, "--"])[0]
    _finish(directory, min(max(int(seconds), 0), _MAX_TIME), keep=keep)


def _fetch(git: _Git, source: GitSource, commit: Commit) -> None:
    """The commit alone; where the server gives no single commits, all of the branches and tags."""
    fetch = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"]
    if git.try_run([*fetch, "--depth=1", "origin", commit.digest]):
        return
    wanted = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
    if commit.reference.startswith("refs/") and not commit.reference.startswith(("refs/heads/", "refs/tags/")):
        wanted.append(f"+{commit.reference}:refs/minidock")
    git.run([*fetch, "origin", *wanted])
    if not git.try_run(["cat-file", "-e", f"{commit.digest}^{{commit}}"]):
        hint = "it has changed meanwhile: build again" if commit.reference else ""
        raise MinidockError(f"the git repository {source.remote} does not give the commit {commit.digest}", hint=hint)


def _checked(source: GitSource, commit: Commit, tag: str) -> Commit:
    if source.commit and not commit.digest.startswith(source.commit) and not tag.startswith(source.commit):
        raise MinidockError(
            f"the git repository {source.shown} is at the commit {commit.digest}, not at {source.commit}",
            hint="change the checksum if that is what you want",
        )
    return commit


def _finish(directory: str, seconds: int, *, keep: bool) -> None:
    """Remove what is git's own, and set all times."""
    times = (seconds * 10**9, seconds * 10**9)
    for folder, directories, files in os.walk(directory, topdown=False):
        for name in (*files, *directories):
            path = f"{folder}/{name}"
            # No tree can hold this name: it is the repository's, or a submodule's.
            if name == ".git" and not keep:
                remove_tree(path)
            elif not stat.S_ISDIR(os.lstat(path).st_mode):
                os.utime(path, ns=times, follow_symlinks=False)
        os.utime(folder, ns=times)


class _Git:
    """Runs git for one source, in ``directory`` once that is set."""

    __slots__ = ("_environment", "_options", "_source", "_tell", "directory")

    def __init__(self, source: GitSource, *, home: str, tell: Callable[[bytes], None]) -> None:
        self._source = source
        self._tell = tell
        self.directory = home
        self._options = [part for option in _OPTIONS for part in ("-c", option)]
        self._environment = {**_environment(home, source.scheme), **_credentials(source)}

    def ask(self, arguments: Sequence[str]) -> list[str]:
        """The lines that git prints, as they are. Raises MinidockError."""
        status, lines, errors = self._run(arguments, listen=True)
        if status:
            raise self._failed(errors)
        return lines

    def run(self, arguments: Sequence[str]) -> None:
        """Raises MinidockError if git fails."""
        status, _, errors = self._run(arguments)
        if status:
            raise self._failed(errors)

    def try_run(self, arguments: Sequence[str]) -> bool:
        """Whether git succeeded."""
        return self._run(arguments)[0] == 0

    def _failed(self, errors: Sequence[str]) -> MinidockError:
        said = next(
            (line for line in errors if line.startswith(("fatal: ", "error: "))), (*errors, "it said nothing")[0]
        )
        reason = said.removeprefix("fatal: ").removeprefix("error: ")
        hint = ""
        if "terminal prompts disabled" in reason:
            hint = "the repository is not there, or wants a user and password that the URL does not give"
        elif "not allowed" in reason and "transport" in reason:
            hint = "a submodule may use https and the scheme of its repository"
        return MinidockError(f"git cannot fetch {self._source.shown}: {reason}", hint=hint)

    def _run(self, arguments: Sequence[str], *, listen: bool = False) -> tuple[int, list[str], list[str]]:
        """The exit status, the lines of its output where it is listened to, and the last ones of what it said."""
        command = ["git", *self._options, *arguments]
        with start_program(command, environment=self._environment, directory=self.directory, apart=listen) as git:
            if listen:
                printed, errors = git.read(limit=_MAX_OUTPUT)
                lines, said = printed.decode("utf-8", "replace").splitlines(), _lines(errors)
            else:
                lines, said = [], self._follow(git.output)
            status = git.wait()
        if status == NOT_FOUND:
            raise HostError("git is not installed on this host", hint="install it from the host's packages")
        return status, lines, said

    def _follow(self, output: int) -> list[str]:
        """Tell what git says, and keep the last lines."""
        kept: list[str] = []
        with open(output, "rb", closefd=False) as stream:
            while data := stream.readline(_MAX_LINE):
                for line in _lines(data):
                    kept = [*kept[1 - _TAIL :], line]
                    self._tell(f"{line}\n".encode())
        return kept


def _lines(data: bytes) -> list[str]:
    # What a server says may be anything.
    return [printable(line) for line in data.decode("utf-8", "replace").splitlines() if line.strip()]


def _environment(home: str, scheme: str) -> dict[str, str]:
    allowed = dict.fromkeys(("https", scheme))
    ssh = "ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ClearAllForwardings=yes"
    environment = {
        "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
        "LC_ALL": "C.UTF-8",
        "HOME": home,
        "XDG_CONFIG_HOME": home,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": home,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": ":".join(allowed),
        "GIT_SSH_COMMAND": ssh,
        "GIT_LFS_SKIP_SMUDGE": "1",
    }
    for name, value in os.environ.items():
        if name in _PASSED_ON or name.lower().endswith("_proxy"):
            environment[name] = value
    # The same variable that Python's TLS heeds.
    if "SSL_CERT_FILE" in os.environ:
        environment.setdefault("GIT_SSL_CAINFO", os.environ["SSL_CERT_FILE"])
    return environment


def _credentials(source: GitSource) -> dict[str, str]:
    if source.credentials is None:
        return {}
    place = "/".join(source.remote.split("/", 3)[:3])
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"credential.{place}.helper",
        "GIT_CONFIG_VALUE_0": _HELPER,
        "MINIDOCK_GIT_USER": source.credentials.user,
        "MINIDOCK_GIT_PASSWORD": source.credentials.password,
    }
