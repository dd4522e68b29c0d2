"""``minidock info``: the storage driver, what there is of containers and images, and the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from minidock.cli import text
from minidock.cli.declare import Command, Option

if TYPE_CHECKING:
    from minidock.cli.session import Session

LABELS = (
    ("CgroupDriver", "Cgroup Driver"),
    ("CgroupVersion", "Cgroup Version"),
    ("CgroupControllers", "Cgroup Controllers"),
    ("Runtimes", "Runtimes"),
    ("DefaultRuntime", "Default Runtime"),
    ("InitBinary", "Init Binary"),
    ("SecurityOptions", "Security Options"),
    ("KernelVersion", "Kernel Version"),
    ("OperatingSystem", "Operating System"),
    ("OSType", "OSType"),
    ("Architecture", "Architecture"),
    ("NCPU", "CPUs"),
    ("MemTotal", "Total Memory"),
    ("Name", "Name"),
    ("ID", "ID"),
    ("DockerRootDir", "Root Dir"),
    ("RootFree", "Root Dir Free"),
    ("Debug", "Debug Mode"),
    ("ExperimentalBuild", "Experimental"),
    ("HttpProxy", "HTTP Proxy"),
    ("HttpsProxy", "HTTPS Proxy"),
    ("NoProxy", "No Proxy"),
    ("LiveRestoreEnabled", "Live Restore Enabled"),
)


def execute(session: Session, *, format: str | None) -> int:  # noqa: A002 - the flag's name
    """Print the block for people with its warnings on standard error, or what ``--format`` makes of it."""
    from minidock.cli.table import print_objects
    from minidock.cli.template import Template

    format = format or None  # noqa: A001 - the flag's name
    if format and format != "json":
        Template(format)
    info = session.engine.info()
    if format:
        print_objects(session, [info], format)
        return 0
    for line in lines(info):
        session.print(text.printable(line))
    for warning in info.get("Warnings") or ():
        session.print_error(f"WARNING: {warning.removeprefix('WARNING: ')}")
    return 0


def lines(info: dict[str, Any]) -> Iterator[str]:
    """The block that people read: one blank of indent, two where a line belongs to the one above."""
    yield f" Containers: {info['Containers']}"
    for key in ("Running", "Paused", "Stopped"):
        yield f"  {key}: {info[f'Containers{key}']}"
    yield f" Images: {info['Images']}"
    yield f" Server Version: {info['ServerVersion']}"
    yield f" Storage Driver: {info['Driver']}"
    for key, value in info["DriverStatus"]:
        yield f"  {key}: {value}"
    yield f" Logging Driver: {info['LoggingDriver']}"
    yield " Plugins:"
    for key, names in info["Plugins"].items():
        yield f"  {key}: {' '.join(names)}"
    for key, label in LABELS:
        if key in info:
            yield from _field(key, label, info[key])


def _field(key: str, label: str, value: Any) -> Iterator[str]:
    if key == "SecurityOptions":
        yield f" {label}:"
        for option in value:
            yield from _security_option(option)
    elif key == "MemTotal":
        yield f" {label}: {text.memory(value)}"
    elif key == "RootFree":
        yield f" {label}: {text.size(value)}"
    elif isinstance(value, dict | list):
        yield f" {label}: {' '.join(value)}"
    elif value not in ("", None):
        yield f" {label}: {str(value).lower() if isinstance(value, bool) else value}"


def _security_option(option: str) -> Iterator[str]:
    """``name=seccomp,profile=builtin`` as a line for the name and one for each of its properties."""
    fields = dict(field.partition("=")[::2] for field in option.split(","))
    yield f"  {fields.pop('name', option)}"
    for key, value in fields.items():
        yield f"   {key.capitalize()}: {value}"


COMMAND = Command(
    "info",
    "Print storage driver, containers, images and the host's properties.",
    execute,
    options=(Option(("-f", "--format"), "json, or a template.", "TEMPLATE"),),
)
