"""Mount points made for a step's mounts leave no trace in its layer (SECURITY corpus, row 51, too)."""

from __future__ import annotations

import os
import shutil
from typing import Any

T0 = 1_500_000_000
STUBS = ("/proc", "/etc/resolv.conf", "/run/secrets/key", "/etc/hosts", "/")


def _base(root: str) -> None:
    os.mkdir(f"{root}/etc")
    open(f"{root}/etc/hosts", "w").close()
    os.mkdir(f"{root}/deep")
    for path in ("etc", "deep", ""):
        os.utime(f"{root}/{path}", (T0, T0))


def _make_stubs(root: str) -> None:
    """As the runtime makes them: directories keep their times."""
    before = {path: os.stat(path).st_mtime_ns for path in (root, f"{root}/etc")}
    os.mkdir(f"{root}/proc")
    os.makedirs(f"{root}/run/secrets")
    for path in ("run/secrets/key", "etc/resolv.conf"):
        open(f"{root}/{path}", "w").close()
    for path, mtime in before.items():
        os.utime(path, ns=(mtime, mtime))


def test_stubs_alone_make_no_layer(lab: Any) -> None:
    stack = lab.stack()
    stack.edit(_base)
    before = stack.view()
    packed = stack.edit(_make_stubs, stubs=STUBS)
    assert packed.empty
    assert stack.view() == before
    assert "etc/hosts" in before


def test_what_the_step_did_beside_them_stays(lab: Any) -> None:
    stack = lab.stack()
    stack.edit(_base)

    def edit(root: str) -> None:
        _make_stubs(root)
        open(f"{root}/etc/new", "w").close()
        with open(f"{root}/run/secrets/key", "w") as file:
            file.write("the step wrote here")
        os.mkdir(f"{root}/proc/inside")

    stack.edit(edit, stubs=STUBS)
    view = stack.view()
    assert {"etc/new", "run/secrets/key", "proc/inside"} <= set(view)
    assert "etc/resolv.conf" not in view
    assert view["etc"][3] > T0 * 10**9


def test_the_step_s_own_change_of_time_stays_however_soon_it_came(lab: Any) -> None:
    """What a layer holds may not depend on how fast the machine is."""
    stack = lab.stack()
    stack.edit(_base)

    def edit(root: str) -> None:
        _make_stubs(root)
        os.utime(f"{root}/etc")

    assert not stack.edit(edit, stubs=STUBS).empty
    assert stack.view()["etc"][3] > T0 * 10**9


def test_a_new_directory_keeps_the_time_of_what_was_made_in_it(lab: Any) -> None:
    """Nothing below says what time it should have; without layers beneath nothing says so of any."""
    stack = lab.stack()

    def edit(root: str) -> None:
        os.mkdir(f"{root}/mine")
        for name in ("kept", "stub"):
            open(f"{root}/mine/{name}", "w").close()

    for _ in range(2):
        assert not stack.edit(edit, stubs=("/mine/stub",)).empty
        view = stack.view()
        assert sorted(path for path in view if path) == ["mine", "mine/kept"]
        assert view["mine"][3] > T0 * 10**9
        stack.edit(lambda root: shutil.rmtree(f"{root}/mine"))


def test_no_link_leads_the_cleaner_out(lab: Any, tmp_path: Any) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("")
    stack = lab.stack()
    stack.edit(_base)

    def edit(root: str) -> None:
        os.symlink(str(outside), f"{root}/swapped")
        os.rmdir(f"{root}/deep")
        os.symlink("/", f"{root}/deep")

    stack.edit(edit, stubs=("/swapped/victim", "/deep/tmp", "/swapped", "/missing/x"))
    assert (outside / "victim").exists()
    assert stack.view()["swapped"][5] == str(outside)
