"""The cache of one data root that serves another: through a folder, and through the records that an image keeps."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from minidock.build.cache_records import INLINE_KEY
from minidock.errors import HostError, UsageError
from minidock.model.cache_places import CacheFrom, CacheTo
from minidock.model.digest import digest_of
from minidock.store.images import Image
from minidock.store.staging import sweep
from tests.integration.build.conftest import Shop
from tests.killing import killed_after

DOCKERFILE = """FROM busybox AS early
WORKDIR /w
RUN echo made > made
RUN true
FROM busybox AS other
COPY a /a
RUN --mount=type=bind,source=b,target=/b cat /b > /copy
FROM early
COPY --from=other /copy /copy
COPY --from=other /a /
RUN cat /copy /a made > /all
ENV x=1
COPY b /b
"""
OWN = ["[stage-2 1/4] COPY --from=other /copy /copy", "[stage-2 4/4] COPY b /b"]
# With it a RUN that runs again gives the same layer.
EPOCH: dict[str, Any] = {"build_args": (("SOURCE_DATE_EPOCH", "1700000000"),)}


class Hosts(NamedTuple):
    """Two hosts with one context and a folder between them."""

    one: Shop
    two: Shop
    folder: Path

    def export(self, text: str = DOCKERFILE, *, whole: bool = True, **options: Any) -> Image:
        return self.one.build(text, **{**EPOCH, "cache_to": (CacheTo("local", str(self.folder), whole),), **options})

    def take(self, text: str = DOCKERFILE, **options: Any) -> Image:
        return self.two.build(text, **{**EPOCH, "cache_from": (CacheFrom("local", str(self.folder)),), **options})

    def records(self) -> list[Path]:
        return sorted((self.folder / "records").iterdir())

    def layers(self) -> set[str]:
        return {f"sha256:{path.name}" for path in (self.folder / "blobs/sha256").iterdir()}


def _hosts(tmp_path: Path, busybox: bytes, open_storage: Any, storage: str) -> Hosts:
    shops = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shops.append(Shop(tmp_path / name, busybox, lambda root: open_storage(root, storage)))
    shops[1].context = shops[0].context
    shops[0].file("a", "A")
    shops[0].file("b", "B")
    return Hosts(shops[0], shops[1], tmp_path / "cache")


@pytest.fixture(params=["overlay2", "overlay2-tarball", "vfs"])
def each_storage(request: pytest.FixtureRequest, tmp_path: Path, busybox_tar: bytes, open_storage: Any) -> Hosts:
    return _hosts(tmp_path, busybox_tar, open_storage, request.param)


@pytest.fixture(params=["overlay2", "overlay2-tarball"])
def each_form(request: pytest.FixtureRequest, tmp_path: Path, busybox_tar: bytes, open_storage: Any) -> Hosts:
    return _hosts(tmp_path, busybox_tar, open_storage, request.param)


@pytest.fixture
def hosts(tmp_path: Path, busybox_tar: bytes, open_storage: Any, mounts_tarballs: str) -> Hosts:
    return _hosts(tmp_path, busybox_tar, open_storage, "overlay2" if mounts_tarballs else "overlay2-tarball")


def warnings(shop: Shop) -> list[str]:
    return [line for line in shop.out.splitlines() if "WARNING" in line.upper()]


def test_everything_is_found_on_another_host(each_storage: Hosts) -> None:
    hosts = each_storage
    first = hosts.export()
    second = hosts.take()
    assert hosts.two.steps("DONE") == []
    assert len(hosts.two.steps("CACHED")) == len(hosts.one.steps("DONE")) + len(hosts.one.steps("CACHED"))
    assert second.id == first.id
    assert hosts.two.content(second, "all") == "BA" + "made\n"
    shutil.rmtree(hosts.folder)
    third = hosts.two.build(DOCKERFILE, **EPOCH)
    assert hosts.two.steps("DONE") == []
    assert third.id == first.id


def test_stages_side_by_side(hosts: Hosts) -> None:
    """What is found and made in processes of their own is exported, too."""
    first = hosts.export(jobs=3)
    assert hosts.take(jobs=3).id == first.id
    assert hosts.two.steps("DONE") == []
    shutil.rmtree(hosts.folder)
    hosts.export(jobs=3)
    assert hosts.one.steps("DONE") == []
    assert hosts.layers()


def test_what_comes_from_elsewhere_can_be_built_upon(each_form: Hosts) -> None:
    hosts = each_form
    hosts.export()
    more = DOCKERFILE + "RUN cat /all /b > /more\n"
    image = hosts.take(more)
    assert hosts.two.steps("DONE") == ["[stage-2 5/5] RUN cat /all /b > /more"]
    assert hosts.two.content(image, "more") == "BAmade\nB"
    assert image.config.diff_ids == hosts.one.build(more, **EPOCH).config.diff_ids


def test_a_target_and_only_what_the_build_used(hosts: Hosts) -> None:
    hosts.one.build("FROM busybox\nRUN echo other > /other\n")
    first = hosts.export(target="other")
    assert len(hosts.records()) == 2
    assert hosts.layers() == set(first.config.diff_ids[1:])
    assert hosts.take(target="other").id == first.id
    assert hosts.two.steps("DONE") == []
    hosts.take()
    assert not any("[other" in title for title in hosts.two.steps("DONE"))
    assert any("[early" in title for title in hosts.two.steps("DONE"))


def test_layers_come_when_a_step_hits(hosts: Hosts) -> None:
    text = "FROM busybox\nRUN echo 1 > /1\nRUN echo {} > /2\nRUN cat /2 > /3\n"
    first = hosts.export(text.format("two"))
    hosts.take(text.format("changed"))
    assert hosts.two.steps("DONE") == ["[3/4] RUN echo changed > /2", "[4/4] RUN cat /2 > /3"]
    there = [hosts.two.images.blobs.has(diff_id) for diff_id in first.config.diff_ids]
    assert there == [True, True, False, False]
    assert warnings(hosts.two) == []


def test_min_has_the_layers_of_the_result_only(hosts: Hosts) -> None:
    first = hosts.export(whole=False)
    assert hosts.layers() == set(first.config.diff_ids[1:])
    second = hosts.take()
    assert set(OWN) <= set(hosts.two.steps("CACHED"))
    assert all(title.startswith("[other") for title in hosts.two.steps("DONE"))
    assert second.config.diff_ids == first.config.diff_ids


def test_steps_that_were_found_are_exported_again(hosts: Hosts) -> None:
    hosts.export()
    before = hosts.records()
    shutil.rmtree(hosts.folder)
    hosts.export()
    assert hosts.one.steps("DONE") == []
    assert {path.name for path in hosts.records()} <= {path.name for path in before}
    hosts.take()
    assert hosts.two.steps("DONE") == []


def test_a_folder_takes_what_several_builds_give(hosts: Hosts) -> None:
    other = "FROM busybox\nRUN echo 2 > /x\n"
    hosts.export()
    hosts.export(other)
    hosts.take()
    assert hosts.two.steps("DONE") == []
    hosts.take(other)
    assert hosts.two.steps("DONE") == []


def test_no_cache_takes_nothing_and_gives(hosts: Hosts) -> None:
    hosts.export(no_cache=True)
    hosts.take(no_cache=True)
    assert not [title for title in hosts.two.steps("CACHED") if "FROM" not in title.partition("]")[2]]
    hosts.two.build("FROM busybox\n")
    assert hosts.records()


def test_stages_that_run_in_any_case(hosts: Hosts) -> None:
    # With an epoch, what runs again makes the same layer, whenever that is.
    hosts.one.build(DOCKERFILE, **EPOCH)
    hosts.one.build(DOCKERFILE, no_cache_filter=("other", "0", "otter"), jobs=2, **EPOCH)
    done = hosts.one.steps("DONE")
    assert done
    assert all(title.startswith(("[other", "[early")) for title in done)
    assert len(done) == 5
    assert len(warnings(hosts.one)) == 1
    assert "--no-cache-filter: there is no stage 'otter' (did you mean other?)" in warnings(hosts.one)[0]
    hosts.one.build(DOCKERFILE, **EPOCH)
    assert hosts.one.steps("DONE") == []


# Strangers


def offer(hosts: Hosts, number: int, **changed: Any) -> None:
    """Change what a record says."""
    path = hosts.records()[number]
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | changed))


def give(hosts: Hosts, data: bytes) -> None:
    """Every record names a layer of these bytes."""
    digest = digest_of(data)
    (hosts.folder / "blobs/sha256" / digest[7:]).write_bytes(data)
    for number in range(len(hosts.records())):
        offer(hosts, number, layer=digest, size=len(data))


def _tar(*members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return out.getvalue()


def _member(name: str, **fields: Any) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(found, key, value)
    return found


HOSTILE = {
    "text": b"this is no tar" * 100,
    "cut short": _tar(_member("x", size=2000))[:1024],
    "climbs": _tar(_member("../../x", size=1)),
    "link to nothing": _tar(_member("x", type=tarfile.LNKTYPE, linkname="nowhere")),
    "compressed": gzip.compress(_tar(_member("x", size=1))),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_can_be_no_layer_is_passed_over(each_form: Hosts, kind: str) -> None:
    hosts = each_form
    text = "FROM busybox\nRUN echo 1 > /1\nRUN echo 2 > /2\n"
    first = hosts.export(text)
    give(hosts, HOSTILE[kind])
    second = hosts.take(text)
    assert len(hosts.two.steps("DONE")) == 2, hosts.two.out
    assert second.config.diff_ids == first.config.diff_ids
    assert len(warnings(hosts.two)) == 1
    assert str(hosts.folder) in warnings(hosts.two)[0]
    kept = [json.loads(path.read_text()) for path in Path(hosts.two.root.cache, "build").iterdir() if path.is_file()]
    assert digest_of(HOSTILE[kind]) not in [record["diff_id"] for record in kept]
    assert hosts.two.build(text, **EPOCH).id == second.id
    assert hosts.two.steps("DONE") == []


def test_a_blob_that_is_no_layer_is_none_because_it_is_there(hosts: Hosts) -> None:
    """The base's configuration is a blob of that digest, too."""
    text = "FROM busybox\nRUN echo 1 > /1\n"
    first = hosts.export(text)
    give(hosts, hosts.two.images.blobs.read(hosts.two.images.get("busybox").id))
    assert hosts.take(text).config.diff_ids == first.config.diff_ids
    assert len(hosts.two.steps("DONE")) == 1
    assert len(warnings(hosts.two)) == 1


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("spoil", ["bits", "gone", "link", "records"])
def test_damage_is_told_once_and_the_steps_run(hosts: Hosts, tmp_path: Path, spoil: str, jobs: int) -> None:
    first = hosts.export()
    for path in (hosts.folder / "blobs/sha256").iterdir():
        if spoil == "bits":
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        elif spoil == "gone":
            path.unlink()
        elif spoil == "link":
            path.rename(tmp_path / path.name)
            path.symlink_to(tmp_path / path.name)
    if spoil == "records":
        for path in hosts.records():
            path.write_text("{")
    image = hosts.take(jobs=jobs)
    assert image.config.diff_ids == first.config.diff_ids
    assert len(hosts.two.steps("DONE")) >= 6
    assert len(warnings(hosts.two)) == 1
    assert os.listdir(hosts.two.root.tmp) == []


def test_a_damaged_layer_is_mended_by_the_build_that_found_it(hosts: Hosts) -> None:
    text = "FROM busybox\nRUN echo 1 > /1\n"
    hosts.export(text)
    (path,) = (hosts.folder / "blobs/sha256").iterdir()
    good = path.read_bytes()
    path.write_bytes(bytes(len(good)))
    place = str(hosts.folder)
    hosts.take(text, cache_to=(CacheTo("local", place),))
    assert path.read_bytes() == good


def test_a_record_is_believed(hosts: Hosts) -> None:
    """Whoever may write the folder can give any layer to a step. The store notes where it has it from."""
    text = "FROM busybox\nRUN echo 1 > /1\n"
    hosts.export(text)
    give(hosts, _tar(_member("other", size=1)))
    image = hosts.take(text)
    assert hosts.two.layer_names(image) == ["other"]
    assert warnings(hosts.two) == []
    (path,) = Path(hosts.two.root.cache, "build").glob("*.json")
    assert json.loads(path.read_text())["origin"] == str(hosts.folder)


def test_what_the_store_knows_is_not_asked_of_strangers(hosts: Hosts) -> None:
    text = "FROM busybox\nRUN echo 1 > /1\n"
    first = hosts.export(text)
    give(hosts, _tar(_member("other", size=1)))
    hosts.two.build(text, **EPOCH)
    assert hosts.take(text).config.diff_ids == first.config.diff_ids


def test_sources_are_asked_in_their_order(hosts: Hosts, tmp_path: Path) -> None:
    text = "FROM busybox\nRUN echo 1 > /1\n"
    first = hosts.export(text)
    damaged = tmp_path / "damaged"
    shutil.copytree(hosts.folder, damaged)
    for path in (damaged / "blobs/sha256").iterdir():
        path.write_bytes(b"")
    places = (tmp_path / "none", damaged, hosts.folder)
    image = hosts.take(text, cache_from=tuple(CacheFrom("local", str(path)) for path in places))
    assert image.id == first.id
    assert hosts.two.steps("DONE") == []
    told = warnings(hosts.two)
    assert len(told) == 2
    assert str(tmp_path / "none") in told[0]
    assert str(damaged) in told[1]


def test_a_layer_that_has_no_room(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hosts.export()
    monkeypatch.setattr("os.statvfs", lambda _: os.statvfs_result((1,) * 10))
    assert hosts.take().config.diff_ids == first.config.diff_ids
    assert len(warnings(hosts.two)) == 1
    assert "has no room" in warnings(hosts.two)[0]


# Destinations


def test_a_destination_is_refused_before_anything_runs(hosts: Hosts) -> None:
    hosts.folder.mkdir()
    (hosts.folder / "letter").touch()
    with pytest.raises(UsageError, match="it is no build cache"):
        hosts.export()
    assert hosts.one.steps("DONE") == []


def test_a_cache_that_cannot_be_written_fails_no_build(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise HostError("cannot write the cache to x: no space")

    monkeypatch.setattr("minidock.build.cache_exchange.write_folder", full)
    image = hosts.export(tags=["t"])
    assert hosts.one.images.get("t").id == image.id
    assert len(warnings(hosts.one)) == 1
    with pytest.raises(HostError):
        hosts.export(tags=["u"], cache_to=(CacheTo("local", str(hosts.folder), strict=True),))
    assert hosts.one.images.get("u").id == image.id


def test_a_build_that_fails_exports_nothing(hosts: Hosts) -> None:
    with pytest.raises(Exception, match="exit code: 1"):
        hosts.export("FROM busybox\nRUN echo 1 > /1\nRUN false\n")
    assert not hosts.folder.exists()


# Records in the image


def move(image: Image, hosts: Hosts, name: str) -> None:
    """What a push and a pull do: the manifest as it is, and its blobs."""
    manifest = json.loads(hosts.one.images.blobs.read(image.manifest_digest))
    for layer in image.manifest.layers:
        source, target = hosts.one.images.blobs.path(layer.digest), hosts.two.images.blobs.path(layer.digest)
        if not os.path.exists(target):
            shutil.copy(source, target)
    hosts.two.images.commit(
        image.config, image.manifest.layers, names=[name], annotations=tuple(manifest.get("annotations", {}).items())
    )


@pytest.mark.parametrize("how", [{"cache_to": (CacheTo("inline"),)}, {"build_args": (("BUILDKIT_INLINE_CACHE", "1"),)}])
def test_an_image_serves_another_host(each_form: Hosts, how: dict[str, Any]) -> None:
    hosts = each_form
    text = "FROM busybox\nRUN echo 1 > /1\nRUN true\nCOPY a /a\n"
    plain = hosts.one.build(text)
    first = hosts.one.build(text, tags=["app"], **how)
    assert first.id == plain.id, "an image with records is the same image"
    move(first, hosts, "app")
    second = hosts.two.build(text, cache_from=(CacheFrom("image", "app"),))
    assert hosts.two.steps("DONE") == []
    assert second.id == first.id
    assert INLINE_KEY not in hosts.two.images.blobs.read(second.manifest_digest).decode()


def test_records_of_an_image_are_those_of_its_own_layers(hosts: Hosts) -> None:
    image = hosts.one.build(DOCKERFILE, cache_to=(CacheTo("inline"),))
    records = json.loads(json.loads(hosts.one.images.blobs.read(image.manifest_digest))["annotations"][INLINE_KEY])[
        "records"
    ]
    layers = {layer for layer, _ in records.values() if layer}
    assert layers == set(image.config.diff_ids[1:])


def test_an_image_on_it_does_not_keep_them(hosts: Hosts) -> None:
    hosts.one.build("FROM busybox\nRUN echo 1 > /1\n", tags=["app"], cache_to=(CacheTo("inline"),))
    child = hosts.one.build("FROM app\nRUN echo 2 > /2\n")
    assert INLINE_KEY not in hosts.one.images.blobs.read(child.manifest_digest).decode()


@pytest.mark.parametrize("name", ["nothing-of-that-name", "busybox"])
def test_an_image_that_has_no_records_is_passed_over(hosts: Hosts, name: str) -> None:
    hosts.two.build("FROM busybox\nRUN echo 1 > /1\n", cache_from=(CacheFrom("image", name),))
    assert len(hosts.two.steps("DONE")) == 1
    assert len(warnings(hosts.two)) == 1
    assert name in warnings(hosts.two)[0]


@pytest.mark.parametrize("value", ["", "[]", "{", json.dumps({"records": {"x": 1}})])
def test_an_image_with_damaged_records_fails_nothing(hosts: Hosts, value: str) -> None:
    base = hosts.two.images.get("busybox")
    hosts.two.images.commit(base.config, base.manifest.layers, names=["bad"], annotations=((INLINE_KEY, value),))
    hosts.two.build("FROM busybox\nRUN echo 1 > /1\n", cache_from=(CacheFrom("image", "bad"),))
    assert len(hosts.two.steps("DONE")) == 1


# Kills


def test_killed_while_it_takes_the_next_build_takes_it(hosts: Hosts) -> None:
    text = "FROM busybox\nRUN echo 1 > /1\nCOPY a /a\n"
    first = hosts.export(text)
    killed = 0
    for events in range(20, 2000, 17):
        if not killed_after(events, lambda: hosts.take(text)):
            break
        killed += 1
        sweep(hosts.two.root)
        assert os.listdir(hosts.two.root.tmp) == []
        for digest in hosts.two.images.blobs.all():
            assert digest_of(Path(hosts.two.images.blobs.path(digest)).read_bytes()) == digest
        for path in Path(hosts.two.root.cache, "build").glob("*.json"):
            assert hosts.two.images.blobs.has(json.loads(path.read_text())["diff_id"])
            path.unlink()
        for diff_id in first.config.diff_ids[1:]:
            hosts.two.images.blobs.remove(diff_id)
    assert killed >= 5
    assert hosts.take(text).id == first.id
    assert hosts.two.steps("DONE") == []


# The command


@pytest.fixture
def other(minidock_at: Any, busybox_root: Path, tmp_path: Path) -> Iterator[Any]:
    """The command on another data root with the same base."""
    root = tmp_path / "other"
    subprocess.run(["cp", "-a", busybox_root, root], check=True)
    command = minidock_at(root)
    yield command
    command.close()


def test_the_command(minidock: Any, other: Any, context: Callable[..., Path], tmp_path: Path) -> None:
    folder = context("FROM busybox AS one\nRUN echo 1 > /1\nFROM one\nRUN echo 2 > /2\n")
    common = ("build", "--network", "none", "-t", "app", folder)
    minidock(*common, "--cache-to", "type=local,dest=cache", cwd=tmp_path)
    told = other(*common, "--cache-from", "type=local,src=cache", cwd=tmp_path).stderr
    assert told.count("CACHED") == 3
    first, second = (json.loads(each.out("image", "inspect", "app"))[0]["Id"] for each in (minidock, other))
    assert first == second
    entries = [json.loads(line) for line in other.out("builder", "du", "--format", "json").splitlines()]
    assert [entry["Origin"] for entry in entries] == ["cache", "cache"]
    assert other.out("builder", "prune", "-f", "--filter", "imported=true") == "Total reclaimed space: 0B"
    assert len(other.out("builder", "prune", "-af", "--filter", "imported=true").splitlines()) == 3
    assert "CACHED" not in other(*common).stderr.replace("FROM busybox\n#4 CACHED", "")


def test_records_in_the_image_by_the_command(minidock: Any, context: Callable[..., Path]) -> None:
    folder = context("FROM busybox\nRUN echo 1 > /1\n")
    common = ("build", "--network", "none", "-t", "app", folder)
    minidock(*common, "--build-arg", "BUILDKIT_INLINE_CACHE=1")
    minidock("builder", "prune", "-af")
    assert "CACHED" in minidock(*common, "--cache-from", "app").stderr.partition("RUN echo 1")[2]


@pytest.mark.parametrize(("flags", "kept"), [((), True), (("--squash",), False)])
def test_records_go_into_archives(
    minidock: Any, context: Callable[..., Path], tmp_path: Path, flags: tuple[str, ...], kept: bool
) -> None:
    """But not those of layers that were made one."""
    folder, archive = context("FROM busybox\nRUN echo 1 > /1\nRUN echo 2 > /2\n"), tmp_path / "out.tar"
    inline = ("--cache-to", "type=inline", "--annotation", "a=b")
    minidock("build", "--network", "none", *inline, *flags, "-o", f"type=oci,dest={archive}", folder)
    with tarfile.open(archive) as tar:
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
        digest = index["manifests"][0]["digest"]
        manifest = json.load(tar.extractfile(f"blobs/sha256/{digest[7:]}"))  # type: ignore[arg-type]
    assert manifest["annotations"]["a"] == "b"
    assert (INLINE_KEY in manifest["annotations"]) == kept


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ("--cache-to", "type=registry,ref=x"),
            "type=registry is not supported: minidock keeps caches in folders and in images",
        ),
        (("--cache-from", "type=gha"), "type=gha is not supported"),
        (("--cache-to", "type=local"), "it has no folder"),
        (("--cache-to", "type=local,dest=/etc"), "it is no build cache of minidock"),
        (("--no-cache-filter", ","), "a stage's name is empty"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(
    minidock: Any, context: Callable[..., Path], flags: tuple[str, ...], sentence: str
) -> None:
    done = minidock("build", *flags, context("FROM busybox\nRUN echo 1 > /1\n"), status=125)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("minidock: ")]
    assert sentence in line


def test_a_folder_that_is_not_there_yet(minidock: Any, context: Callable[..., Path], tmp_path: Path) -> None:
    """The first build of many has none."""
    place = tmp_path / "cache"
    folder = context("FROM busybox\nRUN true\n")
    for told in ("No such file", ""):
        flags = ("--cache-from", f"type=local,src={place}", "--cache-to", f"type=local,dest={place},mode=max")
        done = minidock("build", "--network", "none", *flags, folder)
        assert ("is passed over" in done.stderr) == bool(told)
        assert told in done.stderr
