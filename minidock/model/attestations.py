"""``--attest``, ``--provenance`` and ``--sbom``: what is to be attested of an image. The grammar, which is buildx's; no
I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from minidock.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

PROVENANCE = "provenance"
MIN, MAX = "min", "max"
_TRUE, _FALSE = ("true", "1", "t", "T", "TRUE", "True"), ("false", "0", "f", "F", "FALSE", "False")
_KEYS = ("builder-id", "disabled", "inline-only", "mode", "reproducible", "type", "version")
_FORM = "the form is type=provenance[,mode=min|max][,builder-id=ID][,reproducible=true]"


class Provenance(NamedTuple):
    """How much of a build is attested: ``mode`` is min or max, ``builder_id`` an URI of the builder or empty;
    ``reproducible`` is what the user says of the build."""

    mode: str = MIN
    builder_id: str = ""
    reproducible: bool = False


def as_attestation(kind: str, text: str) -> str:
    """The value of ``--provenance`` or ``--sbom`` as one of ``--attest``."""
    if text in _TRUE + _FALSE:
        return f"type={kind},disabled={'false' if text in _TRUE else 'true'}"
    return f"type={kind},{text}"


def parse_attestations(texts: Iterable[str]) -> Provenance | None:
    """Read every ``--attest``; None where nothing is to be attested. Raises UsageError, naming the text."""
    found: dict[str, Provenance | None] = {}
    for text in texts:
        kind, wanted = _parse(text)
        if kind in found:
            raise UsageError(f"{kind} is to be attested in two ways, the second is {text!r}", hint="give one of them")
        found[kind] = wanted
    return found.get(PROVENANCE)


def _parse(text: str) -> tuple[str, Provenance | None]:
    values: dict[str, str] = {}
    for field in text.split(","):
        key, equals, value = field.strip().partition("=")
        if key not in _KEYS or not equals or key in values:
            raise UsageError(f"invalid attestation {text!r}: {field!r} makes no sense", hint=_FORM)
        values[key] = value
    kind = values.get("type", "")
    disabled = _truth(text, values, "disabled")
    if kind == "sbom" and not disabled:
        raise UsageError(
            "a list of an image's packages (sbom) is not made by minidock", hint="leave it out, or give --sbom=false"
        )
    if kind not in (PROVENANCE, "sbom"):
        raise UsageError(f"invalid attestation {text!r}: there is no type {kind!r}", hint=_FORM)
    mode, version = values.get("mode", MIN), values.get("version", "v1")
    if mode not in (MIN, MAX):
        raise UsageError(f"invalid attestation {text!r}: mode is min or max")
    if version != "v1":
        raise UsageError(f"invalid attestation {text!r}: provenance is written as SLSA v1", hint="leave out version=")
    _truth(text, values, "inline-only")
    wanted = Provenance(mode, values.get("builder-id", ""), _truth(text, values, "reproducible"))
    return kind, None if disabled else wanted


def _truth(text: str, values: dict[str, str], key: str) -> bool:
    value = values.get(key, "false")
    if value not in _TRUE + _FALSE:
        raise UsageError(f"invalid attestation {text!r}: {key} is true or false")
    return value in _TRUE
