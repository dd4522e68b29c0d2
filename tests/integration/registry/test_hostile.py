"""What a hostile registry may send: each ends in one sentence, in bounded time and memory, with nothing to be seen in
the store (rows 39 to 42 of the security specification)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest

from minidock.errors import MinidockError
from minidock.model.oci import INDEX, LAYER_GZIP, LAYER_TAR, LAYER_ZSTD, MANIFEST
from tests.integration.registry.conftest import Puller
from tests.integration.registry.evilreg import (
    EvilRegistry,
    Exchange,
    Layer,
    config_of,
    digest_of,
    layer,
    manifest_of,
    tar_of,
)

GOOD = layer({"file": b"content" * 1000})
OTHER = layer({"other": b"y" * 5000})
ZEROS = "sha256:" + "0" * 64


def _changed(change: Callable[[dict[str, Any]], object], *layers: Layer) -> Callable[[EvilRegistry], None]:
    """An image whose manifest is changed."""

    def make(evil: EvilRegistry) -> None:
        used = layers or (GOOD,)
        for one in used:
            evil.blob(one.data)
        config = config_of(used)
        evil.blob(config)
        manifest = manifest_of(config, used)
        change(manifest)
        evil.manifest("a", manifest)

    return make


def _manifest(value: object, media_type: str = MANIFEST) -> Callable[[EvilRegistry], None]:
    return lambda evil: void(evil.manifest("a", value, media_type))


def _config(value: bytes | None = None, **changes: Any) -> Callable[[EvilRegistry], None]:
    """An image whose configuration is another."""

    def make(evil: EvilRegistry) -> None:
        evil.blob(GOOD.data)
        data = config_of([GOOD], **changes) if value is None else value
        evil.blob(data)
        evil.manifest("a", manifest_of(data, [GOOD]))

    return make


def _answers(part: str, action: Callable[[Exchange], object]) -> Callable[[EvilRegistry], None]:
    """A good image, some of which comes otherwise."""

    def make(evil: EvilRegistry) -> None:
        evil.image("a", GOOD)
        evil.on(part, action)

    return make


def void(_: object) -> None:
    return


def _flip(exchange: Exchange) -> None:
    data = bytearray(exchange.registry.blobs[GOOD.digest])
    data[len(data) // 2] ^= 1
    exchange.answer(200, bytes(data))


def _layers(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: manifest["layers"][0].update(changes)


_BLOB = f"blobs/{GOOD.digest}"
_DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
_LONG = b'{"schemaVersion": ' + b"1" * 1_000_000 + b"}"
_TWICE = Layer(GOOD.data, LAYER_GZIP, OTHER.diff_id)
_LYING = Layer(GOOD.data, LAYER_GZIP, ZEROS)
_TRUNCATED = Layer(GOOD.data[:60], LAYER_GZIP, GOOD.diff_id)
_CLIMBING = layer({"../../etc/passwd": b"x"})
_NO_TAR = Layer(b"no archive at all" * 100, LAYER_GZIP, digest_of(b"no archive at all" * 100))

ROW_39 = {
    "a flipped bit": (_answers(_BLOB, _flip), "is not what its digest says"),
    "a lying digest": (
        _changed(_layers(digest=OTHER.digest), GOOD),
        "lacks a layer, or the configuration, that the image names",
    ),
    "another blob": (_answers(_BLOB, lambda e: e.answer(200, OTHER.data[: len(GOOD.data)])), "ended too early|digest"),
    "too small a size": (_changed(_layers(size=20)), "has more than the 20 bytes that its manifest says"),
    "too large a size": (_changed(_layers(size=len(GOOD.data) + 7)), "the connection ended too early, after"),
    "a size beyond the disk": (_changed(_layers(size=1 << 60)), "a layer has 1152921504606846976 bytes, and the disk"),
    "a negative size": (_changed(_layers(size=-1)), "no valid size"),
    "another diff ID": (lambda evil: void(evil.image("a", _LYING)), "unpacks to .* and the configuration says"),
    "another diff ID, uncompressed": (
        lambda evil: void(evil.image("a", Layer(tar_of({"f": b"1"}), LAYER_TAR, ZEROS))),
        "uncompressed layer .* has another diff ID",
    ),
    "one layer, two diff IDs": (lambda evil: void(evil.image("a", GOOD, _TWICE)), "there twice, with two diff IDs"),
    "more diff IDs than layers": (
        _config(rootfs={"type": "layers", "diff_ids": [GOOD.diff_id, OTHER.diff_id]}),
        "its manifest has 1 layers, and its configuration speaks of 2",
    ),
    "another configuration": (
        _answers("blobs/(?!" + GOOD.digest + ")", lambda e: e.answer(200, b"{}" * 100)),
        "the configuration (is not what its digest says|has more than)",
    ),
    "another manifest": (
        _answers("manifests", lambda e: e.answer(200, b"{}", Docker_Content_Digest=ZEROS)),
        "the manifest is not what its digest says",
    ),
    "a truncated archive": (lambda evil: void(evil.image("a", _TRUNCATED)), "truncated|ends|damaged"),
    "an archive that climbs": (lambda evil: void(evil.image("a", _CLIMBING)), r"\.\./\.\./etc/passwd"),
    "no archive": (lambda evil: void(evil.image("a", _NO_TAR)), "archive|tar"),
}


@pytest.mark.parametrize("case", ROW_39)
def test_row_39_a_wrong_digest_size_or_diff_id_is_refused(evil: EvilRegistry, refuser: Puller, case: str) -> None:
    make, message = ROW_39[case]
    make(evil)
    _refused(evil, refuser, message)
    assert refuser.partial().keys() <= {GOOD.digest}


PATHS = {
    "a path": "sha256:../../../../etc/passwd",
    "a path of the right length": "sha256:" + ("../" * 22)[:64],
    "an unknown algorithm": "sha999:" + "0" * 64,
    "upper case": "sha256:" + "A" * 64,
    "a longer one": ZEROS + "0",
    "none": "",
    "a number": 5,
}


@pytest.mark.parametrize("where", ["layer", "config", "diff ID", "index"])
@pytest.mark.parametrize("case", PATHS)
def test_row_40_a_digest_that_is_none_is_refused_before_any_use(
    evil: EvilRegistry, refuser: Puller, case: str, where: str
) -> None:
    digest = PATHS[case]
    if where == "layer":
        _changed(_layers(digest=digest))(evil)
    elif where == "config":
        _changed(lambda manifest: manifest["config"].update(digest=digest))(evil)
    elif where == "diff ID":
        _config(rootfs={"type": "layers", "diff_ids": [digest]})(evil)
    else:
        entry = {"mediaType": MANIFEST, "digest": digest, "size": 5, "platform": {"os": "linux", "architecture": "x"}}
        evil.manifest("a", {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}, INDEX)
    _refused(evil, refuser, "no valid (media type and digest|list of diff IDs)")
    if isinstance(digest, str) and digest:
        assert not [path for path in evil.paths() if digest in path]


ROW_41 = {
    "manifests and layers": _changed(lambda manifest: manifest.update(manifests=[])),
    "manifests and a config only": _manifest({"schemaVersion": 2, "manifests": [], "config": {}}, INDEX),
    "layers that say they are an index": _changed(lambda manifest: manifest.update(mediaType=INDEX)),
    "manifests that say they are an image": _manifest({"schemaVersion": 2, "mediaType": MANIFEST, "manifests": []}),
    "fsLayers too": _changed(lambda manifest: manifest.update(fsLayers=[])),
    "nothing": _manifest({"schemaVersion": 2}),
    "a list": _manifest([]),
}


@pytest.mark.parametrize("case", ROW_41)
def test_row_41_what_could_be_an_image_and_an_index_is_refused(evil: EvilRegistry, refuser: Puller, case: str) -> None:
    ROW_41[case](evil)
    _refused(evil, refuser, "neither one of an image nor an index|it is no image|not a JSON object")


FORMS = {
    "schema 1": (
        _manifest({"schemaVersion": 1, "name": "a", "fsLayers": [], "history": []}),
        "schema 1, which nobody writes any more",
    ),
    "an artifact": (
        _changed(lambda manifest: manifest["config"].update(mediaType="application/vnd.example.chart")),
        "it is no image, but holds 'application/vnd.example.chart'",
    ),
    "a foreign layer": (
        _changed(
            _layers(
                mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                urls=["http://127.0.0.1:9/windows"],
            )
        ),
        "a layer is 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', which is not read",
    ),
    "an encrypted layer": (_changed(_layers(mediaType=f"{LAYER_GZIP}+encrypted")), "which is not read"),
    "no layers": (_manifest({"schemaVersion": 2, "config": {}}), "descriptor|layers"),
    "too many layers": (_changed(lambda m: m.update(layers=m["layers"] * 1001)), "it has 1001 layers"),
    "zstd that is none": (
        _changed(lambda manifest: manifest["layers"][0].update(mediaType=LAYER_ZSTD, size="5")),
        "no valid size",
    ),
    "a terminal's codes": (
        _changed(_layers(mediaType="\x1b]0;owned\x07\n")),
        r"a layer is '\\x1b\]0;owned\\x07\\n', which is not read",
    ),
}


@pytest.mark.parametrize("case", FORMS)
def test_what_is_no_image_is_told_by_its_kind(evil: EvilRegistry, refuser: Puller, case: str) -> None:
    make, message = FORMS[case]
    make(evil)
    error = _refused(evil, refuser, message)
    assert case != "schema 1" or error.hint == "push it anew with a tool of after 2017"


ROW_42 = {
    "a manifest of 5 MiB": (_answers("manifests", lambda e: e.answer(200, b" " * (5 << 20))), "4194304 bytes allowed"),
    "an endless manifest": (_answers("manifests", lambda e: (e.head(200), e.endless(b" " * 65536))), "4194304 bytes"),
    "a deep manifest": (_manifest(_DEEP), "is not valid JSON"),
    "a long number": (_manifest(_LONG), "is not valid JSON"),
    "NaN": (_manifest(b'{"schemaVersion": NaN}'), "is not valid JSON"),
    "no JSON": (_manifest(b"<html>"), "is not valid JSON"),
    "no text": (_manifest(b"\xff\xfe\x00\x01\x80"), "is not valid JSON"),
    "a deep configuration": (_config(_DEEP), "the configuration is not valid JSON"),
    "a long number in a configuration": (_config(_LONG), "the configuration is not valid JSON"),
    "NaN in a configuration": (
        _config(b'{"x": NaN, "rootfs": {"diff_ids": []}}'),
        "configuration is not valid JSON",
    ),
    "a large configuration": (
        _changed(lambda manifest: manifest["config"].update(size=5 << 20)),
        "the configuration has more than the 4194304 bytes allowed",
    ),
    "an endless configuration": (
        _answers("blobs/(?!" + GOOD.digest + ")", lambda e: (e.head(200), e.endless(b" " * 65536))),
        "the configuration has more than the [0-9]+ bytes allowed",
    ),
    "an endless layer": (
        _answers(_BLOB, lambda e: (e.head(200), e.endless(b"\0" * 65536))),
        "has more than the [0-9]+ bytes that its manifest says|is not what its digest says",
    ),
    "an endless error": (_answers("manifests", lambda e: (e.head(404), e.endless(b" " * 65536))), "no such image"),
    "a deep error": (_answers("manifests", lambda e: e.answer(403, _DEEP)), "denies access"),
    "an endless header": (
        _answers("manifests", lambda e: [e.handler.wfile.write(b"X: " + b"x" * 60_000 + b"\r\n") for _ in range(500)]),
        "127.0.0.1",
    ),
    "no HTTP": (_answers("manifests", lambda e: (e.handler.wfile.write(b"220 ready\r\n"), e.hang_up())), "127.0.0.1"),
    "indexes without end": (None, "indexes in indexes more than 3 deep"),
}


def _nested(evil: EvilRegistry) -> None:
    digest = evil.manifest("a", {"schemaVersion": 2, "manifests": []}, INDEX)
    for _ in range(5):
        data = evil.manifests["a", digest][1]
        entry = {"mediaType": INDEX, "digest": digest, "size": len(data)}
        digest = evil.manifest("a", {"schemaVersion": 2, "manifests": [entry]}, INDEX)


@pytest.mark.parametrize("case", ROW_42)
def test_row_42_what_is_too_large_or_too_deep_is_refused(evil: EvilRegistry, refuser: Puller, case: str) -> None:
    make, message = ROW_42[case]
    (make or _nested)(evil)
    _refused(evil, refuser, message)


def test_row_42_a_token_without_end(evil: EvilRegistry, refuser: Puller) -> None:
    evil.image("a", GOOD)
    evil.on("/token", lambda e: (e.head(200), e.endless(b" " * 65536)))
    evil.on("manifests", lambda e: e.answer(401, WWW_Authenticate=f'Bearer realm="{evil.url}/token"'))
    _refused(evil, refuser, "the token of 127.0.0.1:[0-9]+ has more than the 1048576 bytes allowed")


@pytest.mark.parametrize(
    "token", [b"[]", b'{"token": 5}', b'{"token": "a\\r\\nX: y"}', b'{"token": "' + b"x" * 70_000 + b'"}', b"{", _DEEP]
)
def test_row_42_a_token_that_is_none(evil: EvilRegistry, refuser: Puller, token: bytes) -> None:
    evil.image("a", GOOD)
    evil.on("/token", lambda e: e.answer(200, token))
    evil.on("manifests", lambda e: e.answer(401, WWW_Authenticate=f'Bearer realm="{evil.url}/token"'))
    _refused(evil, refuser, "gives no token, and .* wants one|the token of .* is not valid JSON")


def test_row_42_a_list_of_tags_without_end(evil: EvilRegistry, refuser: Puller) -> None:
    def more(exchange: Exchange) -> None:
        link = '</v2/a/tags/list?n=1000&last=x>; rel="next"'
        exchange.answer(200, json.dumps({"name": "a", "tags": ["x"]}), Link=link)

    evil.on("tags/list", more)
    error = refuser.refuse(f"{evil.host}/a", all_tags=True)
    assert error.message == f"cannot list the tags of {evil.host}/a: the list does not end"
    assert len(evil.paths("tags/list")) == 200


@pytest.mark.parametrize("tag", ["../../etc", "a\nb", "", "x" * 129, "a:b", 5])
def test_a_tag_that_cannot_be_one_is_refused(evil: EvilRegistry, refuser: Puller, tag: object) -> None:
    evil.on("tags/list", lambda e: e.answer(200, json.dumps({"tags": [tag]})))
    assert "is none" in refuser.refuse(f"{evil.host}/a", all_tags=True).message
    assert evil.paths("manifests") == []


def test_row_42_the_memory_of_a_hostile_pull_is_bounded(evil: EvilRegistry, puller: Puller) -> None:
    """A process that pulls things that never end, and a large layer, stays as small as one that pulls a small one."""
    big = layer({"big": bytes(300_000_000)})
    evil.image("big", big)
    evil.image("small", GOOD)
    evil.on("endless/manifests", lambda e: (e.head(200), e.endless(b" " * 65536)))
    evil.on("error/manifests", lambda e: (e.head(404), e.endless(b"x" * 65536)))
    program = textwrap.dedent("""
        import resource, sys
        from minidock import Engine
        from minidock.errors import RegistryError
        engine = Engine(root=sys.argv[1])
        for name in sys.argv[3:]:
            try:
                engine.pull(f"{sys.argv[2]}/{name}")
            except RegistryError:
                pass
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """)

    def peak(*names: str) -> int:
        line = [sys.executable, "-c", program, f"{puller.root.path}-memory", evil.host, *names]
        return int(subprocess.run(line, check=True, capture_output=True, text=True, timeout=60).stdout)

    small = peak("small")
    assert peak("endless", "error", "big") - small < 40_000


def test_headers_that_drip_end_when_their_time_is_over(evil: EvilRegistry, refuser: Puller) -> None:
    """What is read into memory has to be there after a minute, however often a byte of it comes."""
    from minidock.registry import answers

    evil.image("a", GOOD)
    gone = threading.Event()

    def drip(exchange: Exchange) -> None:
        exchange.head(200, Content_Length="100000")
        while not gone.wait(0.01) and not exchange.registry.closing.is_set():
            exchange.send(b" ")

    evil.on("manifests", drip)
    before = answers._DEADLINE
    answers._DEADLINE = 0.3
    try:
        _refused(evil, refuser, "did not come within")
    finally:
        answers._DEADLINE = before
        gone.set()


STORMS = {
    "429": (429, "1", "limits how often that may be asked", [1.0, 1.0]),
    "429 for a year": (429, "31536000", "limits how often that may be asked", [30.0, 30.0]),
    "429 of nonsense": (429, "\t-soon;", "limits how often that may be asked", [0.5, 1.0]),
    "500": (500, "", "answers 500 Internal Server Error", [0.5, 1.0]),
    "503": (503, "7", "answers 503 Service Unavailable", [7.0, 7.0]),
}


@pytest.mark.parametrize("where", ["manifests", _BLOB, "/token"])
@pytest.mark.parametrize("case", STORMS)
def test_a_storm_of_errors_is_waited_out_a_few_times(
    evil: EvilRegistry, refuser: Puller, case: str, where: str
) -> None:
    status, after, message, waits = STORMS[case]
    evil.image("a", GOOD)
    if where == "/token":
        evil.on("manifests", lambda e: e.answer(401, WWW_Authenticate=f'Bearer realm="{evil.url}/token"'))
    evil.on(where, lambda e: e.answer(status, **({"Retry_After": after} if after else {})))
    _refused(evil, refuser, message)
    assert refuser.waits == waits
    assert len([path for path in evil.paths() if where in path]) == 3


@pytest.mark.parametrize("where", ["manifests", _BLOB, "/token", "blobs/(?!" + GOOD.digest + ")"])
def test_a_storm_that_passes_is_no_error(evil: EvilRegistry, puller: Puller, where: str) -> None:
    evil.image("a", GOOD)
    if where == "/token":
        evil.on("/token", lambda e: e.answer(200, '{"token": "t"}'))
        evil.on("manifests", lambda e: e.answer(401, WWW_Authenticate=f'Bearer realm="{evil.url}/token"'), times=1)
    evil.on(where, lambda e: e.answer(503), times=2)
    assert puller(f"{evil.host}/a")[0].fresh
    assert len(puller.waits) == 2


@pytest.mark.parametrize(
    "location",
    [
        *("", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://u:hidden@127.0.0.1/", "http://[", "//", "http://a b/"),
        *("http://127.0.0.1:99999/", "http://" + "x" * 300 + "/", "javascript:alert(1)"),
    ],
)
def test_a_redirect_to_no_place_is_refused(evil: EvilRegistry, refuser: Puller, location: str) -> None:
    evil.image("a", GOOD)
    evil.on("manifests", lambda e: e.answer(307, Location=location))
    error = _refused(evil, refuser, "redirects to|127.0.0.1")
    assert "hidden" not in str(error)


def test_redirects_that_go_round_end(evil: EvilRegistry, refuser: Puller) -> None:
    evil.image("a", GOOD)
    evil.on(_BLOB, lambda e: e.answer(302, Location=e.asked.path))
    _refused(evil, refuser, "redirects more than 5 times")
    assert len(evil.paths(_BLOB)) == 6


def test_a_redirect_to_another_path_is_followed(evil: EvilRegistry, puller: Puller) -> None:
    evil.image("a", GOOD)
    evil.on(_BLOB, lambda e: e.answer(302, Location=f"/storage/{GOOD.digest}?signature=x"))
    evil.on("/storage/", lambda e: e.answer(200, GOOD.data))
    assert puller(f"{evil.host}/a")[0].fetched == len(GOOD.data)


@pytest.mark.parametrize(
    "header",
    [
        *("", "Bearer", 'Bearer realm="ftp://x/"', 'Bearer realm="http://["', "Bearer realm=", "Digest x=y", "\x00"),
        *("," * 8000, 'Bearer realm="http://user:hidden@127.0.0.1/"', 'Bearer realm="http://127.0.0.1:99999/"'),
        " " * 60_000,
    ],
)
def test_a_challenge_that_makes_no_sense_is_a_refusal(evil: EvilRegistry, refuser: Puller, header: str) -> None:
    evil.image("a", GOOD)
    evil.on("manifests", lambda e: e.answer(401, WWW_Authenticate=header))
    error = _refused(evil, refuser, "denies access|names no place that gives tokens")
    assert "hidden" not in str(error)


def test_one_who_is_never_content_is_asked_twice(evil: EvilRegistry, refuser: Puller) -> None:
    evil.image("a", GOOD)
    evil.on("/token", lambda e: e.answer(200, '{"token": "t"}'))
    evil.on("manifests", lambda e: e.answer(401, WWW_Authenticate=f'Bearer realm="{evil.url}/token"'))
    error = _refused(evil, refuser, "denies access")
    assert error.hint == f"`minidock login {evil.host}`"
    assert len(evil.paths("manifests")) == 2


def test_the_errors_of_a_registry_are_told_on_one_line(evil: EvilRegistry, refuser: Puller) -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": "no\nminidock: all is well\x1b[31m"}]})
    evil.on("manifests", lambda e: e.answer(403, body))
    error = _refused(evil, refuser, "denies access: no minidock: all is well")
    assert "\x1b" not in error.message


def _refused(evil: EvilRegistry, puller: Puller, message: str) -> MinidockError:
    error = puller.refuse(f"{evil.host}/a")
    assert re.search(message, error.message), error.message
    assert evil.host in error.message
    assert puller.images() == []
    return error


def test_an_image_that_is_good_after_all(evil: EvilRegistry, puller: Puller) -> None:
    """What a hostile try has left does not stand in the way of a good one."""
    evil.image("a", GOOD, OTHER)
    evil.on(_BLOB, _flip)
    puller.refuse(f"{evil.host}/a")
    evil.clear()
    assert puller(f"{evil.host}/a")[0].fresh
    assert puller.partial() == {}
