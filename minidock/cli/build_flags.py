"""Flags of ``build`` beside the Dockerfile's own matters: the platform, what an image is not to have, attestations; and
those of docker's that ask for what is so anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minidock.cli.declare import Option
from minidock.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from minidock.cli.session import Session

_CALLS = ("build", "check")


def read_on_error(text: str) -> str:
    """What becomes of a step that fails; ValueError for anything else."""
    if text not in ("keep", "discard", "shell"):
        raise ValueError("it is keep, discard or shell")
    return text


OPTIONS = (
    Option(("--platform",), "Build for this platform.", "OS/ARCH[/VARIANT]"),
    Option(("--pull",), "Ask for base images anew, where they can be pulled."),
    Option(("--unsetenv",), "Leave a variable out of the image.", "NAME", many=True),
    Option(("--unsetlabel",), "Leave a label of the base out of the image.", "NAME", many=True),
    Option(("--provenance",), "Attest how the image was built: true, or mode=min|max.", "WHAT"),
    Option(("--attest",), "Attest something of the image: type=provenance[,mode=min|max].", "WHAT", many=True),
    Option(("--sbom",), "Only false: there is no list of an image's packages yet.", "WHAT"),
    Option(
        ("--on-error",),
        "Of a step that fails: keep what it left (run FAILED), discard it, or open a shell in it.",
        "WHAT",
        read=read_on_error,
    ),
    Option(("--call",), "What to do: build, or check (as --check).", "METHOD", default="build"),
    Option(("--load",), "Put the image into the store, beside other outputs too."),
    Option(("--rm",), "Nothing more: a build leaves no containers behind."),
    Option(("--force-rm",), "Nothing more: a build leaves no containers behind."),
    Option(("--compress",), "Nothing more: the context is not sent anywhere."),
    Option(("-D", "--debug"), "Print each step of the sandbox as it happens."),
)
_WITHOUT_EFFECT = ("rm", "force_rm", "compress")


def take(
    session: Session, flags: dict[str, Any], outputs: Sequence[str]
) -> tuple[dict[str, Any], tuple[str, ...], bool]:
    """Take the values of ``OPTIONS`` out of the flags: what they are to the engine, the outputs with what ``--load``
    adds, and whether only the checks are wanted. Raises UsageError."""
    for name in _WITHOUT_EFFECT:
        flags.pop(name)
    if flags.pop("debug"):
        session.be_verbose()
    found = {name: flags.pop(name) for name in ("platform", "pull", "unsetenv", "unsetlabel", "on_error")}
    attest, provenance, sbom = flags.pop("attest"), flags.pop("provenance"), flags.pop("sbom")
    if attest or provenance is not None or sbom is not None:
        from minidock.model.attestations import as_attestation

        short = (("provenance", provenance), ("sbom", sbom))
        texts = [as_attestation(kind, text) for kind, text in short if text is not None]
        found["attestations"] = (*attest, *texts)
    load = flags.pop("load")
    only_check = _only_check(flags.pop("call"))
    taken = (*outputs, "type=image") if load and outputs else tuple(outputs)
    return {name: value for name, value in found.items() if value}, taken, only_check


def check_stdout(outputs: Sequence[str]) -> None:
    """Raise UsageError where an output goes to standard output, which an image's ID is to have."""
    if not outputs:
        return
    from minidock.model.outputs import STDOUT, parse_outputs

    if any(output.dest == STDOUT for output in parse_outputs(outputs)):
        raise UsageError(
            "an image's ID and an archive cannot both go to standard output", hint="leave out -q, or give dest=FILE"
        )


def _only_check(call: str) -> bool:
    method, *rest = call.split(",")
    if method not in _CALLS or rest not in ([], ["format=text"]):
        raise UsageError(f"there is no method {call!r} of --call", hint="it is build or check")
    return method == "check"
