"""Damage that is looked for: in images, and in a whole data root, with layers of both forms."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock.drivers import index_file, verify
from minidock.drivers.indexer import Indexer
from minidock.drivers.tar_reader import TarReader
from minidock.engine import images
from minidock.engine.engine import Engine
from minidock.engine.findings import CheckResult
from minidock.engine.parts import open_rootfs
from minidock.errors import CorruptObjectError, NoSuchImageError
from minidock.kernel.pinned import Pinned
from minidock.model.container import Record, Settings, State
from minidock.model.digest import chain_id, digest_of, hex_of
from minidock.model.oci import CONFIG, LAYER_GZIP, LAYER_TAR, MANIFEST, Descriptor, History, encode_manifest
from minidock.store import locks
from minidock.store.blobs import Blobs
from minidock.store.checking import Checking
from minidock.store.containers import ContainerStore
from minidock.store.files import write_json
from minidock.store.images import Image, Images
from minidock.store.index import changing
from minidock.store.staging import Staging


@pytest.fixture
def form() -> str:
    return "tarball"


@pytest.fixture(autouse=True)
def of_the_form(engine: Engine, form: str, mounts_tarballs: str) -> None:
    if form == "tarball" and mounts_tarballs:
        pytest.skip(f"layers cannot be mounted from their tarballs: {mounts_tarballs}")
    engine.layers = form


both_forms = pytest.mark.parametrize("form", ["tarball", "tree"])


def tarball(*names: str, content: bytes = b"content") -> bytes:
    """A layer's tar: names that end in a slash are directories of mode 0700."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            info = tarfile.TarInfo(name.rstrip("/"))
            if name.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o700
            else:
                info.size = len(content)
            tar.addfile(info, None if name.endswith("/") else io.BytesIO(content))
    return out.getvalue()


# The second layer has neither a root nor its file's directory, so that its index and tree depend on the first.
LOWER = tarball("./", "dir/", "dir/one", "two")
UPPER = tarball("dir/three", content=b"other content")


def commit(engine: Engine, *tars: bytes, name: str) -> Image:
    """An image of these layers, ready to be used."""
    blobs = Blobs(engine.root)
    config = images.base_config(created="2020-01-01T00:00:00Z")
    layers = []
    for tar in tars:
        digest = blobs.put(tar)
        config.add_layer(digest, History(created_by="a test"))
        layers.append(Descriptor(LAYER_TAR, digest, len(tar)))
    image = Images(engine.root).commit(config, layers, names=[name])
    open_rootfs(engine).ensure(image.config.diff_ids)
    return image


@pytest.fixture
def app(engine: Engine, of_the_form: None) -> Image:
    return commit(engine, LOWER, UPPER, name="app:1")


def add_container(engine: Engine, image: Image, name: str = "web") -> str:
    record = Record(
        id=os.urandom(32).hex(),
        name=name,
        created=1,
        image="app:1",
        image_id=image.id,
        diff_ids=image.config.diff_ids,
        driver="overlay2",
        args=("sh",),
        env=(),
        workdir="/",
        user="",
        hostname="",
        labels=(),
        mounts=(),
        anonymous=(),
        exposed_ports=(),
        stop_signal="",
        settings=Settings(image="app:1", keep=True),
    )
    ContainerStore(engine.root).create(record, State("exited"), lambda _: None)
    return record.id


def blob(engine: Engine, digest: str) -> Path:
    return Path(Blobs(engine.root).path(digest))


def index_of(engine: Engine, key: str) -> Path:
    return Path(f"{engine.root.layers}/tarball/{hex_of(key)}.idx")


def tree_of(engine: Engine, key: str) -> Path:
    return Path(f"{engine.root.layers}/overlay2/{hex_of(key)}")


def flip(path: Path, offset: int = -1) -> None:
    """Change one bit of a file, in the middle unless ``offset`` says where."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if offset < 0 else offset] ^= 1
    replace(path, bytes(data))


def replace(path: Path, data: bytes) -> None:
    """Another content, in a file of its own, as a damaged disk never changes what the kernel has read already."""
    path.unlink()
    path.write_bytes(data)


def told(result: CheckResult) -> list[str]:
    return [problem.what for problem in result.problems]


def verdict(engine: Engine, name: str) -> list[str]:
    (found,) = engine.verify(name)
    return [problem.what for problem in found.problems]


def snapshot(folder: str) -> dict[str, tuple[int, int, int]]:
    """Every path in the folder with its inode, size and time of change."""
    found = {}
    for directory, names, files in os.walk(folder):
        for name in names + files:
            path = f"{directory}/{name}"
            status = os.lstat(path)
            found[path] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


class TestWell:
    @both_forms
    def test_all_is_well(self, engine: Engine, app: Image) -> None:
        other = commit(engine, LOWER, name="other")
        add_container(engine, app)
        verdicts = engine.verify()
        assert {(v.id, v.names, v.problems) for v in verdicts} == {
            (app.id, ("app:1",), ()),
            (other.id, ("other:latest",), ()),
        }
        assert [v.id for v in engine.verify("other", app.id[7:19])] == [other.id, app.id]
        result = engine.check()
        assert result.problems == ()
        assert (result.images, result.containers, result.blobs, result.left) == (2, 1, 6, 0)
        assert result.size == sum(os.stat(blob(engine, d)).st_size for d in Blobs(engine.root).all())
        assert result.unneeded == (0, 0, 0)

    def test_an_empty_data_root_is_well(self, engine: Engine) -> None:
        assert engine.verify() == []
        assert engine.check()[:4] == ((), 0, 0, 0)

    @both_forms
    def test_a_look_changes_nothing(self, engine: Engine, app: Image) -> None:
        add_container(engine, app)
        before = snapshot(engine.root.path)
        fresh = Engine(engine.root.path, layers=engine.layers)
        assert fresh.check().problems == ()
        assert fresh.verify("app:1")[0].problems == ()
        assert snapshot(engine.root.path) == before

    def test_layers_that_are_not_unpacked_are_not_missed(self, engine: Engine, app: Image) -> None:
        for key in (app.config.diff_ids[0], chain_id(app.config.diff_ids)):
            index_of(engine, key).unlink()
        assert engine.check().problems == ()
        assert verdict(engine, "app:1") == []

    def test_indexes_made_by_every_way_are_those_of_their_tarballs(
        self, engine: Engine, context: Callable[..., Path], minidock_at: Any
    ) -> None:
        minidock = minidock_at(Path(engine.root.path), layers="tarball")
        minidock("image", "bootstrap", "busybox")
        folder = context(
            "FROM busybox\nRUN mkdir /d && echo 1 >/d/f && ln /d/f /d/g && rm /bin/vi\nCOPY file /deep/er/\n"
            "RUN rm -rf /deep && mkdir /deep && touch /deep/new\nADD file /added\n",
            {"file": "content"},
        )
        minidock.build(folder, "-t", "built")
        built = Images(engine.root).get("built")
        assert len(built.config.diff_ids) == 5
        assert len(os.listdir(f"{engine.root.layers}/tarball")) == len(built.config.diff_ids)
        assert verdict(engine, "built") == []
        assert minidock("image", "verify").stdout.count(": ok\n") == 2
        assert minidock.out("system", "check").endswith(": all is well")


class TestBlobs:
    @both_forms
    def test_a_damaged_layer_is_told_with_who_needs_it(self, engine: Engine, app: Image) -> None:
        other = commit(engine, UPPER, name="other")
        commit(engine, LOWER, name="healthy")
        add_container(engine, app)
        upper = app.config.diff_ids[1]
        flip(blob(engine, upper))
        sentence = f"the layer {upper} is damaged: its content has another digest"
        assert verdict(engine, "app:1") == verdict(engine, "other") == [sentence]
        assert verdict(engine, "healthy") == []
        for repair in (False, True):
            result = engine.check(repair=repair)
            assert told(result) == [sentence]
            assert result.left == 1
            remedy = result.problems[0].remedy
            assert remedy.startswith("needed by container web, image app:1, image other:latest: remove that with ")
            assert f"`minidock rm web` and `minidock rmi -f {app.id[7:19]} {other.id[7:19]}`" in remedy
        assert blob(engine, upper).exists()

    def test_the_remedy_helps(self, engine: Engine, app: Image) -> None:
        flip(blob(engine, app.config.diff_ids[1]))
        assert f"`minidock rmi -f {app.id[7:19]}`" in engine.check().problems[0].remedy
        engine.rmi(app.id[7:19], force=True)
        commit(engine, LOWER, UPPER, name="app:1")
        assert engine.check().problems == ()

    @pytest.mark.parametrize("part", ["manifest", "configuration", "layer"])
    @pytest.mark.parametrize("missing", [False, True])
    def test_each_part_of_an_image(self, engine: Engine, app: Image, part: str, missing: bool) -> None:
        commit(engine, LOWER, name="healthy")
        parts = {"manifest": app.manifest_digest, "configuration": app.id, "layer": app.config.diff_ids[1]}
        digest = parts[part]
        if missing:
            blob(engine, digest).unlink()
        else:
            flip(blob(engine, digest))
        phrase = "is missing" if missing else "is damaged: its content has another digest"
        assert verdict(engine, "app:1") == [f"the {part} {digest} {phrase}"]
        assert verdict(engine, "healthy") == []
        result = engine.check(repair=True)
        assert told(result)[0] == f"the {part} {digest} {phrase}"
        assert "image app:1" in result.problems[0].remedy
        assert len(list(engine.images())) == 2
        engine.rmi("app:1", force=True)
        engine.check(repair=True)
        assert engine.check().problems == ()

    @pytest.mark.parametrize("kind", ["directory", "fifo", "link"])
    def test_what_is_no_file_is_no_blob(self, engine: Engine, app: Image, kind: str) -> None:
        path = blob(engine, app.config.diff_ids[1])
        path.unlink()
        {"directory": path.mkdir, "fifo": lambda: os.mkfifo(path), "link": lambda: path.symlink_to("/etc/passwd")}[
            kind
        ]()
        assert [text[:79] for text in told(engine.check())] == [f"the layer {app.config.diff_ids[1]}"[:79]]
        assert "cannot be read" in verdict(engine, "app:1")[0]

    @pytest.mark.usefixtures("app")
    def test_a_damaged_blob_that_nothing_needs_can_go(self, engine: Engine) -> None:
        stray, whole = Blobs(engine.root).put(b"stray"), Blobs(engine.root).put(b"whole")
        flip(blob(engine, stray))
        result = engine.check()
        assert told(result) == [f"the blob {stray} is damaged: its content has another digest"]
        assert "`minidock system check --repair` removes it" in result.problems[0].remedy
        assert result.unneeded == (1, 5, 0)
        assert blob(engine, stray).exists()
        result = engine.check(repair=True)
        assert (told(result), result.left) == ([f"the blob {stray} is damaged: its content has another digest"], 0)
        assert not blob(engine, stray).exists()
        assert blob(engine, whole).exists()
        assert engine.check().problems == ()

    @pytest.mark.usefixtures("app")
    def test_a_damaged_blob_that_a_build_leans_on_stays(self, engine: Engine) -> None:
        digest = Blobs(engine.root).put(b"half of an image")
        flip(blob(engine, digest))
        with Staging(engine.root) as staging:
            staging.lean_on([digest])
            assert engine.check(repair=True).left == 1
        assert blob(engine, digest).exists()

    @pytest.mark.usefixtures("app")
    def test_a_layer_of_the_build_cache_is_looked_at_and_kept(self, engine: Engine) -> None:
        digest = Blobs(engine.root).put(LOWER + bytes(512))
        open_rootfs(engine).ensure([digest])
        os.mkdir(f"{engine.root.cache}/build")
        write_json(f"{engine.root.cache}/build/{'0' * 64}.json", {"diff_id": digest, "created": ""}, sync=False)
        assert engine.check()[0] == ()
        assert engine.check().unneeded == (0, 0, 0)
        flip(index_of(engine, digest))
        assert len(engine.check().problems) == 1
        flip(blob(engine, digest))
        assert engine.check(repair=True).left == 0
        assert not blob(engine, digest).exists()


class TestImages:
    def store(self, engine: Engine, app: Image, **changes: Any) -> str:
        """Store a manifest made from the image's own, with an entry of its own in the index."""
        manifest = app.manifest._replace(**changes)
        data = encode_manifest(manifest)
        digest = Blobs(engine.root).put(data)
        with changing(engine.root) as index:
            index.entries.clear()
            index.set_name("docker.io/library/odd:1", Descriptor(MANIFEST, digest, len(data)), manifest.config.digest)
        return digest

    def test_sizes_and_numbers_that_disagree(self, engine: Engine, app: Image) -> None:
        lower, upper = app.manifest.layers
        self.store(engine, app, layers=(lower, upper._replace(size=7)))
        size = len(UPPER)
        assert verdict(engine, "odd:1") == [
            f"the layer {upper.digest} has {size} bytes, not the 7 that are written of it"
        ]
        self.store(engine, app, layers=(lower,))
        assert verdict(engine, "odd:1") == ["its manifest has 1 layers and its configuration 2"]
        self.store(engine, app, layers=(upper, lower))
        assert verdict(engine, "odd:1")[0].startswith(f"its manifest has the layer {upper.digest} where its config")
        result = engine.check()
        assert told(result)[0].startswith("the image odd:1 is damaged: its manifest has the layer")
        assert result.problems[0].remedy == f"remove the image with `minidock rmi -f {app.id[7:19]}` and make it again"

    def test_what_has_its_digest_and_is_no_configuration(self, engine: Engine, app: Image) -> None:
        digest = Blobs(engine.root).put(b"[]")
        self.store(engine, app, config=Descriptor(CONFIG, digest, 2))
        assert verdict(engine, "odd:1") == ["the image configuration is not a JSON object"]

    def test_a_compressed_layer_is_whole_with_its_plain_tarball(self, engine: Engine, app: Image) -> None:
        packed = gzip.compress(UPPER)
        wire = Blobs(engine.root).put(packed)
        lower, upper = app.manifest.layers
        self.store(engine, app, layers=(lower, Descriptor(LAYER_GZIP, wire, len(packed))))
        assert verdict(engine, "odd:1") == []
        blob(engine, upper.digest).unlink()
        assert verdict(engine, "odd:1") == [f"the layer {upper.digest} is missing"]
        blob(engine, wire).unlink()
        assert len(verdict(engine, "odd:1")) == 2

    def test_another_programs_index_of_manifests(self, engine: Engine, app: Image) -> None:
        data = Blobs(engine.root).read(app.manifest_digest)
        with changing(engine.root) as index:
            del index.entries[0].raw["annotations"]["io.minidock.config"]
            index.entries.append(index.entries[0]._replace(name="x"))
        assert digest_of(data) == app.manifest_digest
        assert engine.verify()[0].id == app.id
        assert engine.check().problems == ()

    @pytest.mark.usefixtures("app")
    def test_an_unknown_name_is_an_error_before_anything_is_read(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Checking, "image", lambda *_: pytest.fail("something was read"))
        with pytest.raises(NoSuchImageError, match="no such image: absent"):
            engine.verify("app:1", "absent")

    def test_an_image_without_layers(self, engine: Engine) -> None:
        commit(engine, name="empty")
        assert verdict(engine, "empty") == []
        assert engine.check().problems == ()


class TestIndexes:
    @pytest.fixture(params=["lower", "upper"])
    def key(self, app: Image, request: pytest.FixtureRequest) -> str:
        """The name of the index that is damaged: of a layer that stands alone, or of one that depends on it."""
        return app.config.diff_ids[0] if request.param == "lower" else chain_id(app.config.diff_ids)

    def check_repair(self, engine: Engine, app: Image, path: Path, sentence: str) -> None:
        """The index is told of, left alone without ``repair``, removed with it, and made again when it is needed."""
        assert verdict(engine, "app:1") == [sentence]
        result = engine.check()
        assert (told(result), result.left) == ([sentence], 1)
        assert "made again" in result.problems[0].remedy
        assert path.exists()
        result = engine.check(repair=True)
        assert (told(result), result.left) == ([sentence], 0)
        assert not path.exists()
        assert path.stem not in Pinned(f"{engine.root.run}/layers").names()
        assert engine.check().problems == ()
        open_rootfs(engine).ensure(app.config.diff_ids)
        assert path.exists()
        assert engine.check().problems == ()
        assert verdict(engine, "app:1") == []

    def test_a_flipped_bit(self, engine: Engine, app: Image, key: str) -> None:
        path = index_of(engine, key)
        flip(path)
        self.check_repair(engine, app, path, f"the layer index {path} does not match its checksum")

    def test_a_cut(self, engine: Engine, app: Image, key: str) -> None:
        path = index_of(engine, key)
        replace(path, path.read_bytes()[:-700])
        self.check_repair(engine, app, path, f"the layer index {path} has no valid trailer")

    def test_nothing_left(self, engine: Engine, app: Image, key: str) -> None:
        path = index_of(engine, key)
        replace(path, b"")
        self.check_repair(engine, app, path, f"the layer index {path} is cut short")

    def test_that_of_another_layer(self, engine: Engine, app: Image, key: str) -> None:
        path = index_of(engine, key)
        other = commit(engine, tarball("else"), name="else")
        replace(path, index_of(engine, other.config.diff_ids[0]).read_bytes())
        self.check_repair(engine, app, path, f"the layer index {path} belongs to another layer")

    def test_one_with_right_checksums_and_another_tree(self, engine: Engine, app: Image, key: str) -> None:
        """Only making it again tells: for the upper layer it is the one above nothing."""
        path = index_of(engine, key)
        upper = key != app.config.diff_ids[0]
        tar, diff_id = (UPPER if upper else LOWER), app.config.diff_ids[1 if upper else 0]
        indexer = Indexer(None)
        reader = TarReader(io.BytesIO(tar if upper else tarball("dir/", "one", "two")))
        for entry in reader:
            indexer.add(entry, reader.offset)
        sealed = indexer.finish(diff_id=diff_id, tar_size=len(tar))
        assert sealed is not None
        replace(path, sealed.data)
        self.check_repair(engine, app, path, f"the layer index {path} is not the one that its tarball makes")

    def test_above_layers_that_are_not_here_only_the_strict_reader_tells(self, engine: Engine, app: Image) -> None:
        index_of(engine, app.config.diff_ids[0]).unlink()
        assert verdict(engine, "app:1") == []
        path = index_of(engine, chain_id(app.config.diff_ids))
        header = index_file.peek(str(path))
        image = bytearray(path.read_bytes()[: header.image_size])
        image[1024] ^= 1
        data = index_file.seal(bytes(image), diff_id=app.config.diff_ids[1], tar_size=len(UPPER), self_contained=False)
        replace(path, data)
        (sentence,) = verdict(engine, "app:1")
        assert sentence.startswith("the layer's index is malformed")

    def test_every_bit_counts(self, engine: Engine, app: Image) -> None:
        path = index_of(engine, app.config.diff_ids[0])
        data = path.read_bytes()
        for offset in range(0, len(data), 97):
            replace(path, data)
            flip(path, offset)
            assert len(verdict(engine, "app:1")) == 1, offset

    def test_one_in_use_goes_without_harm(self, engine: Engine, app: Image) -> None:
        rootfs = open_rootfs(engine)
        with rootfs.open_root(app.config.diff_ids, None) as fd:
            flip(index_of(engine, app.config.diff_ids[0]))
            assert engine.check(repair=True).left == 0
            assert Path(f"/proc/self/fd/{fd}/dir/three").read_bytes() == b"other content"
        rootfs.ensure(app.config.diff_ids)
        with rootfs.open_root(app.config.diff_ids, None) as fd:
            assert Path(f"/proc/self/fd/{fd}/dir/one").read_bytes() == b"content"

    def test_a_tarball_is_read_once_for_all_its_indexes(
        self, engine: Engine, app: Image, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commit(engine, UPPER, name="alone")
        for key in (app.config.diff_ids[1], chain_id(app.config.diff_ids)):
            assert index_of(engine, key).exists()
        read: list[int] = []

        class Counting(TarReader):
            def __init__(self, stream: Any) -> None:
                read.append(1)
                super().__init__(stream)

        monkeypatch.setattr(verify, "TarReader", Counting)
        assert verdict(engine, "app:1") == []
        assert len(read) == 2

    def test_a_tarball_that_is_none_is_told(self, engine: Engine, app: Image) -> None:
        """It has its digest, and an index that somebody put there."""
        garbage = b"\1" * 1024
        digest = Blobs(engine.root).put(garbage)
        config = images.base_config(created="2020-01-01T00:00:00Z")
        config.add_layer(digest, History())
        Images(engine.root).commit(config, [Descriptor(LAYER_TAR, digest, 1024)], names=["bad"])
        lower = index_of(engine, app.config.diff_ids[0]).read_bytes()
        image = lower[: index_file.peek(str(index_of(engine, app.config.diff_ids[0]))).image_size]
        index_of(engine, digest).write_bytes(index_file.seal(image, diff_id=digest, tar_size=1024, self_contained=True))
        (sentence,) = verdict(engine, "bad")
        assert sentence.startswith(f"the layer {digest} cannot be checked: ")
        assert sentence in told(engine.check(repair=True))

    @pytest.mark.usefixtures("app")
    def test_layers_that_nothing_needs_are_counted(self, engine: Engine) -> None:
        digest = Blobs(engine.root).put(tarball("stray"))
        open_rootfs(engine).ensure([digest])
        result = engine.check(repair=True)
        assert result.problems == ()
        assert result.unneeded == (1, len(tarball("stray")), 1)
        assert index_of(engine, digest).exists()
        engine.rmi("app:1")
        assert engine.check().unneeded == (0, 0, 0)


@pytest.mark.parametrize("form", ["tree"])
class TestTrees:
    def damage(self, path: Path, how: str) -> None:
        if how == "not finished":
            (path / "state").unlink()
        elif how == "of an earlier boot":
            (path / "state").write_text("6d1a9b5e-0000-0000-0000-000000000000\n")
        else:
            (path / "tree").rename(path / "gone")

    @pytest.mark.parametrize("how", ["not finished", "of an earlier boot", "without a tree"])
    def test_a_torn_tree(self, engine: Engine, app: Image, how: str) -> None:
        path = tree_of(engine, chain_id(app.config.diff_ids))
        self.damage(path, how)
        sentence = f"the unpacked layer {path} is not whole"
        assert verdict(engine, "app:1") == [sentence]
        result = engine.check()
        assert (told(result), result.left) == ([sentence], 1)
        assert path.exists()
        result = engine.check(repair=True)
        assert (told(result), result.left) == ([sentence], 0)
        assert not path.exists()
        open_rootfs(engine).ensure(app.config.diff_ids)
        assert engine.check().problems == ()

    def test_one_that_a_running_container_uses_stays(self, engine: Engine, app: Image) -> None:
        lock = ContainerStore(engine.root).lock_path(add_container(engine, app))
        path = tree_of(engine, app.config.diff_ids[0])
        self.damage(path, "not finished")
        with locks.exclusive(lock):
            result = engine.check(repair=True)
            assert (result.left, result.problems[0].remedy) == (1, "a running container uses it: stop that first")
            assert path.exists()
        assert engine.check(repair=True).left == 0
        assert not path.exists()

    def test_both_forms_of_a_layer_are_looked_at(self, engine: Engine, app: Image, mounts_tarballs: str) -> None:
        if mounts_tarballs:
            pytest.skip(f"layers cannot be mounted from their tarballs: {mounts_tarballs}")
        engine.layers = "tarball"
        lower = app.config.diff_ids[0]
        tree_of(engine, lower).rename(f"{engine.root.tmp}/aside")
        open_rootfs(engine).ensure(app.config.diff_ids)
        os.rename(f"{engine.root.tmp}/aside", tree_of(engine, lower))
        self.damage(tree_of(engine, lower), "not finished")
        flip(index_of(engine, lower))
        for chosen in ("tarball", "tree"):
            engine.layers = chosen
            assert len(verdict(engine, "app:1")) == 2

    def test_the_driver_vfs(self, engine: Engine, app: Image) -> None:
        open_rootfs(engine, "vfs").ensure(app.config.diff_ids)
        path = Path(f"{engine.root.layers}/vfs/{hex_of(chain_id(app.config.diff_ids))}")
        assert engine.check().problems == ()
        self.damage(path, "of an earlier boot")
        assert told(engine.check(repair=True)) == [f"the unpacked layer {path} is not whole"]
        assert not path.exists()


class TestRoot:
    @pytest.mark.parametrize("text", [None, "", "{", "[]", '{"manifests": 3}'])
    @pytest.mark.usefixtures("app")
    def test_a_damaged_index_ends_nothing_else(self, engine: Engine, text: str | None) -> None:
        stray = Blobs(engine.root).put(b"stray")
        flip(blob(engine, stray))
        path = Path(engine.root.index)
        path.unlink()
        if text is not None:
            path.write_text(text)
        with pytest.raises(CorruptObjectError, match=r"index\.json"):
            engine.verify()
        result = engine.check(repair=True)
        assert str(path) in told(result)[0]
        assert '{"schemaVersion": 2, "manifests": []}' in result.problems[0].remedy
        assert told(result)[1:] == [f"the blob {stray} is damaged: its content has another digest"]
        assert (result.left, result.blobs, result.unneeded) == (2, 5, (0, 0, 0))
        assert blob(engine, stray).exists()

    @pytest.mark.usefixtures("app")
    def test_an_entry_that_is_none(self, engine: Engine) -> None:
        with changing(engine.root) as index:
            index.entries.append(index.entries[0]._replace(name="y", raw={"mediaType": 3}))
        result = engine.check()
        assert told(result) == [f"{engine.root.index} has 1 entries that name no manifest"]
        engine.tag("app:1", "app:2")
        assert engine.check().problems == ()

    @pytest.mark.parametrize("kind", ["directory", "file", "link"])
    @pytest.mark.usefixtures("app")
    def test_what_a_killed_command_left(self, engine: Engine, kind: str) -> None:
        path = Path(engine.root.tmp, "unpack-0123")
        {"directory": path.mkdir, "file": path.touch, "link": lambda: path.symlink_to("x")}[kind]()
        for command in (engine, Engine(engine.root.path, layers="tarball")):
            result = command.check()
            assert told(result) == [f"{path} was left half-made by a command that was killed"]
            assert (result.left, result.problems[0].remedy) == (1, "the next command removes it")
        result = engine.check(repair=True)
        assert (len(result.problems), result.left) == (1, 0)
        assert os.listdir(engine.root.tmp) == []
        assert engine.check().problems == ()

    @pytest.mark.usefixtures("app")
    def test_what_somebody_is_making_is_left_alone(self, engine: Engine) -> None:
        with Staging(engine.root) as staging:
            assert engine.check(repair=True).problems == ()
            assert os.path.isdir(staging.path)

    def test_a_container_whose_image_is_gone(self, engine: Engine, app: Image) -> None:
        add_container(engine, app)
        engine.rmi("app:1", force=True)
        assert engine.check()[:3] == ((), 0, 1)
        for digest in (app.id, app.config.diff_ids[1]):
            blob(engine, digest).unlink()
        result = engine.check(repair=True)
        assert told(result) == [
            f"the configuration {app.id} is missing",
            f"the layer {app.config.diff_ids[1]} is missing",
        ]
        assert {problem.remedy for problem in result.problems} == {
            "needed by container web: remove that with `minidock rm web`"
        }
        assert engine.inspect("web")["Name"] == "/web"
        engine.rm("web")
        assert engine.check().problems == ()

    @pytest.mark.parametrize("name", ["container.json", "state.json"])
    def test_a_damaged_record(self, engine: Engine, app: Image, name: str) -> None:
        container = add_container(engine, app)
        Path(engine.root.container_dir(container), name).write_text("{")
        result = engine.check(repair=True)
        assert len(result.problems) == 1
        assert told(result)[0].startswith(f"the container {container[:12]} is damaged: ")
        assert result.problems[0].remedy == f"remove it with `minidock rm {container[:12]}`"
        engine.rm(container[:12])
        assert engine.check().problems == ()

    def test_a_container_that_vanishes_is_no_problem(
        self, engine: Engine, app: Image, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        container = add_container(engine, app)
        monkeypatch.setattr(ContainerStore, "ids", lambda _: [container, "f" * 64])
        assert engine.check()[:3] == ((), 1, 1)
        engine.rm(container)
        assert engine.check()[:3] == ((), 1, 0)

    @pytest.mark.usefixtures("app")
    def test_nothing_is_removed_meanwhile(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        """A removal waits, and finds what it removes as it was."""
        real = Checking.image
        began, looked = threading.Event(), []

        def image(self: Checking, image_id: str, entries: Any) -> Any:
            began.set()
            looked.append(locks.try_exclusive(engine.root.collection_lock))
            return real(self, image_id, entries)

        monkeypatch.setattr(Checking, "image", image)
        remover = threading.Thread(target=lambda: began.wait(10) and Engine(engine.root.path).rmi("app:1"))
        remover.start()
        assert engine.check().problems == ()
        remover.join(10)
        assert looked == [None]
        assert engine.images() == []

    def test_repair_keeps_images_and_containers(self, engine: Engine, app: Image) -> None:
        add_container(engine, app)
        flip(blob(engine, app.config.diff_ids[1]))
        blob(engine, app.id).unlink()
        flip(index_of(engine, app.config.diff_ids[0]))
        before = [snapshot(folder) for folder in (engine.root.images, engine.root.containers, engine.root.volumes)]
        engine.check(repair=True)
        assert before == [
            snapshot(folder) for folder in (engine.root.images, engine.root.containers, engine.root.volumes)
        ]
