"""``minidock build``: an image from a Dockerfile."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from minidock.cli import build_flags
from minidock.cli.declare import Argument, Command, Option, read_reference
from minidock.cli.termination import orderly_end
from minidock.cli.text import printable
from minidock.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minidock.cli.session import Session


def read_build_arg(text: str) -> str:
    """The argument, unchanged; ValueError where it has no name."""
    if not text.partition("=")[0]:
        raise ValueError("the form is NAME=VALUE")
    return text


def read_jobs(text: str) -> int:
    """A number of stages; ValueError for anything else."""
    if not text.isdecimal():
        raise ValueError("the form is a number, 0 for that of the processors")
    return int(text)


def read_label(text: str) -> str:
    """The label, unchanged; ValueError where it has no name."""
    if not text.partition("=")[0]:
        raise ValueError("the form is NAME=VALUE")
    return text


def read_seconds(text: str) -> int:
    """A time in seconds since 1970; ValueError for anything else."""
    if not text.isdecimal():
        raise ValueError("the form is a number of seconds since 1970")
    return int(text)


def read_size(text: str) -> int:
    """Bytes of a size such as ``64m``; ValueError for anything else."""
    from minidock.cli.container_flags import read_size as read

    return read(text)


def execute(
    session: Session,
    *,
    path: str,
    tag: tuple[str, ...],
    file: str | None,
    build_arg: tuple[str, ...],
    target: str | None,
    no_cache: bool,
    quiet: bool,
    progress: str,
    ulimit: tuple[str, ...],
    check: bool,
    output: tuple[str, ...],
    network: str,
    build_context: tuple[str, ...],
    ignorefile: str | None,
    plan: bool,
    timestamp: int | None,
    verify: bool,
    phrases: bool = False,
    **more: Any,
) -> int:
    """Read the Dockerfile from standard input where asked, build, and with ``-q`` print the image's ID."""
    if path == "-" == file:
        raise UsageError("standard input cannot be both the context and the Dockerfile", hint="leave out -f -")
    further, output, only_check = build_flags.take(session, more, output)
    if only_check or check:
        wanted = {"build_args": build_arg, "target": target, "contexts": build_context, "ignorefile": ignorefile}
        return _check(session, path, file, {**wanted, "platform": further.get("platform")})
    silent = quiet or progress == "quiet"
    if silent:
        build_flags.check_stdout(output)
    given: dict[str, Any] = {"contexts": build_context, "ignorefile": ignorefile, **_options(**more), **further}
    given |= {"verify": verify, "build_args": _with_epoch(build_arg, timestamp)}
    given |= {"outputs": output, "stdout": 1 if output else None, "network": "" if network == "default" else network}
    text = _standard_input() if file == "-" else None
    given = {name: value for name, value in given.items() if value}
    given |= {"tags": tag, "text": text, "dockerfile": file if file and text is None else "", "target": target or ""}
    given |= {"no_cache": no_cache, "ulimits": ulimit}
    if plan:
        return _plan(session, path, given, "quiet" if silent else progress, phrases=phrases)
    shell = given.get("on_error") == "shell"
    with orderly_end(), _telling(progress, quiet=silent, debug=session.debug, shell=shell) as telling:
        image_id = session.engine.build(path, **telling, **given)
    if verify:
        session.print_error(f"minidock: verified: built twice with the same result, {image_id}")
    if silent:
        session.print(image_id)
    return 0


def _plan(session: Session, path: str, options: dict[str, Any], form: str, *, phrases: bool) -> int:
    """Print what the build would do; 10 where something would run."""
    from minidock.cli.plan import print_plan

    _check_form(form)
    with orderly_end():
        steps = session.engine.plan(path, progress=2, **options)
    return print_plan(session, steps, form=form, phrases=phrases)


def _with_epoch(build_arg: tuple[str, ...], timestamp: int | None) -> tuple[str, ...]:
    """The build arguments with ``--timestamp``, podman's word for SOURCE_DATE_EPOCH, as the last one."""
    return build_arg if timestamp is None else (*build_arg, f"SOURCE_DATE_EPOCH={timestamp}")


def _options(
    *,
    add_host: tuple[str, ...],
    allow: tuple[str, ...],
    annotation: tuple[str, ...],
    cache_from: tuple[str, ...],
    cache_to: tuple[str, ...],
    iidfile: str | None,
    jobs: int,
    label: tuple[str, ...],
    explain: bool,
    metadata_file: str | None,
    no_cache_filter: tuple[str, ...],
    secret: tuple[str, ...],
    shm_size: int | None,
    squash: bool,
    ssh: tuple[str, ...],
    volume: tuple[str, ...],
) -> dict[str, Any]:
    """What RUN's commands get and what the build leaves behind, under the engine's names."""
    found: dict[str, Any] = {"add_hosts": add_host, "allow": allow, "secrets": secret, "ssh": ssh, "volumes": volume}
    found |= {"labels": label, "annotations": annotation, "iidfile": iidfile, "metadata_file": metadata_file}
    found |= {"cache_from": cache_from, "cache_to": cache_to, "no_cache_filter": no_cache_filter}
    return {**found, "shm_size": shm_size, "squash": squash, "jobs": jobs, "explain": explain}


@contextmanager
def _telling(kind: str, *, quiet: bool, debug: bool, shell: bool) -> Iterator[dict[str, Any]]:
    """Where and in which form the engine tells the steps; on a terminal a live view draws them. With ``shell`` also
    what tells of a failure before a shell is opened."""
    _check_form(kind)
    terminal = os.isatty(2)
    if kind == "tty" and not terminal:
        raise UsageError("--progress=tty needs a terminal on standard error", hint="leave it out, or use plain")
    telling: dict[str, Any] = {"progress": 2, "quiet": quiet}
    if shell:
        from minidock.cli.failed_shell import Announcer

        telling["before_shell"] = Announcer()
    if kind == "rawjson" and not quiet:
        telling["progress_form"] = "rawjson"
    if not quiet and (kind == "tty" or (kind == "auto" and terminal and not debug and _moves_cursor())):
        from minidock.cli.progress_live import live_view

        with live_view() as view:
            if shell:
                telling["before_shell"].end_view = view.end
            yield {**telling, "progress": view.events, "progress_form": "events"}
    else:
        yield telling


def _check_form(kind: str) -> None:
    if kind not in ("auto", "plain", "tty", "quiet", "rawjson"):
        raise UsageError(f"there is no progress {kind!r}", hint="it is auto, plain, tty, quiet or rawjson")


def _moves_cursor() -> bool:
    return os.environ.get("TERM", "") not in ("", "dumb")


def _check(session: Session, path: str, file: str | None, options: dict[str, Any]) -> int:
    """Print what the checks find, docker's way, and how many findings there are: with any the status is 1."""
    text = _standard_input() if file == "-" else None
    named = file if file and text is None else ""
    given = {name: value for name, value in options.items() if value}
    found, error = session.engine.lint(path, text=text, dockerfile=named, **given)
    number = {0: "no warnings found.", 1: "1 warning has been found!"}
    session.print(f"Check complete, {number.get(len(found), f'{len(found)} warnings have been found!')}")
    for finding in found:
        what = f"\nWARNING: {finding.check} - {finding.description}\n{finding.message}\n{finding.excerpt}"
        session.print(printable(what, keep="\n\t"))
    if error is not None:
        raise error
    return 1 if found else 0


def _standard_input() -> str:
    return open(0, encoding="utf-8", errors="surrogateescape", closefd=False).read()


COMMAND = Command(
    "build",
    "Build an image from a Dockerfile and a context: a directory, an URL, or - for standard input.",
    execute,
    options=(
        Option(("-t", "--tag"), "Name the image.", "NAME[:TAG]", many=True, read=read_reference),
        Option(("-f", "--file"), "The Dockerfile; PATH/Dockerfile if not given, - for standard input.", "FILE"),
        Option(
            ("--build-arg",),
            "Set a build argument; without a value, pass the host's on.",
            "NAME[=VALUE]",
            many=True,
            read=read_build_arg,
        ),
        Option(
            ("--build-context",),
            "A further context by name: a directory, docker-image://, oci-layout:// or an URL.",
            "NAME=WHERE",
            many=True,
        ),
        Option(("--ignorefile",), "Read the ignore rules from this file instead of .dockerignore.", "FILE"),
        Option(("--target",), "Build this stage.", "STAGE"),
        Option(
            ("--jobs",),
            "How many stages may run at once; 0 is the number of processors.",
            "N",
            read=read_jobs,
            default=0,
        ),
        Option(("--check",), "Look for mistakes in the Dockerfile, and build nothing."),
        Option(("--ulimit",), "Set a resource limit of RUN's commands.", "NAME=SOFT[:HARD]", many=True),
        Option(("--network",), "RUN's network: default (the bridge), none or host.", "NETWORK", default="default"),
        Option(("--secret",), "A secret for RUN --mount=type=secret.", "id=NAME[,src=FILE|env=VARIABLE]", many=True),
        Option(
            ("--ssh",),
            "An SSH agent for RUN --mount=type=ssh; default is the host's.",
            "ID[=SOCKET|KEY,...]",
            many=True,
        ),
        Option(("--allow",), "Allow RUN this: network.host, security.insecure, device.", "ENTITLEMENT", many=True),
        Option(("-v", "--volume"), "Mount a host directory in every RUN.", "SRC:DST[:OPT]", many=True),
        Option(("--add-host",), "Add a name to RUN's /etc/hosts; host-gateway is the host.", "NAME:ADDRESS", many=True),
        Option(("--shm-size",), "The size of RUN's /dev/shm.", "BYTES", read=read_size),
        Option(
            ("--timestamp",),
            "Set SOURCE_DATE_EPOCH: RUN has it, and no time in a layer is later.",
            "SECONDS",
            read=read_seconds,
        ),
        Option(("--verify",), "Build twice, and fail with status 11 where the results differ."),
        Option(("--no-cache",), "Execute every step."),
        Option(("--plan",), "Print which steps would run, and why; do nothing. The exit status is 10 if any would."),
        Option(("--explain",), "Say of each step that the cache has not which of its inputs changed."),
        Option(("--no-cache-filter",), "Execute every step of these stages.", "STAGE[,STAGE]", many=True),
        Option(
            ("--cache-from",),
            "Take steps from a cache of elsewhere: type=local,src=DIR, or an image's name.",
            "SOURCE",
            many=True,
        ),
        Option(
            ("--cache-to",),
            "Leave the steps behind: type=local,dest=DIR[,mode=min|max], or type=inline in the image.",
            "DESTINATION",
            many=True,
        ),
        Option(("-q", "--quiet"), "Print the image's ID only."),
        Option(
            ("--progress",), "auto, plain, tty, quiet or rawjson; auto is tty on a terminal.", "KIND", default="auto"
        ),
        Option(
            ("-o", "--output"),
            "Where the result goes: type=local|tar|oci|docker|image[,dest=PATH][,name=NAME], a folder, or -.",
            "OUTPUT",
            many=True,
        ),
        Option(("--label",), "Give the image a label.", "NAME=VALUE", many=True, read=read_label),
        Option(("--annotation",), "Annotate the image's manifest.", "[manifest:|index:]NAME=VALUE", many=True),
        Option(("--squash",), "Make one layer of all that this build adds to the base image."),
        Option(("--iidfile",), "Write the image's ID to a file.", "FILE"),
        Option(("--metadata-file",), "Write what was built, as JSON, to a file.", "FILE"),
        *build_flags.OPTIONS,
    ),
    arguments=(Argument("PATH", what="a directory, an URL, or - for standard input"),),
    not_yet=(
        "--builder --cgroup-parent --cpu-period --cpu-quota -c --cpu-shares --cpuset-cpus --cpuset-mems --isolation "
        "-m --memory --memory-swap --policy --push --security-opt"
    ),
)
