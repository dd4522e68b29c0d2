"""``--attest``, ``--provenance``, ``--sbom``: buildx's grammar."""

from __future__ import annotations

import pytest

from minidock.errors import UsageError
from minidock.model.attestations import Provenance, as_attestation, parse_attestations


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], None),
        (["type=provenance"], Provenance()),
        (["type=provenance,mode=max"], Provenance("max")),
        (
            ["type=provenance,mode=min,builder-id=https://ci/7,reproducible=true"],
            Provenance("min", "https://ci/7", True),
        ),
        (["type=provenance,version=v1,inline-only=1"], Provenance()),
        (["type=provenance,disabled=true"], None),
        (["type=sbom,disabled=true"], None),
        ([as_attestation("provenance", "true")], Provenance()),
        ([as_attestation("provenance", "0")], None),
        ([as_attestation("provenance", "mode=max"), as_attestation("sbom", "false")], Provenance("max")),
    ],
)
def test_what_is_to_be_attested(texts: list[str], expected: Provenance | None) -> None:
    assert parse_attestations(texts) == expected


@pytest.mark.parametrize(
    ("texts", "named"),
    [
        (["provenance"], "'provenance' makes no sense"),
        (["type=seal"], "there is no type 'seal'"),
        (["mode=max"], "there is no type ''"),
        (["type=provenance,mode=most"], "mode is min or max"),
        (["type=provenance,mode=min,mode=max"], "'mode=max' makes no sense"),
        (["type=provenance,version=v0.2"], "written as SLSA v1"),
        (["type=provenance,reproducible=perhaps"], "reproducible is true or false"),
        (["type=provenance", "type=provenance,mode=max"], "in two ways"),
        ([as_attestation("sbom", "true")], "(sbom) is not made"),
        (["type=sbom,generator=x"], "'generator=x' makes no sense"),
    ],
)
def test_what_makes_no_sense(texts: list[str], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_attestations(texts)
    assert named in caught.value.message
