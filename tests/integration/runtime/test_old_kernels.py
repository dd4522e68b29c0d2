"""Kernels before Linux 5.12 have no mount_setattr(2): the same walls by mount(2)."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from minidock.kernel import mount as km
from minidock.model.mounts import Mount
from minidock.model.spec import bind_mount


@pytest.fixture(autouse=True)
def old_kernel(monkeypatch) -> list[int]:
    """The child is forked from here and sees it too."""
    calls: list[int] = []

    def missing(fd: int, **_: object) -> None:
        calls.append(fd)
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(km, "mount_setattr", missing)
    return calls


def test_masks_and_read_only_paths(sandbox) -> None:
    assert sandbox.sh("wc -c < /proc/keys; ls /sys/firmware | wc -l").output.split() == ["0", "0"]
    for path in ("/proc/sys/kernel/domainname", "/proc/irq/default_smp_affinity", "/sys/fs/cgroup/x"):
        assert "Read-only file system" in sandbox.sh(f"echo x > {path}").output, path


def test_read_only_bind_holds_in_submounts_too(sandbox) -> None:
    def change(spec) -> None:
        spec["mounts"].append(bind_mount("/dev", "/m y", options=("rbind", "rprivate", "rro")))

    outcome = sandbox.sh("echo x > '/m y/f'; echo y > '/m y/shm/f'", change=change)
    assert outcome.output.count("Read-only file system") == 2


def test_a_remount_keeps_what_the_source_has(sandbox) -> None:
    def change(spec) -> None:
        spec["mounts"].append(bind_mount("/proc", "/p", options=("bind", "private", "ro")))

    expected = next(
        line.split()[5] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " /proc " in line
    )
    options = sandbox.sh("grep ' /p ' /proc/self/mountinfo", change=change).output.split()[5].split(",")
    assert set(options) == (set(expected.split(",")) - {"rw"}) | {"ro"}


def test_read_only_root(sandbox, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    outcome = sandbox.container("touch /x; touch /m/x && echo ok", Mount("volume", "v", "/m"), read_only=True)
    assert "Read-only file system" in outcome.output
    assert outcome.output.endswith("ok\n")
