from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from minidock.engine import info, limits
from minidock.engine.engine import Engine
from minidock.engine.overlay_probe import probe_overlay, supports_d_type
from minidock.errors import HostError
from minidock.kernel.cgroups import Layout

ORDER = (
    "Containers ContainersRunning ContainersPaused ContainersStopped Images ServerVersion Driver DriverStatus "
    "LoggingDriver Plugins CgroupDriver CgroupVersion Runtimes DefaultRuntime InitBinary SecurityOptions KernelVersion "
    "OperatingSystem OSType Architecture NCPU MemTotal Name ID DockerRootDir Debug Warnings"
)


def test_info_has_every_field_in_order(engine: Engine) -> None:
    found = info.info(engine)
    assert [key for key in found if key in ORDER.split()] == ORDER.split()
    assert found["Driver"] == "overlay2"
    status = dict(found["DriverStatus"])
    assert list(status) == [
        "Backing Filesystem",
        "Supports d_type",
        "Using metacopy",
        "Native Overlay Diff",
        "userxattr",
        "Layers",
    ]
    assert status["Supports d_type"] == "true"
    assert status["Using metacopy"] == "false"
    assert status["Native Overlay Diff"] == "true"
    assert found["DockerRootDir"] == engine.root.path
    assert found["KernelVersion"] == os.uname().release
    assert found["NCPU"] == len(os.sched_getaffinity(0))
    assert f"MemTotal:{found['MemTotal'] // 1024:>15} kB" in Path("/proc/meminfo").read_text()
    assert found["CgroupVersion"] in {"1", "2", ""}
    assert found["SecurityOptions"][0] == "name=seccomp,profile=builtin"
    assert all(warning.startswith("WARNING: ") for warning in found["Warnings"])
    assert found["RootFree"] > 0
    assert os.listdir(engine.root.tmp) == []
    json.dumps(found)


def test_the_id_stays(engine: Engine) -> None:
    first = info.info(engine)["ID"]
    assert len(first.split("-")) == 5
    assert info.info(engine)["ID"] == first
    Path(engine.root.path, "id").unlink()
    os.mkdir(f"{engine.root.path}/id")
    assert info.info(engine)["ID"] == ""


def test_vfs_has_no_overlay(engine: Engine) -> None:
    engine.driver = "vfs"
    found = info.info(engine)
    assert found["Driver"] == "vfs"
    assert [label for label, _ in found["DriverStatus"]] == ["Backing Filesystem", "Supports d_type", "Layers"]


def test_a_host_without_overlayfs_says_so(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    from minidock.engine import overlay_probe

    def refuse(directory: str) -> None:
        raise OSError(19, "No such device")

    engine.driver = "vfs"
    monkeypatch.setattr(overlay_probe, "probe_overlay", refuse)
    monkeypatch.setattr(overlay_probe, "supports_d_type", lambda _: False)
    pairs = info._driver_status(engine.root, "overlay2")
    assert ("Native Overlay Diff", "unknown: No such device") in pairs
    assert any("does not support d_type" in warning for warning in info.info(engine)["Warnings"])


def test_the_probe_sees_what_the_kernel_does(tmp_path: Path) -> None:
    found = probe_overlay(str(tmp_path))
    assert found == (True, False, False)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert supports_d_type(str(tmp_path))


def test_the_environments_proxies_are_shown_without_credentials(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://user:secret@proxy.example:3128")
    monkeypatch.setenv("HTTPS_PROXY", "user@proxy.example")
    monkeypatch.setenv("no_proxy", "a,b")
    monkeypatch.delenv("https_proxy", raising=False)
    found = info.info(engine)
    assert found["HttpProxy"] == "http://xxxxx:xxxxx@proxy.example:3128"
    assert found["HttpsProxy"] == "xxxxx:xxxxx@proxy.example"
    assert found["NoProxy"] == "a,b"
    assert info.mask_credentials("http://proxy.example/@x") == "http://proxy.example/@x"


def test_no_init_program(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise HostError("none")

    monkeypatch.setattr(info.launching, "find_init", refuse)
    monkeypatch.setattr(info, "_text", lambda _: "")
    found = info.info(engine)
    assert (found["InitBinary"], found["MemTotal"]) == ("", 0)


def test_limits_of_version_1(tmp_path: Path) -> None:
    for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
        (tmp_path / name).write_text("")
    layout = Layout({"memory": str(tmp_path), "pids": str(tmp_path)}, "")
    found = limits.find_limits(layout)
    assert (found.MemoryLimit, found.SwapLimit, found.PidsLimit) == (True, True, True)
    assert not found.CPUShares
    said = limits.warnings(layout, found, ip_forward=str(tmp_path / "absent"))
    assert "No cpuset support" in said
    assert "No blkio weight support" in said
    assert any("cgroup v1" in warning for warning in said)
    assert "No memory limit support" not in said


def test_limits_of_version_2(tmp_path: Path) -> None:
    child = tmp_path / "system.slice"
    child.mkdir()
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    (child / "cgroup.controllers").write_text("io memory\n")
    for name in ("memory.max", "io.max"):
        (child / name).write_text("")
    layout = Layout({}, str(tmp_path))
    found = limits.find_limits(layout)
    assert (found.MemoryLimit, found.SwapLimit) == (True, False)
    assert (found.BlkioWeight, found.BlkioThrottle) == (False, True)
    assert (found.CpuCfsQuota, found.CPUSet) == (True, False)
    (tmp_path / "forward").write_text("0\n")
    said = limits.warnings(layout, found, ip_forward=str(tmp_path / "forward"))
    assert "No swap limit support" in said
    assert "No io.weight support" in said
    assert any("IPv4 forwarding" in warning for warning in said)
    assert not any("cgroup v1" in warning for warning in said)


def test_a_host_without_cgroups(tmp_path: Path) -> None:
    layout = Layout({}, "")
    said = limits.warnings(layout, limits.find_limits(layout), ip_forward=str(tmp_path / "absent"))
    assert said[0].startswith("No cgroups are mounted")
    assert "No memory limit support" not in said
