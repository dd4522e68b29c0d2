"""The data root: where everything lies, and its making."""

from __future__ import annotations

import os

from minidock.errors import HostError, StoreError
from minidock.store import files, locks

DEFAULT_ROOT = "/var/lib/minidock"
FORMAT = 1
_MAX_NAME = 255

_FOLDERS = {
    "images": 0o700,
    "images/blobs": 0o700,
    "images/blobs/sha256": 0o700,
    "layers": 0o710,
    "containers": 0o710,
    "containers/by-name": 0o700,
    "volumes": 0o710,
    "networks": 0o700,
    "cache": 0o700,
    "locks": 0o700,
    "tmp": 0o700,
}
_OWN_NAMES = frozenset({name.partition("/")[0] for name in _FOLDERS} | {"version", "id", "reserve", "lost+found"})
_RESERVE_SIZE = 1024 * 1024
_EMPTY_INDEX = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}


class DataRoot:
    """The folder that holds all state, and ``run``, the folder for what a reboot may lose.

    ``path`` is taken as it is, made absolute; ``run`` is ``/run/minidock/roots/<the real path, escaped>`` unless given,
    so that two data roots never meet.
    """

    __slots__ = ("path", "run")

    def __init__(self, path: str = DEFAULT_ROOT, *, run: str = "") -> None:
        self.path = os.path.abspath(path)
        self.run = run or f"/run/minidock/roots/{_escaped(os.path.realpath(self.path))}"

    @property
    def images(self) -> str:
        """An OCI image layout."""
        return f"{self.path}/images"

    @property
    def index(self) -> str:
        """The image layout's ``index.json``."""
        return f"{self.path}/images/index.json"

    @property
    def blobs(self) -> str:
        """The image layout's blobs, each named by the 64 hexadecimal digits of its digest."""
        return f"{self.path}/images/blobs/sha256"

    @property
    def layers(self) -> str:
        """One folder for each storage driver."""
        return f"{self.path}/layers"

    @property
    def containers(self) -> str:
        """One folder for each container, and ``by-name``."""
        return f"{self.path}/containers"

    @property
    def names(self) -> str:
        """Symbolic links from a container's name to ``../<id>``."""
        return f"{self.path}/containers/by-name"

    @property
    def volumes(self) -> str:
        return f"{self.path}/volumes"

    @property
    def networks(self) -> str:
        return f"{self.path}/networks"

    @property
    def cache(self) -> str:
        """What may be removed at any time and is made again."""
        return f"{self.path}/cache"

    @property
    def tmp(self) -> str:
        """Everything half-written; each entry is locked by its maker (``staging``), others are swept."""
        return f"{self.path}/tmp"

    @property
    def collection_lock(self) -> str:
        """Shared: an image may be leaned on until its index entry or a record names it. Alone: removal."""
        return f"{self.path}/locks/collection.lock"

    @property
    def index_lock(self) -> str:
        return f"{self.path}/locks/index.lock"

    @property
    def containers_lock(self) -> str:
        """Held while a container's name and folder appear or vanish."""
        return f"{self.path}/locks/containers.lock"

    @property
    def reserve(self) -> str:
        """A file that is given up where a full disk would keep a removal from being recorded."""
        return f"{self.path}/reserve"

    def lock(self, name: str) -> str:
        """The path of another lock that stays, ``locks/<name>.lock``."""
        return f"{self.path}/locks/{name}.lock"

    def container_dir(self, container_id: str) -> str:
        return f"{self.path}/containers/{container_id}"

    def container_lock(self, container_id: str) -> str:
        """The lock that a container's monitor holds as long as it lives."""
        return f"{self.path}/containers/{container_id}/lock"

    def container_run_dir(self, container_id: str) -> str:
        """The container's sockets and other things of this boot; made and removed by its monitor."""
        return f"{self.run}/{container_id}"

    def ensure(self) -> None:
        """Make what is missing of the folders; the first call makes the image layout and the format's version.

        Raises HostError when the folder cannot be written, StoreError when it is of a newer format, holds something
        else or the file system fails.
        """
        try:
            version = self._version()
            if version is None:
                self._refuse_foreign()
            self._make_folders()
            if version is None:
                self._initialise()
            if not os.path.exists(self.reserve):
                self._make_reserve()
        except PermissionError as error:
            raise HostError(
                f"cannot use the data root {self.path}: no permission for {error.filename}", hint=files.hint_for(error)
            ) from error
        except OSError as error:
            raise StoreError(
                f"cannot use the data root {self.path}: {error.filename}: {error.strerror}", hint=files.hint_for(error)
            ) from error

    @staticmethod
    def boot_id() -> str:
        """The kernel's random name of this boot (proc(5), /proc/sys/kernel/random/boot_id)."""
        fd = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, 64).decode().strip()
        finally:
            os.close(fd)

    def _version(self) -> int | None:
        try:
            text = files.read_file(f"{self.path}/version", limit=64).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return None
        if not text.isdigit():
            raise StoreError(f"the data root {self.path} has no valid format version: {text!r}")
        if int(text) > FORMAT:
            raise StoreError(
                f"the data root {self.path} has format {text}, newer than the {FORMAT} of this minidock",
                hint="use the newer minidock, or another folder with --root DIR",
            )
        return int(text)

    def _refuse_foreign(self) -> None:
        try:
            foreign = sorted(set(os.listdir(self.path)) - _OWN_NAMES)
        except FileNotFoundError:
            return
        if foreign:
            raise StoreError(
                f"the folder {self.path} is not a data root: it holds {foreign[0]!r}",
                hint="choose an empty or new folder with --root DIR",
            )

    def _make_folders(self) -> None:
        if not os.path.isdir(self.path):
            os.makedirs(self.path, 0o710, exist_ok=True)
            os.chmod(self.path, 0o710)
        for name, mode in _FOLDERS.items():
            path = f"{self.path}/{name}"
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                continue
            os.chmod(path, mode)
        os.makedirs(self.run, 0o700, exist_ok=True)

    def _make_reserve(self) -> None:
        """Best effort: a disk that is full has no room for it."""
        try:
            fd, temporary = files.open_scratch(self.tmp)
        except OSError:
            return
        try:
            os.posix_fallocate(fd, 0, _RESERVE_SIZE)
            os.rename(temporary, self.reserve)
        except OSError:
            files.unlink_if_there(temporary)
        finally:
            os.close(fd)

    def _initialise(self) -> None:
        """The version is written last: where it is, everything is."""
        with locks.exclusive(self.index_lock):
            if self._version() is not None:
                return
            layout = {"imageLayoutVersion": "1.0.0"}
            files.write_json(f"{self.images}/oci-layout", layout, sync=True, mode=0o644, scratch=self.tmp)
            if not os.path.exists(self.index):
                files.write_json(self.index, _EMPTY_INDEX, sync=True, mode=0o644, scratch=self.tmp)
            files.write_atomic(f"{self.path}/version", f"{FORMAT}\n".encode(), sync=True, scratch=self.tmp)


def _escaped(path: str) -> str:
    """A path as one file name that a person can read: ``var-lib-minidock`` (systemd-escape(1), --path).

    A path too long for a file name is told by its digest instead.
    """
    name = path.strip("/").replace("\\", "\\x5c").replace("-", "\\x2d").replace("/", "-") or "-"
    if len(os.fsencode(name)) <= _MAX_NAME:
        return name
    from minidock.model.digest import digest_of

    return digest_of(os.fsencode(path))[7:]
