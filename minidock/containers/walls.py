"""What ``create`` refuses of a container's walls before anything is made, and the seccomp profile that it keeps.

Loaded only where one of the flags was given.

A profile of a file is read once, checked and compiled; its bytes stay in the container's directory, and later starts
use those: the file may change or go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minidock.errors import UsageError
from minidock.model.capabilities import effective_set

if TYPE_CHECKING:
    from minidock.containers.parts import Parts
    from minidock.model.container import Settings
    from minidock.model.security import SecurityOptions


def check_walls(settings: Settings) -> None:
    """Refuse what the start would refuse of security options, limits, kernel parameters, devices and groups.

    Raises UsageError.
    """
    if settings.security_opt:
        from minidock.model.security import security_options

        _check_modules(security_options(settings.security_opt))
    if settings.ulimits:
        from minidock.model.ulimits import parse_ulimits

        parse_ulimits(settings.ulimits)
    if settings.sysctls:
        from minidock.model.sysctls import parse_sysctls

        parse_sysctls(settings.sysctls, network=settings.network)
    if settings.devices or settings.device_cgroup_rules:
        from minidock.containers.devices import devices_of

        devices_of(settings)
    if settings.group_add:
        from minidock.model.users import parse_group

        for group in settings.group_add:
            parse_group(group)


def read_profile(settings: Settings, parts: Parts) -> bytes:
    """The bytes of the seccomp profile that the security options name, empty if they name no file.

    It is compiled for this container, so that whatever is wrong with it is found now; names of system calls that this
    machine does not have are passed over, and told in the debug log. Raises UsageError.
    """
    from minidock.model.security import security_options

    path = security_options(settings.security_opt).profile
    if not path:
        return b""
    from minidock.runtime import seccomp, seccomp_profile
    from minidock.runtime.plan import available_capabilities

    available = available_capabilities()
    if not settings.privileged:
        available = frozenset(effective_set(add=settings.cap_add, drop=settings.cap_drop, available=available))
    content = seccomp_profile.read_profile(path)
    if parts.log.verbose and (unknown := seccomp_profile.unknown_names(content, bounding=available, name=path)):
        parts.log.debug(f"seccomp profile {path}: no system calls of this machine: {' '.join(unknown)}")
    cache = f"{parts.root.cache}/seccomp"
    seccomp.program(profile=path, bounding=available, cache_dir=cache, content=content)
    return content


def _check_modules(options: SecurityOptions) -> None:
    from minidock.kernel import lsm

    if options.labels:
        reason = "minidock does not label containers yet" if lsm.has_selinux() else "this host has no SELinux"
        raise UsageError(f"cannot use --security-opt label={options.labels[0]}: {reason}", hint="use label=disable")
    if options.apparmor in {"", "unconfined"}:
        return
    what = f"cannot use --security-opt apparmor={options.apparmor}"
    if not lsm.has_apparmor():
        raise UsageError(f"{what}: this host has no AppArmor", hint="leave it out, or use apparmor=unconfined")
    loaded = lsm.apparmor_profiles()
    if loaded is not None and options.apparmor not in loaded:
        raise UsageError(f"{what}: no profile of that name is loaded", hint="load it with apparmor_parser")
