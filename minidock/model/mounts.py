"""What ``-v``, ``--mount`` and ``--tmpfs`` ask for: a value, and the grammar that makes it."""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple

from minidock.errors import MountSpecError


class Mount(NamedTuple):
    """One mount of a container, as asked for and as its record keeps it.

    ``source`` is a host path (bind), a volume's name (volume; empty: anonymous, until ``create`` names it) or empty
    (tmpfs). ``create`` says that a missing source may be made: true for ``-v`` and ``bind-create-src``, never for
    ``--mount`` of a volume. ``options`` are tmpfs mount options. ``origin`` is the flag it came from ("-v", "--mount",
    "--tmpfs", "VOLUME").
    """

    type: str
    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"
    recursive: str = "enabled"
    nocopy: bool = False
    subpath: str = ""
    create: bool = False
    anonymous: bool = False
    options: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    origin: str = "--mount"


PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev")

_VOLUME_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]+"
_HOST_DIRECTORY_HINT = "to pass a host directory, use an absolute path or one that starts with './'"
_MODE_GROUPS = {
    **dict.fromkeys(("ro", "rw"), "access"),
    **dict.fromkeys(("z", "Z"), "label"),
    **dict.fromkeys(PROPAGATIONS, "propagation"),
    "nocopy": "copy",
    **dict.fromkeys(("consistent", "cached", "delegated"), "consistency"),
}
_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}
_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE = r"([0-9]+(?:\.[0-9]+)?) ?([kmgtKMGT]?)(?:[iI]?[bB])?"
_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_BARE = ("readonly", "volume-nocopy", "bind-create-src")
_KEYS = (
    *("type", "source", "target", "readonly", "consistency"),
    *("bind-propagation", "bind-recursive", "bind-create-src"),
    *("volume-nocopy", "volume-subpath", "volume-driver", "volume-opt", "volume-label"),
    *("tmpfs-size", "tmpfs-mode", "image-subpath"),
)
_TMPFS_FLAGS = ("exec", "noexec", "suid", "nosuid", "dev", "nodev", "atime", "noatime", "diratime", "nodiratime")
_TMPFS_VALUES = {
    "size": r"[0-9]+[kmgKMG%]?",
    "mode": r"[0-7]{1,4}",
    "uid": r"[0-9]+",
    "gid": r"[0-9]+",
    "nr_inodes": r"[0-9]+[kmgKMG]?",
    "nr_blocks": r"[0-9]+[kmgKMG]?",
}


def parse_volume_flag(text: str, *, cwd: str) -> Mount:
    """Parse ``-v [SRC:]DST[:OPT[,OPT]]``; a source that starts with ``.`` is taken from ``cwd``.

    Raises MountSpecError. What ``-v`` names is created where it is missing: a volume, or a root-owned host directory.
    ``z``, ``Z`` and the consistency words are accepted and change nothing: they are for SELinux and for desktops.
    """
    fields = text.split(":")
    mode = fields[2] if len(fields) == 3 else ""
    if len(fields) > 3 or not all(fields[:2]) or "\0" in text or (len(fields) == 2 and _is_mode(fields[1])):
        raise MountSpecError(f"invalid volume specification: {text!r}", hint="the form is [SOURCE:]TARGET[:OPTIONS]")
    if mode and not _is_mode(mode):
        raise MountSpecError(f"invalid mode: {mode}", hint=f"in {text!r}; one of each kind, such as ro,rprivate")
    options = {_MODE_GROUPS[word]: word for word in mode.split(",")} if mode else {}
    target = _target(fields[-1] if len(fields) == 1 else fields[1], flag=f"-v {text}")
    read_only, nocopy = options.get("access") == "ro", "copy" in options
    if len(fields) == 1:
        return Mount("volume", "", target, create=True, anonymous=True, origin="-v")
    source = _host_path(fields[0], cwd=cwd)
    if not source.startswith("/"):
        if "propagation" in options:
            raise MountSpecError(
                f"invalid volume specification: {text!r}: {options['propagation']} is for host directories only"
            )
        _volume_name(source, flag=f"-v {text}")
        return Mount("volume", source, target, read_only=read_only, nocopy=nocopy, create=True, origin="-v")
    if nocopy:
        raise MountSpecError(f"invalid volume specification: {text!r}: nocopy is for volumes only")
    propagation = options.get("propagation", "rprivate")
    return Mount("bind", source, target, read_only=read_only, propagation=propagation, create=True, origin="-v")


def parse_mount_flag(text: str, *, cwd: str = "") -> Mount:
    """Parse ``--mount key=value,...``, one CSV record; a bind source that starts with ``.`` is taken from ``cwd``.

    Raises MountSpecError. A volume that is named here is never created: it has to exist. Without a source the volume is
    an anonymous one, as in docker.
    """
    values: dict[str, str] = {}
    labels: list[tuple[str, str]] = []
    for field in csv_record(text):
        key, value = _mount_field(field)
        if key == "volume-label":
            name, _, content = value.partition("=")
            labels.append((name, content))
        values[key] = value
    kind = values.pop("type", "volume").lower()
    if kind not in _TYPES:
        raise MountSpecError(f"invalid mount type {kind!r} in {text!r}", hint="the types are volume, bind and tmpfs")
    for other in _TYPES:
        if other != kind and any(key.startswith(f"{other}-") for key in values):
            raise MountSpecError(f"cannot mix '{other}-*' options with mount type '{kind}'", hint=f"in {text!r}")
    if "target" not in values:
        raise MountSpecError(f"the mount {text!r} has no target", hint="add target=PATH")
    mount = Mount(
        kind,
        values.get("source", ""),
        _target(values["target"], flag=f"--mount {text}"),
        read_only=_boolean("readonly", values.get("readonly", "false")),
        labels=tuple(labels),
    )
    return _TYPES[kind](mount, values, cwd)


def parse_tmpfs_flag(text: str) -> Mount:
    """Parse ``--tmpfs DST[:OPT[,OPT]]``; raise MountSpecError.

    The options are those of mount(8) for tmpfs; noexec, nosuid and nodev hold unless ``exec``, ``suid`` or ``dev``
    takes them back.
    """
    path, _, rest = text.partition(":")
    target = _target(path, flag=f"--tmpfs {text}")
    options = list(TMPFS_DEFAULTS)
    read_only = False
    for option in rest.split(",") if rest else ():
        key, equals, value = option.partition("=")
        if option in ("ro", "rw"):
            read_only = option == "ro"
        elif option in _TMPFS_FLAGS:
            opposite = option[2:] if option.startswith("no") else f"no{option}"
            options = [word for word in options if word not in (option, opposite)] + [option]
        elif equals and key in _TMPFS_VALUES and re.fullmatch(_TMPFS_VALUES[key], value):
            options = [word for word in options if not word.startswith(f"{key}=")] + [option]
        else:
            raise MountSpecError(
                f"invalid tmpfs option {option!r} in {text!r}",
                hint=f"the options are ro, rw, {', '.join((*_TMPFS_FLAGS, *_TMPFS_VALUES))}",
            )
    return Mount("tmpfs", "", target, read_only=read_only, options=tuple(options), origin="--tmpfs")


def parse_size(text: str) -> int:
    """Bytes of a size as docker's flags write it: ``64m``, ``1.5g``, ``1024`` (units are binary, ``b`` may follow).

    Raises ValueError.
    """
    match = re.fullmatch(_SIZE, text)
    if not match:
        raise ValueError(f"invalid size {text!r}")
    number, unit = match[1], _SIZE_UNITS[match[2].lower()]
    return int(float(number) * unit) if "." in number else int(number) * unit


def _is_mode(text: str) -> bool:
    """True for a list of mode words, at most one of each kind."""
    groups = [_MODE_GROUPS.get(word) for word in text.split(",")]
    return None not in groups and len(set(groups)) == len(groups)


def _clean(path: str) -> str:
    """The path without ``.``, ``..``, doubled and trailing slashes: Go's ``path.Clean`` of an absolute path."""
    return "/" + posixpath.normpath(path).lstrip("/")


def _host_path(source: str, *, cwd: str) -> str:
    if source.startswith("."):
        return _clean(posixpath.join(cwd, source))
    return _clean(source) if source.startswith("/") else source


def _target(path: str, *, flag: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise MountSpecError(f"invalid mount path: {path!r} must be absolute", hint=f"in '{flag}'")
    cleaned = _clean(path)
    if cleaned == "/":
        raise MountSpecError("invalid mount path: the destination can't be '/'", hint=f"in '{flag}'")
    return cleaned


def _volume_name(name: str, *, flag: str) -> None:
    if not re.fullmatch(_VOLUME_NAME, name) or len(name) > 255:
        raise MountSpecError(f"invalid volume name {name!r} in '{flag}'", hint=_HOST_DIRECTORY_HINT)


def _boolean(key: str, value: str) -> bool:
    if value not in _BOOLEANS:
        raise MountSpecError(f"invalid value for '{key}': {value!r} is not one of 1, 0, true, false")
    return _BOOLEANS[value]


def csv_record(text: str) -> list[str]:
    """The fields of one CSV record (RFC 4180): a quoted field may hold commas, and quotes written twice.

    Raises MountSpecError.
    """
    fields: list[str] = []
    position = 0
    while True:
        if text.startswith('"', position):
            field, position = _quoted_field(text, position + 1)
        else:
            end = text.find(",", position)
            end = len(text) if end < 0 else end
            field, position = text[position:end], end
            if '"' in field or "\n" in field or "\0" in field:
                raise MountSpecError(f"invalid mount specification: {text!r}", hint="quote the whole field, or nothing")
        fields.append(field)
        if position == len(text):
            return fields
        position += 1


def _quoted_field(text: str, position: int) -> tuple[str, int]:
    """The field whose opening quote is just before ``position``, and where it ends: a comma or the end of the text."""
    parts: list[str] = []
    while True:
        end = text.find('"', position)
        if end < 0:
            raise MountSpecError(f"invalid mount specification: {text!r}", hint="a quote is not closed")
        parts.append(text[position:end])
        if text.startswith('""', end):
            parts.append('"')
            position = end + 2
        elif end + 1 == len(text) or text[end + 1] == ",":
            return "".join(parts), end + 1
        else:
            raise MountSpecError(f"invalid mount specification: {text!r}", hint="text follows a closing quote")


def _mount_field(field: str) -> tuple[str, str]:
    """The canonical key and the value of one field; a bare boolean is ``true``."""
    if not field:
        raise MountSpecError("a field of --mount is empty", hint="the form is KEY=VALUE,KEY=VALUE")
    raw_key, equals, value = field.partition("=")
    if raw_key.strip() != raw_key or value.strip() != value:
        raise MountSpecError(f"invalid field {field!r}: no blanks may stand around a key or value")
    key = _ALIASES.get(raw_key.lower(), raw_key.lower())
    if key not in _KEYS:
        raise MountSpecError(f"unknown option {raw_key!r} in {field!r}", hint=f"the options are {', '.join(_KEYS)}")
    if not equals:
        if key not in _BARE:
            raise MountSpecError(f"invalid field {field!r}: must be a key=value pair")
        return key, "true"
    if not value:
        raise MountSpecError(f"invalid value for '{raw_key}': value is empty")
    return key, value


def _bind(mount: Mount, values: dict[str, str], cwd: str) -> Mount:
    source = _host_path(mount.source, cwd=cwd) if cwd else mount.source
    if not source.startswith("/"):
        reason = f"the source {source!r} must be an absolute path" if source else "a source is required"
        raise MountSpecError(f'invalid mount config for type "bind": {reason}', hint="add source=/HOST/PATH")
    propagation = values.get("bind-propagation", "rprivate")
    if propagation not in PROPAGATIONS:
        raise MountSpecError(f"invalid bind-propagation {propagation!r}", hint=f"one of {', '.join(PROPAGATIONS)}")
    recursive = values.get("bind-recursive", "enabled")
    if recursive not in ("enabled", "disabled", "writable", "readonly"):
        raise MountSpecError(
            f"invalid bind-recursive {recursive!r}", hint="one of enabled, disabled, writable, readonly"
        )
    if recursive in ("writable", "readonly") and not mount.read_only:
        raise MountSpecError(f"option 'bind-recursive={recursive}' requires 'readonly'")
    if recursive == "readonly" and propagation != "rprivate":
        raise MountSpecError("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate'")
    create = _boolean("bind-create-src", values.get("bind-create-src", "false"))
    return mount._replace(source=_clean(source), propagation=propagation, recursive=recursive, create=create)


def _volume(mount: Mount, values: dict[str, str], _cwd: str) -> Mount:
    if mount.source:
        _volume_name(mount.source, flag=f"source={mount.source}")
    if values.get("volume-driver", "local") != "local":
        raise MountSpecError(f"volume driver {values['volume-driver']!r} is not there", hint="the driver is local")
    if "volume-opt" in values:
        raise MountSpecError(
            f"volume-opt={values['volume-opt']} is not there yet", hint="a volume is a directory under volumes/"
        )
    subpath = _subpath(values.get("volume-subpath", ""), option="volume-subpath")
    if subpath and not mount.source:
        raise MountSpecError("volume-subpath needs a named volume", hint="add source=NAME")
    nocopy = _boolean("volume-nocopy", values.get("volume-nocopy", "false"))
    return mount._replace(nocopy=nocopy, subpath=subpath, anonymous=not mount.source)


def _tmpfs(mount: Mount, values: dict[str, str], _cwd: str) -> Mount:
    if mount.source:
        raise MountSpecError('invalid mount config for type "tmpfs": a tmpfs has no source')
    options = list(TMPFS_DEFAULTS)
    if "tmpfs-size" in values:
        try:
            options.append(f"size={parse_size(values['tmpfs-size'])}")
        except ValueError:
            raise MountSpecError(
                f"invalid value for tmpfs-size: {values['tmpfs-size']!r}", hint="such as 64m"
            ) from None
    if "tmpfs-mode" in values:
        if not re.fullmatch(_TMPFS_VALUES["mode"], values["tmpfs-mode"]):
            raise MountSpecError(f"invalid value for tmpfs-mode: {values['tmpfs-mode']!r}", hint="octal, such as 1777")
        options.append(f"mode={values['tmpfs-mode']}")
    return mount._replace(options=tuple(options))


def _image(mount: Mount, values: dict[str, str], _cwd: str) -> Mount:
    if not mount.source:
        raise MountSpecError('invalid mount config for type "image": a source is required', hint="add source=IMAGE")
    subpath = _subpath(values.get("image-subpath", ""), option="image-subpath")
    return mount._replace(read_only=True, subpath=subpath)


def _subpath(path: str, *, option: str) -> str:
    """A path inside of a volume or image: relative, and not leading out of it."""
    if not path:
        return ""
    cleaned = posixpath.normpath(path)
    if path.startswith("/") or cleaned == ".." or cleaned.startswith("../"):
        raise MountSpecError(f"invalid {option} {path!r}: it must be relative and stay inside")
    return "" if cleaned == "." else cleaned


_TYPES = {"volume": _volume, "bind": _bind, "tmpfs": _tmpfs, "image": _image}
