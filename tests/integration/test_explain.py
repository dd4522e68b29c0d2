"""``explain run`` says beforehand what ``--debug run`` says as it happens, and does nothing."""

from __future__ import annotations

import re
from pathlib import Path

PLACEHOLDERS = (
    (r"\b[0-9a-f]{64}\b(?=-|/|:|$| |\.)", "<ID>"),
    (r"veth \S+ on", "veth <LINK> on"),
    (r"eth0 [0-9a-f]{2}(:[0-9a-f]{2}){5}", "eth0 <MAC>"),
    (r"with \d+\.\d+\.\d+\.\d+/", "with <ADDRESS>/"),
    (r"default via \d+\.\d+\.\d+\.\d+", "default via <GATEWAY>"),
    (r"hostname [0-9a-f]{12}\b", "hostname <ID>"),
)


def normal(text: str, layers: set[str]) -> str:
    for layer in layers:
        text = text.replace(layer, "<LAYER>")
    for pattern, replacement in PLACEHOLDERS:
        text = re.sub(pattern, replacement, text)
    return text


def contents(root: Path) -> list[tuple[str, int]]:
    """Every path of the data root but its seccomp cache, with its time of change."""
    return sorted((str(path), path.lstat().st_mtime_ns) for path in root.rglob("*") if "cache" not in path.parts)


def test_explain_equals_debug(minidock) -> None:
    minidock("volume", "create", "data")
    minidock("run", "--rm", "busybox", "true")
    layers = {path.name for path in (minidock.root / "layers/overlay2").iterdir()}
    flags = ["-v", "data:/d", "-u", "1000", "-w", "/tmp", "--cap-drop", "MKNOD", "busybox", "id"]
    explained = minidock("explain", "run", "--rm", *flags).stdout.splitlines()
    debug = minidock("--debug", "run", "--rm", *flags).stderr.splitlines()
    said = [normal(line.split("  ")[-1].strip(), layers) for line in explained]
    done = [normal(line, layers) for line in debug]
    assert len(said) > 20
    assert said == done


def test_explain_does_nothing(minidock) -> None:
    minidock("run", "--rm", "busybox", "true")
    before = contents(minidock.root)
    minidock("explain", "run", "-v", "new:/d", "--name", "one", "busybox", "true")
    assert contents(minidock.root) == before


def test_explain_refuses_what_run_refuses(minidock) -> None:
    assert "absent" in minidock("explain", "run", "--mount", "src=absent,dst=/d", "busybox", "true", status=125).stderr
