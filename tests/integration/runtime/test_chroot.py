"""An engine that runs in a chroot: the namespace's own root must be left, too, not only the engine's."""

from __future__ import annotations

import os
from pathlib import Path

from minidock.kernel import mount as km
from minidock.kernel import namespaces as ns
from minidock.kernel import process as kp
from minidock.kernel.root import pivot_into


def test_who_joins_the_namespace_stands_in_the_new_root(tmp_path: Path) -> None:
    host, inside = tmp_path / "host", tmp_path / "host/inside"
    inside.mkdir(parents=True)
    (host / "proc").mkdir()
    (inside / "mark").touch()
    read, write = os.pipe2(os.O_CLOEXEC)

    def enter() -> int:
        km.mount("none", "/", "", km.MS_REC | km.MS_PRIVATE)
        km.mount(str(host), str(host), "", km.MS_BIND)
        km.mount("proc", str(host / "proc"), "proc", 0)
        os.chroot(host)
        os.chdir("/")
        root = km.open_tree("/inside")
        km.move_mount(root, "/inside")
        pivot_into(root)
        # What a process that joins would see: joining resets the root to the namespace's.
        found = sorted(os.listdir("/"))
        os.write(write, f"{found}\n".encode())
        os.close(write)
        os.close(stay_write)
        os.read(stay_read, 1)
        return 0

    stay_read, stay_write = os.pipe2(os.O_CLOEXEC)
    with kp.spawn(enter, flags=ns.CLONE_NEWNS) as child:
        os.close(write)
        assert os.read(read, 100) == b"['mark']\n"

        def join() -> int:
            ns.setns(child.pidfd, ns.CLONE_NEWNS)
            return 0 if os.listdir("/") == ["mark"] else 1

        with kp.spawn(join) as joiner:
            assert joiner.wait() == 0
        os.close(stay_write)
        os.close(stay_read)
        child.wait()
    os.close(read)
