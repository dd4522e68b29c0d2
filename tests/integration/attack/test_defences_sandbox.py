"""Each wall of the sandbox matters: with it taken down, its row's attack (5, 33, 58 to 64, 67) succeeds.

Nothing of the host is written even then: what the attacks reach are parameters of the container's own namespaces, its
own cgroup, and questions that change nothing. The list of all pairs is docs/security-tests.md.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minidock.kernel import cgroups, seccomp, tty
from minidock.kernel import mount as km
from minidock.model import spec, sysctls
from minidock.runtime import cgroup_steps, mount_steps, plan, process_steps, seccomp_default
from minidock.runtime import seccomp as profiles
from tests.integration.attack.tools import Standing, engine_apart, install, naive_open, output

ON_X86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the other ABIs are x86_64's")
FURTHER = frozenset({"CAP_SYS_ADMIN", "CAP_PERFMON"})


def sh(script: str, **options: Any) -> Callable[[Any], str]:
    """What a shell in a busybox container prints; it always succeeds."""
    return output("busybox", "sh", "-c", f"({script}) 2>&1; true", **options)


def unfiltered() -> None:
    """No seccomp filter."""
    plan.seccomp = Standing(profiles, program=lambda **_: None)  # type: ignore[assignment]


def uncached() -> None:
    """No filter comes from the cache, and none gets there."""
    profiles._cached = lambda _: None
    profiles._store = lambda *_: None


def listed(*names: str) -> None:
    """The filter of a default container, whatever capabilities this one has, with these calls on the list of what is
    allowed."""
    before = profiles.program
    uncached()
    seccomp_default.ALWAYS += " ".join(names)

    def program(*, bounding: frozenset[str], **rest: Any) -> bytes | None:
        return before(bounding=bounding - FURTHER, **rest)

    plan.seccomp = Standing(profiles, program=program)  # type: ignore[assignment]


# Row 5


def test_row_05_a_console_by_a_link_is_the_hosts(minidock: Any) -> None:
    """The multiplexer of another container's making is a link, which at that time leads to the host's own."""
    minidock("run", "--rm", "-v", "pts:/d", "busybox", "ln", "-s", "/dev/ptmx", "/d/ptmx")
    use = output("busybox", "echo", "started", volumes=["pts:/dev/pts"], tty=True)

    def new_pty(devpts: int) -> tuple[int, int]:
        with open(os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=devpts), "rb", closefd=True) as file:
            os.dup2(file.fileno(), 50)
        tty.fcntl.ioctl(50, tty._TIOCSPTLCK, bytes(4))
        return 50, tty.fcntl.ioctl(50, tty._TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)

    def patch() -> None:
        process_steps.tty = Standing(tty, new_pty=new_pty)  # type: ignore[assignment]

    assert "symbolic links" in engine_apart(minidock.root, use)
    assert engine_apart(minidock.root, use, patch).split() == ["started"]


def test_row_05_a_place_of_terminals_that_is_a_link_is_the_hosts(minidock: Any) -> None:
    minidock("run", "--rm", "-v", "dev:/d", "busybox", "ln", "-s", "/dev/pts", "/d/pts")
    use = output("busybox", "echo", "started", volumes=["dev:/dev"], tty=True)

    def patch() -> None:
        process_steps.open_in_root = naive_open

    assert "symbolic links" in engine_apart(minidock.root, use)
    assert engine_apart(minidock.root, use, patch).split() == ["started"]


# Row 33


def test_row_33_without_device_rules_a_device_is_opened(minidock: Any) -> None:
    """That of loop devices: asking it for nothing changes nothing."""
    if not os.path.exists("/dev/loop-control"):
        pytest.skip("this kernel has no loop devices")
    use = sh("mknod /node c 10 237 && exec 3</node && echo opened")

    def patch() -> None:
        cgroups.Cgroup.set_devices = lambda *_: None  # type: ignore[method-assign]

    assert "not permitted" in engine_apart(minidock.root, use)
    assert engine_apart(minidock.root, use, patch) == "opened\n"


# Row 58


@pytest.mark.parametrize(
    ("attack", "refusal"),
    [("echo x > /proc/sys/kernel/domainname && echo done", "Read-only"), ("[ -c /proc/interrupts ] || echo done", "")],
)
def test_row_58_without_masks_and_read_only_paths_the_kernels_files_are_open(
    minidock: Any, attack: str, refusal: str
) -> None:
    """The parameter is of the container's own UTS namespace: others would be the host's."""

    def patch() -> None:
        mount_steps.ReadOnlyPaths.execute = lambda *_: None  # type: ignore[method-assign]
        mount_steps.MaskPaths.execute = lambda *_: None  # type: ignore[method-assign]

    answer = engine_apart(minidock.root, sh(attack))
    assert "done" not in answer
    assert refusal in answer
    assert engine_apart(minidock.root, sh(attack), patch) == "done\n"


def test_row_58_without_its_options_sysfs_is_writable(minidock: Any) -> None:
    """The mount is read-only. Only opened, and the container's own, is the alias of its loopback device."""
    use = sh("(: >> /sys/class/net/lo/ifalias) && echo writable")

    def patch() -> None:
        before = km.new_mount

        def new_mount(fstype: str, data: Any = (), *, attrs: int = 0, **rest: Any) -> int:
            return before(fstype, data, attrs=attrs & ~km.MOUNT_ATTR_RDONLY, **rest)

        mount_steps.km = Standing(km, new_mount=new_mount)  # type: ignore[assignment]

    assert "Read-only" in engine_apart(minidock.root, use)
    assert engine_apart(minidock.root, use, patch) == "writable\n"


# Rows 58, 59 and 62: two walls, the filter and the capabilities


@pytest.mark.parametrize(
    "attack",
    [
        "mount -o remount,rw,bind /proc/sys && echo done",
        "umount /proc/interrupts && echo done",
        "mount -t tmpfs none /mnt && echo done",
        "unshare -m true && echo done",
        "hostname evil && echo done",
    ],
)
def test_rows_58_59_and_62_filter_and_capabilities_each_refuse_alone(minidock: Any, attack: str) -> None:
    use, able = sh(f"mkdir -p /mnt; {attack}"), sh(f"mkdir -p /mnt; {attack}", cap_add=["SYS_ADMIN"])
    for attempt, patch in ((use, lambda: None), (use, unfiltered), (able, listed)):
        answer = engine_apart(minidock.root, attempt, patch)
        assert "done" not in answer
        assert re.search("not permitted|ermission denied", answer), answer
    assert engine_apart(minidock.root, able) == "done\n"


def test_rows_59_and_62_without_a_filter_there_is_a_user_namespace(minidock: Any) -> None:
    """In which every capability is held: the way of CVE-2022-0492 and CVE-2022-0185. The kernel alone does not refuse
    it (where it does, by a parameter of its own, there is nothing to see)."""
    if Path("/proc/sys/user/max_user_namespaces").read_text().strip() == "0":
        pytest.skip("this host makes no user namespaces")
    use = sh("unshare -Urm sh -c 'mount -t tmpfs none /tmp && echo mounted'")
    assert "not permitted" in engine_apart(minidock.root, use)
    assert engine_apart(minidock.root, use, unfiltered) == "mounted\n"


# Rows 62 to 64, by system call


@pytest.fixture
def calls(minidock: Any, make_image: Callable[..., None], build_static: Callable[..., Path]) -> Callable[..., Any]:
    """The errno of each system call asked for, made inside of a container; see src/sysprobe.c."""
    make_image("probes", lambda tree: install(tree, build_static("sysprobe")))

    def run(*asked: str, patch: Callable[[], object] = lambda: None, **options: Any) -> list[str]:
        answer = engine_apart(minidock.root, output("probes", "/sysprobe", *asked, **options), patch)
        return [line.rsplit(" ", 1)[1] for line in answer.splitlines()]

    return run


KEYCTL = ("x86_64:250:0:-3:0:0:0", "i386:288:0:-3:0:0:0", "x32:250:0:-3:0:0:0")
USERFAULTFD = ("x86_64:323:1", "i386:374:1", "x32:323:1")
REFUSED = str(errno.EPERM)


@ON_X86_64
@pytest.mark.parametrize("asked", [KEYCTL, USERFAULTFD], ids=["keyctl", "userfaultfd"])
def test_row_63_without_a_filter_calls_succeed(calls: Callable[..., Any], asked: tuple[str, ...]) -> None:
    assert calls(*asked) == [REFUSED] * 3
    native, i386, _ = calls(*asked, patch=unfiltered)
    # The kernel may be built without x32.
    assert (native, i386) == ("0", "0")


@ON_X86_64
def test_row_63_a_filter_that_forgets_the_other_abis_kills_them(calls: Callable[..., Any]) -> None:
    """What stands behind the list of architectures: the filter's own answer for those that are not on it."""

    def patch() -> None:
        uncached()
        seccomp_default.ARCHITECTURES = {"x86_64": ("x86_64",)}

    native, i386, x32 = calls(*KEYCTL, patch=patch)
    assert native == REFUSED
    assert i386 == "signal:31"
    assert x32 in (REFUSED, str(errno.ENOSYS), "signal:31")


@ON_X86_64
@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("keyctl", KEYCTL[0]),
        ("userfaultfd", USERFAULTFD[0]),
        ("add_key", "x86_64:248:@user:@x:@y:1:-3"),
        ("request_key", "x86_64:249:@user:@x:0:-3"),
        ("io_uring_setup", "x86_64:425:1:@"),
        ("unshare", "x86_64:272:0x10000000"),
        ("clone", "x86_64:56:0x10000011:0:0:0:0"),
        ("bpf", "x86_64:321:0:@:4"),
        ("open_by_handle_at", "x86_64:304:-100:@:0"),
    ],
)
def test_rows_62_and_63_a_call_on_the_list_is_made(calls: Callable[..., Any], name: str, asked: str) -> None:
    """Nothing but the list stands before these, or, for some, what this host allows everybody."""
    assert calls(asked) == [REFUSED]
    assert calls(asked, patch=lambda: listed(name)) != [REFUSED]


@ON_X86_64
@pytest.mark.parametrize(
    ("name", "asked", "capability"),
    [
        ("perf_event_open", "x86_64:298:@:0:-1:-1:0", "PERFMON"),
        ("mount", "x86_64:165:@none:@/tmp:@tmpfs:0:0", "SYS_ADMIN"),
        ("fsopen", "x86_64:430:@tmpfs:0", "SYS_ADMIN"),
        ("umount2", "x86_64:166:@/tmp:0", "SYS_ADMIN"),
    ],
)
def test_rows_62_and_63_where_a_capability_stands_behind_the_list(
    calls: Callable[..., Any], name: str, asked: str, capability: str
) -> None:
    """Each refuses without the other; the call is made when both are away."""
    refusals = ([REFUSED], [str(errno.EACCES)])
    assert calls(asked) == [REFUSED]
    assert calls(asked, patch=listed, cap_add=[capability]) == [REFUSED]
    assert calls(asked, patch=lambda: listed(name)) in refusals
    assert calls(asked, patch=lambda: listed(name), cap_add=[capability]) not in refusals


@ON_X86_64
def test_row_62_clone3_that_is_not_unknown_is_refused(calls: Callable[..., Any]) -> None:
    """Which the C library takes for an answer."""

    def patch() -> None:
        uncached()
        before = profiles.builtin

        def builtin(*arguments: Any, **rest: Any) -> Any:
            action, rules, archs = before(*arguments, **rest)
            return action, [rule for rule in rules if rule.names != ("clone3",)], archs

        profiles.builtin = builtin

    asked = "x86_64:435:@:88"
    assert calls(asked) == [str(errno.ENOSYS)]
    assert calls(asked, patch=patch) == [REFUSED]


@ON_X86_64
def test_row_64_without_its_rules_every_family_is_open(calls: Callable[..., Any]) -> None:
    """Comparing all 64 bits of the argument, as was done elsewhere, lets AF_ALG pass with a higher bit set."""
    plain, high = ("x86_64:41:38:5:0", f"x86_64:41:{38 | 1 << 32}:5:0")

    def naive() -> None:
        uncached()
        before = profiles.builtin

        def builtin(*arguments: Any, **rest: Any) -> Any:
            action, rules, archs = before(*arguments, **rest)
            above = seccomp.Rule(seccomp.ALLOW, ("socket",), (seccomp.Comparison(0, seccomp.GT, 40),))
            return action, [*rules, above], archs

        profiles.builtin = builtin

    def everything() -> None:
        uncached()
        seccomp_default.SOCKET_FAMILIES = ((0, 0),)

    assert calls(plain, high) == [REFUSED, REFUSED]
    assert calls(plain, high, patch=naive) == [REFUSED, *calls(high, patch=everything)]
    assert REFUSED not in calls(plain, high, patch=everything)


# Rows 60, 61 and 67


def test_row_60_without_its_option_the_cgroup_is_writable(minidock: Any) -> None:
    """Below the container's own group, which is all that it sees: what it makes there goes with it."""
    use = sh("for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/evil; rmdir $d/evil && echo made; done | sort -u")

    def patch() -> None:
        before = cgroup_steps.MountCgroups.execute

        def execute(step: Any, context: Any) -> None:
            before(step._replace(read_only=False), context)

        cgroup_steps.MountCgroups.execute = execute  # type: ignore[method-assign]

    assert "made" not in engine_apart(minidock.root, use)
    assert "made" in engine_apart(minidock.root, use, patch)


def test_row_60_without_its_namespace_the_cgroup_shows_the_hosts_tree(minidock: Any) -> None:
    use = output("busybox", "cat", "/proc/self/cgroup")

    def patch() -> None:
        cgroup_steps.LeaveCgroupNamespace.execute = lambda *_: None  # type: ignore[method-assign]
        plan.FLAGS = {**plan.FLAGS, "cgroup": 0}

    assert f"/{cgroups.PARENT}/" not in engine_apart(minidock.root, use)
    assert f"/{cgroups.PARENT}/" in engine_apart(minidock.root, use, patch)


@pytest.mark.parametrize("name", ["kernel.domainname", "net/../kernel/domainname"])
def test_row_61_without_grammar_and_list_any_parameter_is_written(minidock: Any, name: str) -> None:
    """This one is the container's own; all others are the host's."""
    use = sh("cat /proc/sys/kernel/domainname", sysctls={name: "evil"})

    def patch() -> None:
        if name.startswith("net/"):
            sysctls._PATH = re.compile(".*")
        else:
            sysctls._IPC = frozenset({name})

    assert "sysctl" in engine_apart(minidock.root, use)
    assert engine_apart(minidock.root, use, patch) == "evil\n"


def test_row_61_a_value_that_is_split_is_two_settings(minidock: Any) -> None:
    """CVE-2022-0811, as pinns had it: the value's "+" began another setting."""
    use = sh("cat /proc/sys/kernel/domainname", sysctls={"kernel.shm_rmid_forced": "1+kernel.domainname=evil"})

    def patch() -> None:
        before = process_steps.SetSysctls.execute

        def execute(step: Any, context: Any) -> None:
            texts = (text for name, value in step.values for text in f"{name}={value}".split("+"))
            before(step._replace(values=tuple(text.partition("=")[::2] for text in texts)), context)

        process_steps.SetSysctls.execute = execute  # type: ignore[method-assign]

    assert "evil\n" not in engine_apart(minidock.root, use)
    assert engine_apart(minidock.root, use, patch) == "evil\n"


def test_row_67_without_its_limit_a_container_has_any_number_of_processes(minidock: Any) -> None:
    use = sh("i=0; while [ $i -lt 60 ]; do sleep 5 & i=$((i+1)); done; echo all")

    def low() -> None:
        spec.Sandbox.__new__.__defaults__ = tuple(  # type: ignore[attr-defined]
            30 if value == 2048 else value for value in spec.Sandbox.__new__.__defaults__ or ()
        )

    def none() -> None:
        low()
        cgroups.Cgroup.set_pids_max = lambda *_: True  # type: ignore[method-assign]

    assert "fork" in engine_apart(minidock.root, use, low)
    assert engine_apart(minidock.root, use, none) == "all\n"


def test_row_67_without_its_size_dev_takes_all_memory(minidock: Any) -> None:
    use = sh("df -k /dev | tail -1 | awk '{print $2}'")

    def patch() -> None:
        before = km.new_mount

        def new_mount(fstype: str, data: Any = (), **rest: Any) -> int:
            return before(fstype, tuple(pair for pair in data if pair[0] != "size"), **rest)

        mount_steps.km = Standing(km, new_mount=new_mount)  # type: ignore[assignment]

    assert engine_apart(minidock.root, use) == "65536\n"
    assert int(engine_apart(minidock.root, use, patch)) > 65536
