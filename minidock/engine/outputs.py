"""What becomes of a finished build: an image in the store, a folder, a tar, an archive of an image; and the files that
tell scripts what it came to.

Each destination gets its content under a temporary name first, so that it holds the old content or the new one, never a
part; a build that fails touches none.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from minidock.build.export import stepping, store_image
from minidock.drivers import trees
from minidock.engine.archives import (
    Encoded,
    encode_image,
    plain_layers,
    write_empty_archive,
    write_image_archive,
    write_tree_archive,
)
from minidock.engine.settings import check_texts
from minidock.engine.squash import squash
from minidock.errors import HostError, UsageError
from minidock.model.attestations import Provenance, parse_attestations
from minidock.model.digest import chain_id, digest_of
from minidock.model.oci import Manifest, decode_manifest
from minidock.model.outputs import (
    DOCKER,
    IMAGE,
    LOCAL,
    OCI,
    STDOUT,
    Annotations,
    Output,
    parse_annotations,
    parse_outputs,
)
from minidock.store import files
from minidock.store.images import Image, Images, tag_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from minidock.build.export import Finished
    from minidock.engine.provenance import Attested, Recorder
    from minidock.rootfs import Rootfs

_TITLES = {
    LOCAL: "exporting to client directory",
    OCI: "exporting to oci image format",
    DOCKER: "exporting to docker image format",
}
_TARBALL_TITLE = "exporting to client tarball"
_ATTESTED = (OCI, LOCAL)
_PROVENANCE = "provenance.json"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Wishes(NamedTuple):
    """What a build is to leave behind. Without ``outputs`` that is an image in the store. ``stdout`` is where ``-``
    goes, None for nowhere; ``iidfile`` and ``metadata_file`` are paths or empty; ``squash`` makes one layer of the
    build's own. ``provenance`` is how much of the build is attested, None for nothing."""

    outputs: tuple[Output, ...] = ()
    annotations: Annotations = Annotations()
    iidfile: str = ""
    metadata_file: str = ""
    squash: bool = False
    stdout: int | None = None
    provenance: Provenance | None = None


def make_wishes(
    outputs: Sequence[str] = (),
    annotations: Sequence[str] = (),
    *,
    iidfile: str = "",
    metadata_file: str = "",
    squash: bool = False,
    stdout: int | None = None,
    attestations: Sequence[str] = (),
) -> Wishes:
    """Read what the flags say. Raises UsageError."""
    check_texts(*outputs, *annotations, *attestations, iidfile, metadata_file)
    wanted = parse_attestations(attestations) if attestations else None
    read = parse_outputs(outputs), parse_annotations(annotations)
    return Wishes(*read, iidfile, metadata_file, squash, stdout, wanted)


class Exporter:
    """Fulfils the wishes. ``check`` is to be called before the build, the exporter itself with what is finished."""

    __slots__ = ("_images", "_predicate", "_recorder", "_rootfs", "_wishes")

    def __init__(self, wishes: Wishes, *, images: Images, rootfs: Rootfs, recorder: Recorder | None = None) -> None:
        outputs = wishes.outputs or (Output(IMAGE),)
        self._wishes = wishes._replace(outputs=outputs)
        self._images = images
        self._rootfs = rootfs
        self._recorder = recorder
        self._predicate: dict[str, Any] | None = None

    def check(self) -> None:
        """Refuse what cannot be written, and take away an image's ID that an earlier build wrote: where this one fails,
        nobody is to read the old one. Raises UsageError, InvalidReferenceError."""
        wishes = self._wishes
        for output in wishes.outputs:
            for name in output.names:
                tag_name(name)
            _check_destination(output, wishes.stdout)
        if wishes.annotations.of_index and not any(output.kind == OCI for output in wishes.outputs):
            raise UsageError(
                "an annotation of an index needs an output that has one", hint="give -o type=oci,dest=FILE"
            )
        for path in (wishes.iidfile, wishes.metadata_file):
            if path:
                _check_file(path)
        if wishes.iidfile and os.path.isfile(wishes.iidfile):
            os.unlink(wishes.iidfile)

    def __call__(self, finished: Finished) -> Image:
        """Write everything; the image as it is, or would be, in the store. Raises HostError, StoreError."""
        if self._wishes.squash:
            with stepping(finished.progress, "squashing layers"):
                finished = squash(finished, self._rootfs)
        annotations = (*finished.annotations, *self._wishes.annotations.of_manifest)
        encoded = encode_image(finished.config, finished.layers, annotations=annotations)
        image = _unstored(finished, encoded)
        if self._recorder is not None:
            self._predicate = self._recorder.predicate(finished)
            if not self._wishes.metadata_file and not any(o.kind in _ATTESTED for o in self._wishes.outputs):
                finished.progress.warning(
                    "the attestation is kept nowhere: give --metadata-file, or an output of type=oci or type=local"
                )
        for output in self._wishes.outputs:
            if output.kind == IMAGE:
                given = self._wishes.annotations.of_manifest
                image = store_image(finished, self._images, names=_names(output), annotations=given)
            else:
                with stepping(finished.progress, _TITLES.get(output.kind, _TARBALL_TITLE)):
                    self._write(output, finished, encoded)
        if self._wishes.iidfile:
            _write_small(self._wishes.iidfile, image.id)
        if self._wishes.metadata_file:
            named = (name for output in self._wishes.outputs for name in _names(output))
            names = list(dict.fromkeys([*finished.names, *named]))
            _write_small(self._wishes.metadata_file, _metadata(encoded, names, self._predicate))
        return image

    def _write(self, output: Output, finished: Finished, encoded: Encoded) -> None:
        with _explained(output):
            if output.kind == LOCAL:
                attested = self._attested(encoded, finished.names)
                with self._tree(finished) as fd:
                    if attested is not None and fd >= 0 and trees.status_of(_PROVENANCE, fd) is not None:
                        raise HostError(
                            f"the image has a {_PROVENANCE} of its own, where the attestation is to be",
                            hint="leave out --provenance, or choose type=oci",
                        )
                    _write_folder(output.dest, fd)
                if attested is not None:
                    _write_small(os.path.join(output.dest, _PROVENANCE), attested.statement.decode())
                return
            with _opened(output.dest, self._wishes.stdout) as out:
                if output.kind in {OCI, DOCKER}:
                    self._write_image(out, output, finished, encoded)
                    return
                with self._tree(finished) as fd:
                    if fd < 0:
                        write_empty_archive(out)
                    else:
                        write_tree_archive(out, fd)

    def _write_image(self, out: BinaryIO, output: Output, finished: Finished, encoded: Encoded) -> None:
        blobs, annotations = self._images.blobs, self._wishes.annotations
        if output.kind == DOCKER:
            layers = plain_layers(finished.config, blobs)
            pairs = (*finished.annotations, *annotations.of_manifest)
            encoded = encode_image(finished.config, layers, annotations=pairs)
        names = list(dict.fromkeys([*finished.names, *_names(output)]))
        write_image_archive(
            out,
            encoded,
            blobs,
            names=names,
            annotations=annotations.of_index if output.kind == OCI else (),
            for_docker=output.kind == DOCKER,
            # docker's own archives hold one manifest.
            attested=self._attested(encoded, names) if output.kind == OCI else None,
        )

    def _attested(self, encoded: Encoded, names: Sequence[str]) -> Attested | None:
        """The attestation of an image as it is written, where one is wanted."""
        if self._predicate is None:
            return None
        from minidock.engine.provenance import attest

        return attest(self._predicate, encoded.descriptor.digest, encoded.platform, names)

    @contextmanager
    def _tree(self, finished: Finished) -> Iterator[int]:
        """The image's files as a directory descriptor, -1 for an image that has none."""
        diff_ids = finished.config.diff_ids
        if not diff_ids:
            yield -1
            return
        chains = {chain_id(diff_ids[:count]) for count in range(1, len(diff_ids) + 1)}
        finished.staging.lean_on({*diff_ids, *chains})
        self._rootfs.ensure(diff_ids)
        with self._rootfs.open_root(diff_ids, None) as fd:
            yield fd


def _unstored(finished: Finished, encoded: Encoded) -> Image:
    manifest: Manifest = decode_manifest(encoded.manifest)
    digest = encoded.descriptor.digest
    return Image(digest_of(encoded.config), digest, (), 0, manifest, finished.config, 0)


def _names(output: Output) -> tuple[str, ...]:
    return tuple(tag_name(name) for name in output.names)


def _metadata(encoded: Encoded, names: list[str], predicate: dict[str, Any] | None) -> str:
    """What buildx writes with ``--metadata-file`` (docs.docker.com, "docker buildx build")."""
    described = {**encoded.descriptor.to_json(), "platform": encoded.platform}
    value: dict[str, Any] = {
        "containerimage.config.digest": digest_of(encoded.config),
        "containerimage.descriptor": described,
        "containerimage.digest": encoded.descriptor.digest,
    }
    if names:
        value["image.name"] = ",".join(names)
    if predicate is not None:
        value["buildx.build.provenance"] = predicate
    return json.dumps(value, indent=2)


def _check_destination(output: Output, stdout: int | None) -> None:
    if output.kind == IMAGE:
        return
    if output.kind == LOCAL:
        path = os.path.abspath(output.dest)
        while not os.path.lexists(path):
            path = os.path.dirname(path)
        if not os.path.isdir(path):
            raise UsageError(f"cannot write to {output.dest}: {path} is not a folder", hint="give another folder")
    elif output.dest != STDOUT:
        _check_file(output.dest)
    elif stdout is None:
        raise UsageError(f"the {output.kind} archive has no destination", hint="give dest=FILE")
    elif os.isatty(stdout):
        raise UsageError("an archive is not written to a terminal", hint="give dest=FILE, or redirect standard output")


def _check_file(path: str) -> None:
    if os.path.isdir(path):
        raise UsageError(f"cannot write {path}: it is a folder", hint="give the path of a file")
    directory = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(directory):
        raise UsageError(f"cannot write {path}: there is no folder {directory}", hint="make it first")


@contextmanager
def _opened(dest: str, stdout: int | None) -> Iterator[BinaryIO]:
    """The destination of an archive: a file gets its name when the context ends well."""
    if dest == STDOUT and stdout is not None:
        with open(stdout, "wb", buffering=0, closefd=False) as out:
            yield out
        return
    path = os.path.realpath(dest)
    if os.path.lexists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        # A device, a named pipe: it is to be written to, not replaced.
        with open(path, "wb", buffering=0) as out:
            yield out
        return
    fd, temporary = files.open_scratch(os.path.dirname(path), mode=0o644)
    try:
        with open(fd, "wb", buffering=0) as out:
            yield out
            os.fdatasync(fd)
            os.rename(temporary, path)
    except BaseException:
        files.unlink_if_there(temporary)
        raise
    files.fsync_dir(os.path.dirname(path))


def _write_small(path: str, text: str) -> None:
    path = os.path.realpath(path)
    if os.path.lexists(path) and not os.path.isfile(path):
        with open(path, "wb", buffering=0) as out:
            out.write(text.encode())
        return
    files.write_atomic(path, text.encode(), sync=True, mode=0o644)


def _write_folder(dest: str, root_fd: int) -> None:
    """Copy a tree to a folder, -1 for an empty tree. A new folder appears whole. In one that is there, the tree's
    entries replace those of their names, each at once and whole; what the tree has not, and the folder's own owner and
    mode, stay.

    Raises HostError, before anything is replaced, where a folder lies where a file is to be.
    """
    path = os.path.abspath(dest)
    there = os.path.isdir(path)
    if not there:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    parent = path if there else os.path.dirname(path)
    temporary = f"{parent}/.{os.urandom(8).hex()}.tmp"
    os.mkdir(temporary, 0o700 if root_fd >= 0 else 0o755)
    try:
        fd = os.open(temporary, _DIRECTORY | os.O_NOFOLLOW)
        try:
            if root_fd >= 0:
                trees.copy(root_fd, fd)
            if there:
                _merge(fd, path)
        finally:
            os.close(fd)
        if not there:
            os.rename(temporary, path)
    finally:
        files.remove_tree(temporary)


def _merge(tree_fd: int, path: str) -> None:
    target = os.open(path, _DIRECTORY)
    try:
        if hidden := trees.in_the_way(tree_fd, target):
            raise HostError(
                f"cannot write {path}/{hidden}: there is a folder of that name",
                hint="remove it, or choose another folder",
            )
        for name in os.listdir(tree_fd):
            status, there = trees.status_of(name, tree_fd), trees.status_of(name, target)
            if status is not None and there is not None and stat.S_ISDIR(status.st_mode):
                if stat.S_ISDIR(there.st_mode):
                    _merge_folder(tree_fd, target, name)
                    continue
                os.unlink(name, dir_fd=target)
            os.rename(name, name, src_dir_fd=tree_fd, dst_dir_fd=target)
    finally:
        os.close(target)


def _merge_folder(tree_fd: int, target_fd: int, name: str) -> None:
    with ExitStack() as opened:
        source = trees.open_directory(tree_fd, name)
        opened.callback(os.close, source)
        target = trees.open_directory(target_fd, name)
        opened.callback(os.close, target)
        trees.merge(source, target)


@contextmanager
def _explained(output: Output) -> Iterator[None]:
    """Say where it could not be written when the kernel refused."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        where = "standard output" if output.dest == STDOUT else output.dest
        named = error.filename if isinstance(error.filename, str) and not error.filename.endswith(".tmp") else ""
        place = f" ({named})" if named and named != output.dest else ""
        reason = error.strerror or str(error)
        raise HostError(f"cannot write to {where}: {reason}{place}", hint=files.hint_for(error)) from error
