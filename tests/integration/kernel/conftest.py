"""What the tests of the kernel wrappers share: they need root, and most run in namespaces of their own."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from minidock.kernel import mount, namespaces, process

InNamespaces = Callable[..., Any]


@pytest.fixture(autouse=True)
def _root_only() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts and namespaces")


@pytest.fixture
def in_namespaces() -> InNamespaces:
    """``in_namespaces(function, flags)``: its result, as JSON, from a child with new namespaces.

    A mount namespace (always made) is private all the way. An assertion that fails there fails here.
    """

    def run(function: Callable[[], object], flags: int = 0) -> object:
        reader, writer = os.pipe2(os.O_CLOEXEC)

        def child() -> None:
            try:
                mount.mount("", "/", "", mount.MS_REC | mount.MS_PRIVATE)
                answer = [True, function()]
            except BaseException:
                answer = [False, traceback.format_exc()]
            os.write(writer, json.dumps(answer).encode())

        with process.spawn(child, flags=flags | namespaces.CLONE_NEWNS) as spawned, os.fdopen(reader, "rb") as stream:
            os.close(writer)
            data = stream.read()
            code = spawned.wait()
        assert data, f"the child ended with {code} and no answer"
        good, value = json.loads(data)
        assert good, value
        return value

    return run


@pytest.fixture
def mount_table() -> Iterator[None]:
    """Fails a test that leaves something in the mount namespace of the tests."""
    before = Path("/proc/self/mountinfo").read_text()
    yield
    assert Path("/proc/self/mountinfo").read_text() == before
