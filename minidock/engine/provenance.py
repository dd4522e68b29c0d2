"""Provenance: an in-toto statement of how an image was built, and the manifest that carries it beside the image.

Sources: in-toto attestation framework, Statement v1; SLSA, provenance v1; BuildKit's manual, "SLSA definitions" (whose
build type this is: what it says of a field holds here) and "Image attestation storage". A secret is never in it, only
its ID, and that with mode=max alone.
"""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from minidock import __version__
from minidock.build.arguments import PROXIES, host_platform
from minidock.build.image_platforms import own_platform
from minidock.build.sources.remote import parse_remote, redacted
from minidock.errors import InvalidReferenceError
from minidock.model.attestations import MAX
from minidock.model.digest import digest_of, hex_of
from minidock.model.oci import CONFIG, INDEX, MANIFEST, Descriptor, Manifest, encode_json, encode_manifest
from minidock.model.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from minidock.build.export import Finished
    from minidock.build.request import BuildRequest
    from minidock.model.attestations import Provenance

IN_TOTO = "application/vnd.in-toto+json"
PREDICATE = "https://slsa.dev/provenance/v1"
_STATEMENT = "https://in-toto.io/Statement/v1"
_BUILD_TYPE = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
_NOWHERE = {"architecture": "unknown", "os": "unknown"}


class Attested(NamedTuple):
    """An attestation as bytes: its manifest, that one's configuration, and the statement."""

    manifest: bytes
    config: bytes
    statement: bytes

    @property
    def blobs(self) -> tuple[bytes, ...]:
        """All that it is made of."""
        return tuple(self)

    def index_with(
        self, image: Descriptor, platform: dict[str, str], annotations: tuple[tuple[str, str], ...]
    ) -> bytes:
        """The index of the manifest that it is about, which is for ``platform``, and its own."""
        about = {"vnd.docker.reference.digest": image.digest, "vnd.docker.reference.type": "attestation-manifest"}
        own = Descriptor(MANIFEST, digest_of(self.manifest), len(self.manifest), tuple(about.items()))
        manifests = [{**image.to_json(), "platform": platform}, {**own.to_json(), "platform": _NOWHERE}]
        further = {"annotations": dict(annotations)} if annotations else {}
        return encode_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, **further})


class Recorder:
    """What is attested of one build: made when it begins, asked when it is finished."""

    __slots__ = ("_request", "_started", "_wanted")

    def __init__(self, wanted: Provenance, request: BuildRequest) -> None:
        self._wanted = wanted
        self._request = request
        self._started = time.time_ns()

    def predicate(self, finished: Finished) -> dict[str, Any]:
        """How the image was built: SLSA's provenance v1."""
        wanted, request = self._wanted, self._request
        whole = wanted.mode == MAX
        metadata: dict[str, Any] = {
            "startedOn": _rfc3339(self._started),
            "finishedOn": _rfc3339(time.time_ns()),
            "buildkit_completeness": {"request": whole, "resolvedDependencies": False},
            "buildkit_reproducible": wanted.reproducible,
        }
        if whole and finished.inputs is not None:
            source = finished.inputs.dockerfile
            data = base64.b64encode(source.text.encode("utf-8", "surrogateescape")).decode()
            infos = [{"filename": source.filename, "language": "Dockerfile", "data": data}]
            metadata["buildkit_metadata"] = {"source": {"infos": infos}}
        return {
            "buildDefinition": {
                "buildType": _BUILD_TYPE,
                "externalParameters": {
                    "configSource": _config_source(request, finished),
                    "request": _request(request, whole=whole),
                },
                "internalParameters": {"builderPlatform": host_platform()},
                "resolvedDependencies": _materials(finished),
            },
            "runDetails": {
                "builder": {"id": wanted.builder_id, "version": {"minidock": __version__}},
                "metadata": metadata,
            },
        }


def attest(
    predicate: dict[str, Any], manifest_digest: str, platform: Mapping[str, str], names: Sequence[str]
) -> Attested:
    """The attestation of the image of a manifest, with these names (full references)."""
    shown = "/".join(platform[key] for key in ("os", "architecture", "variant") if key in platform)
    subjects = [_purl(name, shown) for name in names] or ["_"]
    digest = {"sha256": hex_of(manifest_digest)}
    statement = encode_json(
        {
            "_type": _STATEMENT,
            "subject": [{"name": name, "digest": digest} for name in subjects],
            "predicateType": PREDICATE,
            "predicate": predicate,
        }
    )
    layer = Descriptor(IN_TOTO, digest_of(statement), len(statement), (("in-toto.io/predicate-type", PREDICATE),))
    config = encode_json({**_NOWHERE, "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer.digest]}})
    manifest = Manifest(Descriptor(CONFIG, digest_of(config), len(config)), (layer,))
    return Attested(encode_manifest(manifest), config, statement)


def _config_source(request: BuildRequest, finished: Finished) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if parse_remote(request.context, shorthand=True) is not None:
        found["uri"] = redacted(request.context)
    if finished.inputs is not None:
        found["path"] = finished.inputs.dockerfile.filename
    return found


def _request(request: BuildRequest, *, whole: bool) -> dict[str, Any]:
    args: dict[str, str] = {"target": request.target} if request.target else {}
    if request.platform:
        args["platform"] = request.platform
    if request.no_cache:
        args["no-cache"] = ""
    if request.network != "bridge":
        args["force-network-mode"] = request.network
    locals_ = [{"name": "dockerfile"}]
    if parse_remote(request.context, shorthand=True) is None:
        locals_.insert(0, {"name": "context"})
    value: dict[str, Any] = {"frontend": "dockerfile.v0", "args": args, "locals": locals_}
    if not whole:
        return value
    # An address of a proxy may hold a password.
    args.update((f"build-arg:{name}", text) for name, text in request.build_args if name not in PROXIES)
    args.update((f"label:{name}", text) for name, text in request.labels)
    value["secrets"] = [{"id": secret.id, "optional": True} for secret in request.run.secrets]
    value["ssh"] = [{"id": agent.id, "optional": True} for agent in request.run.agents]
    return value


def _materials(finished: Finished) -> list[dict[str, Any]]:
    images = finished.inputs.images if finished.inputs is not None else ()
    return [
        {
            "uri": _purl(name, own_platform(image.config)),
            "digest": {"sha256": hex_of(image.manifest_digest)},
        }
        for name, image in images
    ]


def _purl(name: str, platform: str) -> str:
    """An image as a package URL: ``pkg:docker/busybox@latest?platform=linux%2Famd64``."""
    query = f"?platform={quote(platform, safe='')}" if platform else ""
    try:
        reference = parse_reference(name).tagged()
    except InvalidReferenceError:
        return f"pkg:docker/{quote(name, safe='')}{query}"
    version = f"@{quote(reference.tag, safe='')}" if reference.tag else ""
    return f"pkg:docker/{quote(reference.familiar_repository, safe='/')}{version}{query}"


def _rfc3339(nanoseconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(nanoseconds // 1_000_000_000))
