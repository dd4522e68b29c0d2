"""``minidock build``: an image from a Dockerfile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.cli.declare import Argument, Command, Option, read_reference
from minidock.errors import UsageError

if TYPE_CHECKING:
    from minidock.cli.session import Session


def read_build_arg(text: str) -> str:
    """The argument, unchanged; ValueError where it has no name."""
    if not text.partition("=")[0]:
        raise ValueError("the form is NAME=VALUE")
    return text


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
) -> int:
    """Read the Dockerfile from standard input where asked, build, and with ``-q`` print the image's ID."""
    if path == "-" or "://" in path or path.startswith("git@"):
        raise UsageError(f"the build context {path!r} is not there yet", hint="give a directory")
    if progress not in ("auto", "plain", "quiet"):
        raise UsageError(f"--progress {progress} is not there yet", hint="it is auto, plain or quiet")
    silent = quiet or progress == "quiet"
    text = _standard_input() if file == "-" else None
    image_id = session.engine.build(
        path,
        tags=tag,
        text=text,
        dockerfile=file if file and text is None else "",
        build_args=build_arg,
        target=target or "",
        no_cache=no_cache,
        ulimits=ulimit,
        progress=2,
        quiet=silent,
    )
    if silent:
        session.print(image_id)
    return 0


def _standard_input() -> str:
    return open(0, encoding="utf-8", errors="surrogateescape", closefd=False).read()


COMMAND = Command(
    "build",
    "Build an image from a Dockerfile and a context directory.",
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
        Option(("--target",), "Build this stage.", "STAGE"),
        Option(("--ulimit",), "Set a resource limit of RUN's commands.", "NAME=SOFT[:HARD]", many=True),
        Option(("--no-cache",), "Execute every step."),
        Option(("-q", "--quiet"), "Print the image's ID only."),
        Option(("--progress",), "auto, plain or quiet; auto is plain.", "KIND", default="auto"),
    ),
    arguments=(Argument("PATH", what="a directory"),),
    not_yet=(
        "--add-host --allow --annotation --attest --build-context --builder --cache-from --cache-to --call "
        "--cgroup-parent --check --compress --cpu-period --cpu-quota -c --cpu-shares --cpuset-cpus "
        "--cpuset-mems -D --force-rm --iidfile --isolation --label --load -m --memory --memory-swap --metadata-file "
        "--network --no-cache-filter -o --output --platform --policy --provenance --pull --push --rm --sbom "
        "--secret --security-opt --shm-size --squash --ssh"
    ),
)
