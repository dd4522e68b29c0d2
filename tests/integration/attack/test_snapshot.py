"""The sandbox snapshot: a default container beside docker's, each difference listed with its reason.

``snapshot/docker.json`` is what docker's was on one kernel. Where that version of docker is installed it is taken anew,
and ``--record-snapshot`` writes it down; ``snapshot/differences.toml`` is the list.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.integration.attack.snapshot.compare import Comparison, Difference, as_of_this_kernel, compare, load
from tests.integration.attack.snapshot.facts import Facts, Recording, calls, differing, expand, read

if os.uname().machine != "x86_64":
    pytest.skip("the program that takes the snapshot calls as x86_64 does", allow_module_level=True)

HERE = Path(__file__).resolve().parent / "snapshot"
RECORDING = HERE / "docker.json"
DIFFERENCES = HERE / "differences.toml"
DOCKER_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
CGROUPS = Path("/sys/fs/cgroup")
RAISED = (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
# Every call is a process; an emulated processor needs minutes for what another does in seconds.
SECONDS = 900

Take = Callable[..., Facts]


def release() -> str:
    """The running kernel's, without what its distribution adds: "6.18"."""
    return ".".join(os.uname().release.split(".")[:2])


def conditions(recording: Recording, unconfined: Facts) -> frozenset[str]:
    found = {"cgroup v2" if (CGROUPS / "cgroup.controllers").exists() else "cgroup v1"}
    if recording.kernel == release() and recording.unconfined == unconfined:
        found.add("recorded kernel")
    return frozenset(found)


def watchdogs() -> list[str]:
    """The numbers of devices that reset the machine some time after they are opened."""
    return sorted({path.read_text().strip() for path in Path("/sys/class/watchdog").glob("*/dev")})


@pytest.fixture
def limits() -> Iterator[dict[str, tuple[int, int]]]:
    """Resource limits of the caller that no default equals: what a sandbox sets is then told from what it inherits."""
    kept = {number: resource.getrlimit(number) for number in (*RAISED, resource.RLIMIT_CORE)}
    for number in RAISED:
        resource.setrlimit(number, (kept[number][1], kept[number][1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, kept[resource.RLIMIT_CORE][1]))
    try:
        names = (name for name in dir(resource) if name.startswith("RLIMIT_"))
        yield {name.removeprefix("RLIMIT_").lower(): resource.getrlimit(getattr(resource, name)) for name in names}
    finally:
        for number, pair in kept.items():
            resource.setrlimit(number, pair)


@pytest.fixture
def image(build_static, tmp_path: Path) -> Path:
    """An archive of a root file system that holds the program and nothing else."""
    tree = tmp_path / "tree"
    for name in ("dev", "etc", "proc", "sys"):
        (tree / name).mkdir(parents=True)
    shutil.copy(build_static("snapshot"), tree / "snapshot")
    archive = tmp_path / "image.tar"
    subprocess.run(["tar", "--numeric-owner", "-C", tree, "-cf", archive, "."], check=True)
    return archive


@pytest.fixture(scope="module")
def unconfined(build_static) -> Facts:
    """What the running kernel answers to every call without a filter."""
    command = [build_static("snapshot"), "unconfined"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    facts = read(done.stdout, {})
    assert (facts["status CapBnd"], facts["status Seccomp"]) == ("0" * 16, "0")
    return calls(facts)


@pytest.fixture(scope="module", autouse=True)
def modules() -> None:
    """The kernel's module for /dev/net/tun, which docker lets its container open, is there before any test looks."""
    if shutil.which("dockerd", path=DOCKER_PATH) and shutil.which("modprobe"):
        subprocess.run(["modprobe", "--quiet", "tun"], check=False)


@pytest.fixture
def take(minidock, image: Path, limits) -> Take:
    """Take minidock's snapshot, with further flags of ``run``."""
    minidock("import", image, "snapshot")

    def run(*flags: str) -> Facts:
        command = ("run", "--rm", "--network", "none", *flags, "snapshot", "/snapshot", "inside", *watchdogs())
        return read(minidock.out(*command, timeout=SECONDS), limits)

    return run


def live_docker(image: Path, folder: Path, limits: dict[str, tuple[int, int]]) -> tuple[str, Facts]:
    """Docker's version and snapshot; skips the test where docker is not installed."""
    for name in ("dockerd", "docker"):
        if not shutil.which(name, path=DOCKER_PATH):
            pytest.skip(f"docker is not installed: there is no {name}")
    folder.mkdir()
    shutil.copy(image, folder / "image.tar")
    group = f"minidock-snapshot-{os.getpid()}"
    apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [*apart, HERE / "docker.sh", folder, group, *watchdogs()]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS)
    finally:
        for path in (CGROUPS, *CGROUPS.iterdir()):
            with suppress(FileNotFoundError, NotADirectoryError):
                remove_groups(path / group)
    log = folder / "dockerd.log"
    assert done.returncode == 0, f"{done.stderr}\n{log.read_text() if log.exists() else ''}"
    return (folder / "version").read_text().strip(), read((folder / "snapshot").read_text(), limits)


def remove_groups(group: Path) -> None:
    for child in group.iterdir():
        if child.is_dir():
            remove_groups(child)
    group.rmdir()


def compared(mine: Facts, unconfined: Facts) -> Comparison:
    recording = Recording.load(RECORDING)
    here = conditions(recording, unconfined)
    docker = as_of_this_kernel(recording, unified="cgroup v2" in here)
    return compare(mine, docker, unconfined, load(DIFFERENCES), conditions=here)


def test_every_difference_from_dockers_sandbox_has_its_reason(take: Take, unconfined: Facts) -> None:
    found = compared(take(), unconfined)
    assert not found.unlisted, "\n".join(("without a reason:", *found.unlisted))
    assert not found.gone, "\n".join(("listed, and no difference any more:", *found.gone))


def test_docker_is_as_it_was_recorded(
    image: Path, tmp_path: Path, limits, unconfined: Facts, request: pytest.FixtureRequest
) -> None:
    version, facts = live_docker(image, tmp_path / "docker", limits)
    if request.config.getoption("--record-snapshot"):
        Recording(release(), version, unconfined, facts).store(RECORDING)
    recording = Recording.load(RECORDING)
    if version != recording.docker:
        pytest.skip(f"docker is {version} here, and {recording.docker} was recorded: --record-snapshot")
    here = conditions(recording, unconfined)
    docker = as_of_this_kernel(recording, unified="cgroup v2" in here)
    found = compare(facts, docker, unconfined, [], conditions=here)
    assert not found.unlisted, "\n".join(("'minidock' is docker as it is here:", *found.unlisted))


@pytest.mark.parametrize(
    ("flags", "seen"),
    [
        (("--security-opt", "seccomp=unconfined"), ["status Seccomp", "call x86_64:165", "call i386:21"]),
        (("--security-opt", "systempaths=unconfined"), ["mount /proc/sys", "mount /proc/keys"]),
        (("--device-cgroup-rule", "c 1:6 rw"), ["device c 1:6"]),
        (("--cap-add", "SYS_TIME"), ["status CapEff", "call x86_64:227"]),
    ],
    ids=["filter", "masks", "devices", "capabilities"],
)
def test_a_wall_that_is_down_is_seen(take: Take, unconfined: Facts, flags: tuple[str, ...], seen: list[str]) -> None:
    found = {text.partition(": minidock")[0] for text in compared(take(*flags), unconfined).unlisted}
    assert set(seen) <= found


def test_a_recording_is_read_as_it_was_written(tmp_path: Path) -> None:
    recording = Recording.load(RECORDING)
    recording.store(tmp_path / "copy.json")
    assert (tmp_path / "copy.json").read_text() == RECORDING.read_text()
    assert differing(Recording.load(tmp_path / "copy.json").facts, recording.facts) == []


ALLOWED, REFUSED, UNKNOWN = "EFAULT EFAULT", "EPERM EPERM", "ENOSYS ENOSYS"
HERE_AND_THERE = frozenset({"recorded kernel", "cgroup v1"})


@pytest.mark.parametrize(
    ("mine", "docker", "now", "then", "fine"),
    [
        (REFUSED, REFUSED, ALLOWED, ALLOWED, True),
        (ALLOWED, REFUSED, ALLOWED, ALLOWED, False),
        (REFUSED, ALLOWED, ALLOWED, ALLOWED, False),
        (UNKNOWN, ALLOWED, UNKNOWN, ALLOWED, True),
        ("EINVAL ok", ALLOWED, "EINVAL ok", ALLOWED, True),
        ("EINVAL ok", REFUSED, "EINVAL ok", ALLOWED, False),
        (ALLOWED, UNKNOWN, ALLOWED, UNKNOWN, False),
        (REFUSED, UNKNOWN, ALLOWED, UNKNOWN, True),
    ],
)
def test_what_the_kernel_explains(mine: str, docker: str, now: str, then: str, fine: bool) -> None:
    key = "call x86_64:1"
    recording = Recording("6.18", "20.10", {key: then}, {key: docker})
    found = compare({key: mine}, recording, {key: now}, [], conditions=HERE_AND_THERE)
    assert found == ([] if fine else [f"{key}: minidock {mine}, docker {docker}"], [])


@pytest.mark.parametrize(
    ("minidock", "docker", "further", "unlisted", "gone"),
    [
        ("kernel", REFUSED, (), 0, 0),
        (ALLOWED, REFUSED, ("cgroup v1",), 0, 0),
        ("kernel", UNKNOWN, (), 1, 0),
        (REFUSED, "kernel", (), 1, 0),
        (ALLOWED, REFUSED, ("cgroup v2",), 1, 0),
        (None, REFUSED, (), 0, 1),
        (None, REFUSED, ("", True), 0, 0),
    ],
    ids=["listed", "here", "docker is another", "minidock is another", "elsewhere", "gone", "optional"],
)
def test_what_is_listed(minidock: str | None, docker: str, further: Any, unlisted: int, gone: int) -> None:
    keys = tuple(expand("call x86_64,i386:1-2"))
    listed = [Difference(keys, minidock or ALLOWED, docker, "it is so", *further)]
    mine = dict.fromkeys(keys, ALLOWED if minidock else REFUSED)
    recording = Recording("6.18", "20.10", dict.fromkeys(keys, ALLOWED), dict.fromkeys(keys, REFUSED))
    found = compare(mine, recording, dict.fromkeys(keys, ALLOWED), listed, conditions=HERE_AND_THERE)
    assert (len(found.unlisted), len(found.gone)) == (4 * unlisted, 4 * gone)
