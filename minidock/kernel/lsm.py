"""Linux security modules: which of those that label processes the running kernel has at work."""

from __future__ import annotations

import os

_APPARMOR = "/sys/module/apparmor/parameters/enabled"
_PROFILES = "/sys/kernel/security/apparmor/profiles"
_SELINUX = "/sys/fs/selinux/enforce"


def has_apparmor() -> bool:
    """Whether AppArmor confines processes here."""
    return _read(_APPARMOR).strip() == "Y"


def has_selinux() -> bool:
    """Whether SELinux labels processes here."""
    return os.path.exists(_SELINUX)


def apparmor_profiles() -> frozenset[str] | None:
    """The names of the profiles that are loaded; None where the kernel's list cannot be read (securityfs)."""
    text = _read(_PROFILES)
    # Each line is "name (mode)".
    return frozenset(line.rpartition(" (")[0] for line in text.splitlines()) if text else None


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""
