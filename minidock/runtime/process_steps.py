"""Steps of the child that turn it into the container's command: limits, user, capabilities, filter, exec."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import stat
from typing import NamedTuple

from minidock.errors import ContainerStartError
from minidock.kernel import caps, mount, seccomp, tty
from minidock.kernel import process as kp
from minidock.kernel.resolve import open_in_root
from minidock.kernel.trampoline import exec_trampoline
from minidock.model.spec import SYSCTLS
from minidock.model.users import MAX_FILE, Identity, lookup, parse_user
from minidock.runtime.context import ChildContext
from minidock.runtime.program import exec_failure, find_program

ERROR_FD = 3
_FIRST_HIGH = 10
_READ_ALL = frozenset({"CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"})


class SetSysctls(NamedTuple):
    """Write kernel parameters of the container's namespaces through its own proc, before /proc/sys is read-only."""

    values: tuple[tuple[str, str], ...]
    where: str = "child"
    why: str = "network"

    def describe(self) -> str:
        return "sysctl " + " ".join(f"{name}={value.replace(' ', '-')}" for name, value in self.values)

    def execute(self, context: ChildContext) -> None:
        for name, value in self.values:
            path = name if "/" in name else name.replace(".", "/")
            try:
                _write_proc(context, f"sys/{path}", value)
            except OSError as error:
                if (name, value) in SYSCTLS and error.errno == errno.ENOENT:
                    continue
                raise _sysctl_error(name, value, error) from None


def _sysctl_error(name: str, value: str, error: OSError) -> ContainerStartError:
    if error.errno in {errno.ENOENT, errno.EACCES, errno.EPERM}:
        return ContainerStartError(f"cannot set sysctl {name}: the container has no kernel parameter of that name")
    return ContainerStartError(f"cannot set sysctl {name} to {value!r}: {(error.strerror or '').lower()}")


class SetHostname(NamedTuple):
    """Name the container's UTS namespace (proc(5), /proc/sys/kernel/hostname)."""

    hostname: str
    where: str = "child"
    why: str = "namespaces"

    def describe(self) -> str:
        return f"hostname {self.hostname}"

    def execute(self, context: ChildContext) -> None:
        _write_proc(context, "sys/kernel/hostname", self.hostname)


class OpenConsole(NamedTuple):
    """Open a pty in the container's own devpts, put it at /dev/console and hand its master to the parent."""

    where: str = "child"
    why: str = "terminal"

    def describe(self) -> str:
        return "open a pty in the container's /dev/pts; bind it on /dev/console"

    def execute(self, context: ChildContext) -> None:
        # It is loaded already: the parent has made the socket.
        from minidock.kernel.passing import send_fds

        try:
            pts = open_in_root(context.root, "/dev/pts", os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            raise ContainerStartError(
                "cannot open a terminal: the container has no /dev/pts", hint="leave out -t, or the mount on /dev"
            ) from None
        try:
            master, slave = tty.new_pty(pts)
        finally:
            os.close(pts)
        tty.set_winsize(master, *context.stdio.winsize)
        if context.dev >= 0:
            os.close(os.open("console", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_WRONLY, 0o600, dir_fd=context.dev))
            cover = mount.open_tree(slave)
            context.attach(cover, "/dev/console", directory=False)
            os.close(cover)
        send_fds(context.console, b"console", [master])
        os.close(master)
        context.stdio = context.stdio._replace(stdin=slave, stdout=slave, stderr=slave)


class SetLimits(NamedTuple):
    """Resource limits (soft, hard; -1 means the hard limit that there is) and the out-of-memory score.

    A limit goes as far as the engine's own hard limit does. They come into force right before the exec, when the
    caller's descriptors are closed: there may be more of them than the container's limit.
    """

    limits: tuple[tuple[str, int, int], ...]
    oom_score_adj: int
    where: str = "child"
    why: str = "limits"

    def describe(self) -> str:
        texts = [f"{name.removeprefix('RLIMIT_').lower()}={soft}" for name, soft, _ in self.limits]
        return f"limits {' '.join(texts)}; oom_score_adj {self.oom_score_adj}"

    def execute(self, context: ChildContext) -> None:
        context.limits = self.limits
        # Only a privileged engine may lower the score below its own.
        with contextlib.suppress(PermissionError):
            _write_proc(context, "self/oom_score_adj", str(self.oom_score_adj))


def set_own_oom_score(score: int) -> None:
    """Set the calling process's out-of-memory score through the /proc at hand, as far as it is allowed to."""
    with contextlib.suppress(PermissionError), open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(str(score).encode())


class JoinKeyring(NamedTuple):
    """Take part in the container's own session keyring instead of the caller's (keyrings(7))."""

    name: str
    where: str = "child"
    why: str = "namespaces"

    def describe(self) -> str:
        return f"session keyring {self.name}"

    def execute(self, context: ChildContext) -> None:
        del context
        kp.join_session_keyring(self.name)


def session_keyring(container: str) -> str:
    """The name of a container's session keyring, by which its further commands join it."""
    return f"_ses.{container[:64]}"


class ResolveUser(NamedTuple):
    """Find the user in the image's own passwd and group files, and complete the environment with HOME."""

    user: str
    env: tuple[str, ...]
    groups: tuple[str, ...] = ()
    where: str = "child"
    why: str = "user"

    def describe(self) -> str:
        groups = f" and groups {' '.join(self.groups)}" if self.groups else ""
        return f"user {self.user or 'root'}{groups}: look up in the container's /etc/passwd and /etc/group"

    def execute(self, context: ChildContext) -> None:
        passwd = read_account_file(context.root, "/etc/passwd")
        group = read_account_file(context.root, "/etc/group")
        context.identity = lookup(parse_user(self.user), passwd, group, self.groups)
        # An entry without a name, which an image may have, can be given to no program.
        context.env = {name: text for name, _, text in (value.partition("=") for value in self.env) if name}
        context.env.setdefault("HOME", context.identity.home)


class EnterDirectory(NamedTuple):
    """Enter the working directory, which is made (as root) where ``make`` says so; it lies inside the container."""

    cwd: str
    make: bool = True
    where: str = "child"
    why: str = "working directory"

    def describe(self) -> str:
        return f"chdir {self.cwd}"

    def execute(self, context: ChildContext) -> None:
        try:
            point = open_in_root(context.root, self.cwd, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            if not self.make:
                raise ContainerStartError(f"working directory {self.cwd!r} does not exist in the container") from None
            point = context.mount_point(self.cwd, directory=True)
        except NotADirectoryError:
            raise ContainerStartError(f"working directory {self.cwd!r} is not a directory") from None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise ContainerStartError(
                f"cannot enter the working directory {self.cwd!r}: links lead nowhere or out of the container"
            ) from None
        os.fchdir(point)
        os.close(point)
        if not os.getcwd().startswith("/"):
            raise ContainerStartError(f"working directory {self.cwd!r} is outside of the container")


class ConfineByAppArmor(NamedTuple):
    """Have the next exec enter an AppArmor profile, which holds for all that follow (aa_change_onexec(2))."""

    profile: str
    where: str = "child"
    why: str = "capabilities and seccomp"

    def describe(self) -> str:
        return f"apparmor profile {self.profile}"

    def execute(self, context: ChildContext) -> None:
        if context.proc < 0:
            # A command that joins a container: the /proc that is mounted there may be anything (CVE-2019-16884).
            context.proc = mount.new_mount("proc", source="proc")
        try:
            _write_proc(context, "self/attr/apparmor/exec", f"exec {self.profile}")
        except FileNotFoundError:
            raise ContainerStartError(
                f"cannot enter the AppArmor profile {self.profile!r}: it is not loaded",
                hint="load it with apparmor_parser, or use --security-opt apparmor=unconfined",
            ) from None


class DropPrivileges(NamedTuple):
    """Bounding set, filter, groups, user, capability sets and no_new_privs, in the order that the kernel needs.

    Without no_new_privs the filter is loaded while CAP_SYS_ADMIN is still held (seccomp(2)); with it, last. The
    caller's descriptors are closed before: a person's filter may be older than close_range(2).
    """

    capabilities: frozenset[str]
    no_new_privs: bool
    program: bytes | None
    where: str = "child"
    why: str = "capabilities and seccomp"

    def describe(self) -> str:
        names = " ".join(sorted(name.removeprefix("CAP_") for name in self.capabilities)) or "none"
        size = f"{len(self.program) // 8} instructions" if self.program else "none"
        return f"capabilities {names}; no_new_privs {int(self.no_new_privs)}; seccomp filter {size}"

    def execute(self, context: ChildContext) -> None:
        identity = context.identity or Identity(0, 0, (0,), "/", "root")
        nothing: frozenset[str] = frozenset()
        held = self.capabilities if identity.uid == 0 else nothing
        if identity.uid:
            _give_streams(context, identity.uid)
        caps.limit_bounding(self.capabilities)
        kp.close_from(ERROR_FD, keep={*context.stdio[:3], context.trampoline, context.report, context.log})
        if self.program and not self.no_new_privs:
            seccomp.load(self.program)
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
        caps.set_sets(effective=held, permitted=held, inheritable=nothing)
        if self.no_new_privs:
            kp.set_no_new_privs()
            if self.program:
                seccomp.load(self.program)


class Exec(NamedTuple):
    """Find the command on the container's PATH and execute it through the sealed trampoline."""

    args: tuple[str, ...]
    where: str = "child"
    why: str = "the command"

    def describe(self) -> str:
        return "exec " + " ".join(self.args)

    def execute(self, context: ChildContext) -> None:

        def doubt(error: ContainerStartError) -> None:
            failure = kp.Failure(0, type(error).__name__, error.hint, error.message)
            kp.send_failure(context.report, failure, doubt=True)

        path = find_program(self.args[0], context.env.get("PATH", ""), doubt=doubt)
        # Everything that is kept goes above the descriptors that are about to be overwritten.
        kept_report = context.report
        trampoline, report = _high(context.trampoline), _high(context.report)
        stdio = [_high(fd) for fd in context.stdio[:3]]
        for target, fd in enumerate(stdio):
            os.dup2(fd, target, inheritable=True)
        context.report = os.dup2(report, ERROR_FD, inheritable=True)
        kp.setsid()
        if context.stdio.terminal:
            tty.set_controlling(0)
        kp.reset_signals()
        for fd in {*stdio, *context.stdio[:3], context.trampoline, report, kept_report, context.log}:
            if fd > ERROR_FD:
                os.close(fd)
        for name, soft, hard in context.limits:
            _limit(kp.limit_number(name), soft, hard)
        _be_unreadable(context)
        try:
            exec_trampoline(trampoline, path, self.args, context.env, error_fd=ERROR_FD)
        except OSError as error:
            if error.errno == errno.E2BIG:
                # The kernel measures before it looks at the program: arguments and environment are the person's.
                raise exec_failure(self.args[0], errno.E2BIG) from None
            raise


def _be_unreadable(context: ChildContext) -> None:
    """So that the trampoline is out of the container's reach: it is what its process may not read.

    A person's filter may refuse this; the process is then like the command that it becomes.
    """
    if context.identity is None or context.identity.uid == 0:
        with contextlib.suppress(OSError):
            caps.lower_effective(_READ_ALL)


def _write_proc(context: ChildContext, path: str, value: str) -> None:
    """Write into the container's own proc by its descriptor: no path that an image could have bent (CVE-2025-52881)."""
    if context.proc < 0:
        return
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=context.proc)
    try:
        os.write(fd, os.fsencode(value))
    finally:
        os.close(fd)


def _give_streams(context: ChildContext, uid: int) -> None:
    """Pipes and the terminal become the user's, which can open them again then, as ``> /dev/stdout`` does (runc)."""
    for fd in set(context.stdio[:3]):
        if stat.S_ISFIFO(os.fstat(fd).st_mode) or context.stdio.terminal:
            os.fchown(fd, uid, -1)


def _high(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_HIGH)


def read_account_file(root: int, path: str) -> str:
    """The text of the image's passwd or group file, empty if there is none.

    Links are followed inside ``root`` only; anything but a regular file of a sensible size is refused (CVE-2024-9676).
    """
    try:
        fd = open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ContainerStartError(f"the image's {path} is not a regular file")
        if status.st_size > MAX_FILE:
            raise ContainerStartError(f"the image's {path} is larger than {MAX_FILE} bytes")
        # What lies in /proc claims to be empty, and reading it may do something: /proc/kmsg would be emptied.
        return os.fsdecode(os.read(fd, status.st_size)) if status.st_size else ""
    finally:
        os.close(fd)


def _limit(number: int, soft: int, hard: int) -> None:
    ceiling = _clamp(hard, resource.getrlimit(number)[1])
    resource.setrlimit(number, (_clamp(soft, ceiling), ceiling))


def _clamp(value: int, ceiling: int) -> int:
    if ceiling == resource.RLIM_INFINITY:
        return value
    return ceiling if value < 0 else min(value, ceiling)
