"""A virtual machine with Debian's own kernel and cgroup version 2 alone, which runs a part of this suite.

The root file system is made once by mmdebstrap and kept; the repository and its virtual environment are a second disk,
mounted at the path that they have here; the third disk is a tar archive that the guest writes.
"""

from __future__ import annotations

import compileall
import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path("/var/cache/minidock-tests")
SUITE = "bookworm"
KERNEL = "linux-image-cloud-amd64"
PACKAGES = (
    "python3,libseccomp2,libnftables1,nftables,libcap2,busybox-static,kmod,iproute2,procps,tini,gcc,libc6-dev,attr,acl"
)
LEFT_OUT = ("doc", "man", "locale", "info")

# The kernel hands what it does not know on its command line to the first process as environment, and starts it as
# soon as the first disk is there.
STUB = """\
#!/bin/sh
mount -t devtmpfs devtmpfs /dev
until [ -b /dev/nvme0n3 ]; do sleep 0.05; done
mkdir -p "$minidock_repository"
mount -t ext4 /dev/nvme0n2 "$minidock_repository"
cd "$minidock_repository"
exec tests/vm/init
"""
# The kernel's package is unpacked and not installed: it would bring an initial RAM disk, which this machine does not
# need, as NVMe and ext4 are built in.
KERNEL_HOOK = f"""\
set -eu
cd "$1/tmp"
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
apt-get download "$(apt-cache depends {KERNEL} | sed -n 's/.*Depends: //p')"
dpkg-deb -x linux-image-*.deb kernel
cp -a kernel/lib/modules "$1/usr/lib/"
cp kernel/boot/vmlinuz-* "$1/vmlinuz"
chroot "$1" depmod "$(ls kernel/lib/modules)"
rm -r kernel linux-image-*.deb
"""
# What the guest has no use for: of the repository, and of the virtual environment, where the static checks are large.
NO_SOURCE = (".git", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis")
NO_TESTS = ("mypy*", "*__mypyc*", "ruff*", "ast_serialize*", "librt*", "pip*")
# The guest's python of bookworm is 3.11, and the virtual environment is this machine's.
PYTHON = (3, 11)
# What the guest tests. A path that does not exist is a failure.
SELECTION = (
    "tests/vm/inside.py",
    "tests/integration/test_story.py",
    "tests/integration/test_mounts.py",
    "tests/integration/test_traces.py",
    "tests/integration/test_death.py",
    "tests/integration/test_probes.py",
    "tests/integration/test_cgroups.py",
    "tests/integration/build",
    "tests/integration/test_seccomp.py",
    "tests/integration/attack/test_snapshot.py",
    "tests/integration/kernel",
    "tests/integration/runtime",
    "tests/conformance",
)
# Everything that the emulator knows but what makes each access to memory dearer.
CPU = "max,-la57,-smap,-smep"
# On a machine with two free processors it takes a third of this.
GUEST_SECONDS = 2400
BOOT_SECONDS = 120


class Base(NamedTuple):
    """What is kept between runs: a kernel and a root file system."""

    kernel: Path
    disk: Path


class Case(NamedTuple):
    """One test that ran in the guest. ``outcome`` is passed, failed, error or skipped; ``text`` is why."""

    path: str
    name: str
    outcome: str
    text: str


class Report(NamedTuple):
    """What the guest did: its tests, and all that it wrote on its console."""

    cases: tuple[Case, ...]
    console: str
    status: str

    def under(self, path: str) -> list[Case]:
        """The tests of one file or folder."""
        return [case for case in self.cases if case.path == path or case.path.startswith(path + "/")]


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"


def make_disk(disk: Path, folder: Path, size: str) -> None:
    """An ext4 file system with the content of ``folder``, sparse, without a loop device."""
    run("mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1,root_owner=0:0", "-d", folder, disk, size)


def base_command(tree: Path | str) -> list[str]:
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={PACKAGES}"]
    command += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
    command.append(f"--customize-hook={KERNEL_HOOK}")
    return [*command, SUITE, str(tree)]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """The kernel and the root file system, made once for each list of packages."""
    key = hashlib.sha256("\0".join([*base_command(""), STUB]).encode()).hexdigest()[:12]
    made = Base(CACHE / f"vm-{key}.vmlinuz", CACHE / f"vm-{key}.ext4")
    if made.disk.exists():
        return made
    CACHE.mkdir(parents=True, exist_ok=True)
    tree = tmp_path_factory.mktemp("vm") / "tree"
    run(*base_command(tree))
    (tree / "vmlinuz").rename(tree.parent / "vmlinuz")
    shutil.move(tree.parent / "vmlinuz", made.kernel)
    stub = tree / "usr/sbin/vm-init"
    stub.write_text(STUB)
    stub.chmod(0o755)
    part = made.disk.with_suffix(".part")
    part.unlink(missing_ok=True)
    make_disk(part, tree, "6G")
    part.rename(made.disk)
    shutil.rmtree(tree)
    return made


def copy_repository(target: Path, selection: list[str]) -> None:
    """The sources and the virtual environment, compiled, and the list of what the guest shall test."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        patterns = NO_TESTS if folder.endswith("/site-packages") else NO_SOURCE
        return {name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}

    shutil.copytree(ROOT, target, symlinks=True, ignore=left_out)
    compileall.compile_dir(target, quiet=2, stripdir=str(target), prependdir=str(ROOT))
    (target / "tests/vm/selection").write_text("\n".join(selection) + "\n")


def qemu_command(base: Base, sources: Path, results: Path) -> list[str]:
    command = (
        f"qemu-system-x86_64 -accel tcg,thread=multi -cpu {CPU} -smp 2 -m 2048 -nodefaults -no-reboot -display none"
    )
    disks = ["-device", "nvme,id=disks,serial=minidock"]
    for number, (path, snapshot) in enumerate(((base.disk, "on"), (sources, "off"), (results, "off")), 1):
        disks += ["-drive", f"file={path},if=none,id=d{number},format=raw,cache=unsafe,snapshot={snapshot}"]
        disks += ["-device", f"nvme-ns,drive=d{number},bus=disks,nsid={number}"]
    line = (
        "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off random.trust_cpu=on root=/dev/nvme0n1 rw "
        f"init=/usr/sbin/vm-init minidock_repository={ROOT} minidock_seconds={GUEST_SECONDS}"
    )
    return [*command.split(), "-serial", "stdio", "-kernel", str(base.kernel), "-append", line, *disks]


def boot(command: list[str], console: Path) -> None:
    """Run the machine until it powers itself off, or the time is over. Its console goes to a file."""
    with (
        console.open("wb") as output,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT) as machine,
    ):
        try:
            machine.wait(GUEST_SECONDS + BOOT_SECONDS)
        except subprocess.TimeoutExpired:
            machine.kill()


def read_cases(junit: bytes) -> list[Case]:
    cases = []
    for element in ET.fromstring(junit).iter("testcase"):
        problem = next((child for child in element if child.tag in {"failure", "error", "skipped"}), None)
        outcome, text = "passed", ""
        if problem is not None:
            outcome = {"failure": "failed"}.get(problem.tag, problem.tag)
            text = "\n".join(filter(None, (problem.get("message"), problem.text)))
        cases.append(Case(element.get("file") or "", element.get("name") or "", outcome, text))
    return cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "guest_path" in metafunc.fixturenames:
        metafunc.parametrize("guest_path", SELECTION)


@pytest.fixture(scope="session")
def report(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """One run of the machine over the selected tests that exist; ``test_vm.py`` fails for those that do not."""
    assert Path(sys.prefix) == ROOT / ".venv", (
        "the guest uses the virtual environment that tests/run makes: tests/run --vm"
    )
    assert sys.version_info[:2] == PYTHON, f"the guest's Python is 3.11, and {sys.executable} is another version"
    folder = tmp_path_factory.mktemp("vm")
    sources, results, console = folder / "sources.ext4", folder / "results.tar", folder / "console"
    copy_repository(folder / "sources", [path for path in SELECTION if (ROOT / path).exists()])
    make_disk(sources, folder / "sources", "512M")
    results.touch()
    os.truncate(results, 64 << 20)
    boot(qemu_command(base, sources, results), console)
    shutil.rmtree(folder / "sources")
    sources.unlink()
    written: dict[str, bytes] = {}
    with suppress(tarfile.ReadError), tarfile.open(results) as tar:
        written = {item.name: file.read() for item in tar if (file := tar.extractfile(item))}
    cases = read_cases(written.get("./junit.xml", b"<testsuites/>"))
    text = console.read_text(errors="replace").replace("\r", "")
    return Report(tuple(cases), text, written.get("./status", b"it did not reach its end").decode().strip())
