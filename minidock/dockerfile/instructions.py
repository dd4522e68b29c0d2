"""What a Dockerfile says, as values: one class for each instruction, the stages they stand in, and the whole file.

Every text is as written, unexpanded and with its quotes; "Expands" in a class's docstring names the fields in which
variables are expanded (and quotes removed) when the instruction is executed: ``fields.expanded`` does exactly that.
A field that no class names is used as it stands. Sources: Dockerfile reference, BuildKit's Dockerfile frontend.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

SHELL_FORM: Literal["shell"] = "shell"
EXEC_FORM: Literal["exec"] = "exec"

Form = Literal["shell", "exec"]


class Location(NamedTuple):
    """Where an instruction stands: 1-based first and last line, both inclusive, heredoc bodies included.

    ``text`` is the instruction as one line: continuations joined, comments dropped, heredoc bodies left out.
    """

    line: int
    end_line: int
    text: str


class Flag(NamedTuple):
    """One flag as written, ``--name=value``; ``value`` is None for a bare ``--name``. Quotes are removed."""

    name: str
    value: str | None

    def __str__(self) -> str:
        return f"--{self.name}" if self.value is None else f"--{self.name}={self.value}"


class Heredoc(NamedTuple):
    """One heredoc: ``[fd]<<[-]NAME``.

    ``body`` is the text as written, line ends included, without the terminator's line; ``expand`` is false where the
    delimiter was quoted; ``strip_tabs`` is true for ``<<-``; ``fd`` is 0 where none was written.
    """

    name: str
    body: str
    expand: bool = True
    strip_tabs: bool = False
    fd: int = 0

    @property
    def content(self) -> str:
        """The body with each line's leading tabs removed if it was written ``<<-``."""
        if not self.strip_tabs:
            return self.body
        return re.sub(r"(?m)^\t+", "", self.body)


class Pair(NamedTuple):
    """``key=value`` of ENV and LABEL."""

    key: str
    value: str


class ArgDefault(NamedTuple):
    """One ``NAME[=default]`` of ARG; ``default`` is None for a bare name."""

    name: str
    default: str | None


class From(NamedTuple):
    """``FROM [--platform=P] base [AS name]``. ``name`` is lower-cased, empty where there is none.

    Expands: ``base``, ``platform``, with global ARGs only.
    """

    base: str
    name: str
    platform: str
    location: Location


class Run(NamedTuple):
    """``RUN [flags] command``. ``args`` is the exec form's vector, ``text`` the shell form's line; the other is empty.

    ``mounts`` are the raw values of ``--mount``, which ``run_mounts.read_mount`` reads once they are expanded;
    ``network``, ``security`` are empty where not given; ``flags`` holds all in the order written. Expands: ``mounts``,
    except ``from``; never the command.
    """

    form: Form
    args: tuple[str, ...]
    text: str
    location: Location
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[str, ...] = ()
    network: str = ""
    security: str = ""
    devices: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    whole_heredoc: bool = False

    @property
    def script(self) -> Heredoc | None:
        """The heredoc that is the whole command and begins with ``#!``: to be executed as a file. Else None."""
        if self.whole_heredoc and self.heredocs[0].content.startswith("#!"):
            return self.heredocs[0]
        return None

    @property
    def shell_text(self) -> str:
        """What the shell form hands to SHELL as its last argument.

        A heredoc that is the whole command gives its content as one script; other heredocs are re-joined with their
        line, for the shell to read. Empty in exec form.
        """
        if self.whole_heredoc:
            return self.heredocs[0].content
        return self.text + "".join(f"\n{heredoc.body}{heredoc.name}" for heredoc in self.heredocs)


class Copy(NamedTuple):
    """``COPY [flags] source... destination``. ``sources`` are paths or globs; heredocs are sources of their own.

    A flag that was not given is empty, false or (). ``flags`` holds all in the order written. Expands: ``sources``,
    ``destination``, ``chown``, ``chmod``, ``exclude`` and each heredoc's body where its ``expand`` is true (quotes in a
    body stay); never ``from_``.
    """

    sources: tuple[str, ...]
    destination: str
    location: Location
    heredocs: tuple[Heredoc, ...] = ()
    from_: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()


class Add(NamedTuple):
    """``ADD [flags] source... destination``: as Copy, and sources may be archives, URLs or git repositories.

    ``unpack`` is None where not given (archives are detected by content). Expands: as Copy, and ``checksum``.
    """

    sources: tuple[str, ...]
    destination: str
    location: Location
    heredocs: tuple[Heredoc, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None
    flags: tuple[Flag, ...] = ()


class Env(NamedTuple):
    """``ENV key=value ...`` or ``ENV key rest-of-line``. Expands: keys and values, all by the environment before it."""

    pairs: tuple[Pair, ...]
    location: Location
    legacy: bool = False


class Label(NamedTuple):
    """``LABEL key=value ...`` or ``LABEL key rest-of-line``. Expands: keys and values."""

    pairs: tuple[Pair, ...]
    location: Location
    legacy: bool = False


class Arg(NamedTuple):
    """``ARG NAME[=default] ...``.

    Expands: names and defaults, each with the ones before it on the line.
    """

    args: tuple[ArgDefault, ...]
    location: Location


class Workdir(NamedTuple):
    """``WORKDIR path``. Expands: ``path``."""

    path: str
    location: Location


class User(NamedTuple):
    """``USER user[:group]``. Expands: ``user``."""

    user: str
    location: Location


class Volume(NamedTuple):
    """``VOLUME path...`` or a JSON array. Expands: ``paths``."""

    paths: tuple[str, ...]
    location: Location


class Expose(NamedTuple):
    """``EXPOSE port[-port][/protocol]...``.

    Expands: ``ports``, one word may become several; expanded they are single ports, ``80/tcp``, sorted and unique, and
    ``words`` are what they were written as.
    """

    ports: tuple[str, ...]
    location: Location
    words: tuple[str, ...] = ()


class Cmd(NamedTuple):
    """``CMD``: ``args`` in exec form (possibly empty), ``text`` in shell form. Not expanded."""

    form: Form
    args: tuple[str, ...]
    text: str
    location: Location


class Entrypoint(NamedTuple):
    """``ENTRYPOINT``: ``args`` in exec form (possibly empty), ``text`` in shell form. Not expanded."""

    form: Form
    args: tuple[str, ...]
    text: str
    location: Location


class Shell(NamedTuple):
    """``SHELL ["program", "flag"...]``; at least one argument. Not expanded."""

    args: tuple[str, ...]
    location: Location


class Stopsignal(NamedTuple):
    """``STOPSIGNAL signal``. Expands: ``signal``; the expanded one is a known name or a number from 1 to 64."""

    signal: str
    location: Location


class Maintainer(NamedTuple):
    """``MAINTAINER author`` (deprecated). Not expanded."""

    author: str
    location: Location


class Healthcheck(NamedTuple):
    """``HEALTHCHECK NONE`` or ``HEALTHCHECK [flags] CMD ...``. Not expanded.

    ``test`` is what the image's configuration holds: ``("NONE",)``, ``("CMD", program, ...)`` or
    ``("CMD-SHELL", text)``. Durations are nanoseconds; 0 means inherited or default, as does ``retries`` 0.
    """

    test: tuple[str, ...]
    location: Location
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class Onbuild(NamedTuple):
    """``ONBUILD instruction``: ``text`` is what the image's configuration stores, heredoc bodies included.

    ``trigger`` is the parsed instruction, for checks; ``parser.parse_trigger`` reads a stored text again.
    """

    text: str
    trigger: Instruction
    location: Location


Instruction = (
    Run
    | Copy
    | Add
    | Env
    | Label
    | Arg
    | Workdir
    | User
    | Volume
    | Expose
    | Cmd
    | Entrypoint
    | Shell
    | Stopsignal
    | Maintainer
    | Healthcheck
    | Onbuild
)


class Stage(NamedTuple):
    """One stage: its FROM and the instructions after it. ``position`` counts from 0 (``index`` is a tuple's method)."""

    position: int
    origin: From
    instructions: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        """The lower-cased name after AS, or empty."""
        return self.origin.name

    @property
    def base(self) -> str:
        """The unexpanded text of what the stage is built from: an earlier stage's name, ``scratch`` or an image."""
        return self.origin.base

    @property
    def platform(self) -> str:
        """The unexpanded value of ``--platform``, or empty."""
        return self.origin.platform

    @property
    def location(self) -> Location:
        """Where the FROM stands."""
        return self.origin.location


class Directives(NamedTuple):
    """The parser directives at the top of the file; empty where not given. ``escape`` is a backslash or a backtick."""

    syntax: str = ""
    escape: str = "\\"
    check: str = ""


class Finding(NamedTuple):
    """A warning: something that is accepted but deserves a look.

    ``check`` is BuildKit's name of it, ``NoEmptyContinuation``; ``line`` is 1-based, ``end_line`` the last line of what
    it is about, 0 for one line alone.
    """

    check: str
    message: str
    line: int
    end_line: int = 0
