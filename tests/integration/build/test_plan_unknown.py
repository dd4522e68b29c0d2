"""Plans of steps whose inputs are not all known: what is made anew before them, what lies elsewhere, what is cached
elsewhere. The build that follows never does what the plan has ruled out."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from typing import Any

import pytest

from minidock.errors import BuildError
from minidock.model.cache_places import parse_cache_from, parse_cache_to
from minidock.model.digest import digest_of
from minidock.model.forecast import CACHED, MAY_RUN, RUNS
from minidock.model.oci import CONFIG, LAYER_TAR, MANIFEST, Descriptor, History, Manifest, encode_manifest


def forecasts(steps: Any) -> dict[str, str]:
    """The forecasts by the steps' texts."""
    return {step.title.partition("] ")[2]: step.forecast for step in steps}


def test_what_stands_on_a_run_that_runs_anew_may_hit_or_miss(overlay_shop: Any) -> None:
    """A command that runs anew may make the same layer, and then what stands on it is cached: here one does, and one
    does not."""
    shop = overlay_shop
    shop.file("f")
    same = "FROM busybox\nARG V=1\nRUN echo x > /x && touch -d @1 /x / && : $V\nCOPY f /f\nRUN cat /f\n"
    other = "FROM busybox\nARG V=1\nRUN echo $V > /x\nCOPY f /f\nRUN cat /f\n"
    for text, ending in ((same, "CACHED"), (other, "DONE")):
        shop.build(text)
        steps = shop.plan(text, build_args=(("V", "2"),))
        assert [step.forecast for step in steps][:3] == [CACHED, RUNS, MAY_RUN]
        assert "it is cached if" in steps[2].why[-1]
        shop.build(text, build_args=(("V", "2"),), explain=True)
        assert "[3/4] COPY f /f" in shop.steps(ending)


def test_what_was_never_built_on_anything_runs(overlay_shop: Any) -> None:
    shop = overlay_shop
    shop.file("f")
    shop.build("FROM busybox\nRUN echo 1 > /x\nCOPY f /f\n")
    steps = shop.plan("FROM busybox\nRUN echo 2 > /x\nCOPY f /other\nRUN cat /f\n")
    assert [step.forecast for step in steps] == [CACHED, RUNS, RUNS, RUNS]


def test_a_copy_with_link_is_known_whatever_it_stands_on(overlay_shop: Any) -> None:
    shop = overlay_shop
    shop.file("f")
    shop.build("FROM busybox\nRUN echo 1 > /x\nCOPY --link f /f\n")
    text = "FROM busybox\nRUN echo 2 > /x\nCOPY --link f /f\n"
    assert forecasts(shop.plan(text)) == {"FROM busybox": CACHED, "RUN echo 2 > /x": RUNS, "COPY --link f /f": CACHED}
    shop.build(text)
    assert shop.steps("CACHED")[-1] == "[3/3] COPY --link f /f"


def test_equal_steps_of_one_build_run_once(overlay_shop: Any) -> None:
    text = "FROM busybox AS a\nRUN echo 1 > /x\nFROM busybox AS b\nRUN echo 1 > /x\nCOPY --from=a /x /y\n"
    steps = overlay_shop.plan(text)
    assert [step.forecast for step in steps] == [CACHED, RUNS, CACHED, CACHED, RUNS]
    assert steps[3].why == ("another step of this build makes it",)
    for jobs in (1, 4):
        overlay_shop.build(text, jobs=jobs)
        done = overlay_shop.steps("DONE")
        assert (jobs == 1) == (len(done) == 2)


def test_a_mount_of_a_stage_that_is_made_anew(overlay_shop: Any) -> None:
    text = "FROM busybox AS a\nARG V\nRUN echo $V > /x\nFROM busybox\nRUN --mount=from=a,target=/m cat /m/x > /y\n"
    steps = overlay_shop.plan(text)
    assert [step.forecast for step in steps] == [CACHED, RUNS, CACHED, RUNS], "no such step was ever built"
    overlay_shop.build(text)
    steps = overlay_shop.plan(text, build_args=(("V", "2"),))
    assert [step.forecast for step in steps] == [CACHED, RUNS, CACHED, MAY_RUN]
    assert steps[-1].why[0] == "the stage a is made anew"
    overlay_shop.build(text, build_args=(("V", "2"),), explain=True)
    assert overlay_shop.misses()[-1][1] == "what the mount /m shows changed"


def test_without_the_cache_everything_runs(overlay_shop: Any) -> None:
    text = "FROM busybox AS a\nRUN echo a > /a\nFROM busybox\nCOPY --from=a /a /b\n"
    overlay_shop.build(text)
    steps = overlay_shop.plan(text, no_cache=True)
    assert [step.forecast for step in steps] == [CACHED, RUNS, CACHED, RUNS]
    overlay_shop.build(text, no_cache=True, explain=True)
    assert overlay_shop.misses() == [(step.title.partition("] ")[2], step.why[0]) for step in steps if step.why]
    steps = overlay_shop.plan(text, no_cache_filter=("a",))
    assert [step.forecast for step in steps] == [CACHED, RUNS, CACHED, MAY_RUN]


def test_the_target_bounds_the_plan(overlay_shop: Any) -> None:
    text = "FROM busybox AS a\nRUN echo a\nFROM busybox AS b\nRUN false\n"
    assert [step.title for step in overlay_shop.plan(text, target="a")] == [
        "[a 1/2] FROM busybox",
        "[a 2/2] RUN echo a",
    ]


def test_files_and_bytes(overlay_shop: Any) -> None:
    shop = overlay_shop
    shop.file("d/a", "12345")
    shop.file("d/e/b", "123")
    os.link(shop.context / "d/a", shop.context / "d/c")
    os.symlink("a", shop.context / "d/l")
    text = "FROM scratch\nCOPY d /d\nCOPY <<F /f\n12\nF\nCOPY --from=busybox /etc/passwd /etc/\n"
    for _ in range(2):
        copied = [(step.files, step.size) for step in shop.plan(text)]
        assert copied[:2] == [(4, 8), (1, 3)], "a hard link is a file, its content is there once"
        shop.build(text)
    assert copied[2] == (None, None), "what the layers of a source tell need not be looked at"
    sizes = [step.layer for step in shop.plan(text)]
    assert all(sizes), sizes


def test_a_missing_source_fails_the_plan_as_the_build(overlay_shop: Any) -> None:
    text = "FROM busybox\nRUN false\nCOPY nothing /\n"
    with pytest.raises(BuildError, match="'nothing' is not found in the build context") as failed:
        overlay_shop.plan(text)
    assert failed.value.line == 3


def test_a_layer_that_is_gone(overlay_shop: Any) -> None:
    text = "FROM busybox\nRUN echo 1 > /x\n"
    image = overlay_shop.build(text)
    os.unlink(overlay_shop.images.blobs.path(image.config.diff_ids[-1]))
    (step,) = overlay_shop.plan(text)[1:]
    assert (step.forecast, step.why) == (RUNS, ("its layer is not in the store any more",))
    overlay_shop.build(text, explain=True)
    assert overlay_shop.misses() == [("RUN echo 1 > /x", "its layer is not in the store any more")]


def test_what_add_fetches_is_not_asked_for(overlay_shop: Any) -> None:
    digest = "sha256:" + "0" * 64
    text = (
        "FROM busybox\nADD https://localhost:1/f /f\nADD https://localhost:1/r.git#main /g\n"
        f"ADD --checksum={digest} https://localhost:1/f /h\n"
    )
    steps = overlay_shop.plan(text)
    assert [step.forecast for step in steps] == [CACHED, MAY_RUN, MAY_RUN, RUNS]
    assert "has no --checksum" in steps[1].why[0]
    assert "names no whole commit" in steps[2].why[0]


def test_layers_that_are_not_ready_are_not_made_ready(
    tmp_path: Any, busybox_tar: bytes, open_storage: Any, shop_class: Any
) -> None:
    """The files of an image that was never used cannot be looked at without unpacking it."""
    shop = shop_class(tmp_path, busybox_tar, lambda root: open_storage(root, "overlay2"))
    shop.build("FROM scratch\nCOPY --from=busybox /etc/passwd /x\n")
    text = "FROM scratch\nCOPY --from=busybox /etc/group /x\n"
    assert [step.forecast for step in shop.plan(text)] == [RUNS]
    for name in os.listdir(f"{shop.root.layers}/overlay2"):
        if name != "empty":
            os.rename(f"{shop.root.layers}/overlay2/{name}", f"{shop.root.path}/tmp/{name}")
    (step,) = shop.plan(text)
    assert (step.forecast, step.why[0]) == (MAY_RUN, "the layers of the image busybox are not unpacked")


def test_a_cache_of_elsewhere_is_asked_and_nothing_is_taken(
    tmp_path: Any, busybox_tar: bytes, open_storage: Any, shop_class: Any
) -> None:
    text = "FROM busybox\nRUN echo 1 > /x && touch -d @1 /x /\nCOPY <<F /f\nx\nF\n"
    cache = tmp_path / "cache"
    shops = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shops.append(shop_class(tmp_path / name, busybox_tar, lambda root: open_storage(root, "overlay2")))
    shops[0].build(text, cache_to=(parse_cache_to(f"type=local,dest={cache}"),))
    sources = (parse_cache_from(f"type=local,src={cache}"),)
    before = sorted(os.listdir(shops[1].root.blobs))
    assert [step.forecast for step in shops[1].plan(text)] == [CACHED, RUNS, RUNS]
    assert [step.forecast for step in shops[1].plan(text, cache_from=sources)] == [CACHED] * 3
    assert sorted(os.listdir(shops[1].root.blobs)) == before
    shops[1].build(text, cache_from=sources)
    assert shops[1].steps("DONE") == []


def test_an_image_of_a_layout_is_not_stored(overlay_shop: Any, tmp_path: Any) -> None:
    """The plan goes by what its configuration says; once it was built on, everything is known."""
    shop = overlay_shop
    layout = write_layout(shop, tmp_path / "layout")
    text = "FROM other\nRUN echo 1 > /x\n"
    options = {"contexts": (f"other=oci-layout://{layout}",)}
    before = sorted(os.listdir(shop.root.blobs))
    assert [step.forecast for step in shop.plan(text, **options)] == [CACHED, RUNS]
    assert sorted(os.listdir(shop.root.blobs)) == before
    shop.build(text, **options)
    assert [step.forecast for step in shop.plan(text, **options)] == [CACHED, CACHED]


def write_layout(shop: Any, path: Any) -> Any:
    """An OCI layout of busybox with one file more, which the store has not."""
    (path / "blobs/sha256").mkdir(parents=True)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("more"))
    image = shop.images.get("busybox")
    config = image.config.copy()
    layers = [*image.manifest.layers, Descriptor(LAYER_TAR, digest_of(stream.getvalue()), len(stream.getvalue()))]
    config.add_layer(layers[-1].digest, History(created="2020-01-01T00:00:00Z", created_by="more"))
    blobs = [config.encode(), stream.getvalue()]
    manifest = Manifest(Descriptor(CONFIG, digest_of(blobs[0]), len(blobs[0])), tuple(layers))
    blobs.append(encode_manifest(manifest))
    for blob in blobs:
        (path / "blobs/sha256" / digest_of(blob)[7:]).write_bytes(blob)
    for layer in image.manifest.layers:
        shutil.copy(shop.images.blobs.path(layer.digest), path / "blobs/sha256")
    entry = Descriptor(MANIFEST, digest_of(blobs[-1]), len(blobs[-1]))
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry.to_json()]}))
    return path
