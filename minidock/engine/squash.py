"""``--squash``: all that a build adds to the image it stands on as one layer, as docker's classic builder has it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from minidock.drivers import trees
from minidock.model.digest import chain_id
from minidock.model.oci import History
from minidock.store.files import remove_tree

if TYPE_CHECKING:
    from minidock.build.export import Finished
    from minidock.rootfs import Rootfs


def squash(finished: Finished, rootfs: Rootfs) -> Finished:
    """The same tree with one layer above the inherited ones, or none where the build has changed no file.

    The history keeps its lines, as lines without a layer; one more says where the layer comes from. Raises StoreError,
    ArchiveError.
    """
    diff_ids = finished.config.diff_ids
    below = diff_ids[: finished.inherited]
    if len(diff_ids) - len(below) < 2:
        return finished
    chains = {chain_id(diff_ids[:count]) for count in range(1, len(diff_ids) + 1)}
    finished.staging.lean_on({*diff_ids, *chains})
    rootfs.ensure(diff_ids)
    writable = f"{finished.staging.path}/squash"
    os.mkdir(writable, 0o700)
    try:
        rootfs.prepare(below, writable)
        with rootfs.open_root(diff_ids, None) as source, rootfs.open_root(below, writable) as target:
            trees.mirror(source, target)
        layer = rootfs.commit(below, writable, finished.staging)
    finally:
        remove_tree(writable)
    config = finished.config.copy()
    lines = config.raw.get("history") or []
    seen = 0
    for line in lines:
        if not line.get("empty_layer"):
            seen += 1
            if seen > len(below):
                line["empty_layer"] = True
    config.raw["rootfs"]["diff_ids"] = list(below)
    comment = f"merge of {len(diff_ids) - len(below)} layers"
    layers = finished.layers[: len(below)]
    if layer is not None:
        config.add_layer(layer.digest, History(created=config.created, created_by="squash", comment=comment))
        layers = (*layers, layer)
    # What was noted of the single layers is of no use for one that has their files.
    return finished._replace(config=config, layers=layers, annotations=())
