"""What a failed step leaves, over stand-ins: what is kept, what of it is left out, and what the error carries."""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext
from typing import Any

import pytest

from minidock.build.builder import build
from minidock.build.executors.run import _Tail
from minidock.build.failures import advice
from minidock.build.request import BuildRequest, RunSettings
from minidock.errors import BuildError, ContainerStartError, StoreError
from minidock.model.build_flags import parse_secret
from minidock.store.failed_steps import FailedSteps

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="COPY makes files root's; without root that is refused")
HINT = "look around where it failed: minidock run -it --rm FAILED"


class Wrecker:
    """A RUN that writes and then fails, and remembers the shells that were opened."""

    def __init__(self, spy: Any, *, start: str = "") -> None:
        self.spy, self.start_error, self.shells = spy, start, []

    def start(self) -> None:
        return

    def __call__(self, **how: Any) -> Any:
        if how.pop("terminal", False):
            self.shells.append(how)
            if self.start_error:
                raise ContainerStartError(self.start_error)
            return self.spy.run(**{**how, "args": ("sh", "write /looked L")})
        ended = self.spy.run(**how)
        word = how["args"][-1]
        return ended._replace(status=7) if word.startswith(("write /broken", "say", "stub")) else ended


def fail(
    shop: Any, text: str, run: Wrecker | None = None, *, before_shell: Any = None, settings: Any = None, **options: Any
) -> BuildError:
    """Build what fails; the error."""
    with pytest.raises(BuildError) as caught:
        build(
            BuildRequest(
                str(shop.context), text=text, run=settings or RunSettings(), **{"keep_failed": True, **options}
            ),
            root=shop.root,
            images=shop.images,
            rootfs=shop.rootfs,
            open_run=lambda: nullcontext(run or Wrecker(shop.spy)),
            pull=shop.pull,
            progress=shop.spy,
            before_shell=before_shell,
        )
    return caught.value


def test_what_a_run_had_written_is_kept_with_its_surroundings(shop: Any) -> None:
    shop.base("base", {"a": "A"}, Entrypoint=["e"], Cmd=["c"], Volumes={"/v": {}}, Env=["X=0"])
    error = fail(
        shop,
        'FROM base\nARG V=1\nENV X=1 Y=2\nUSER 7\nWORKDIR /w\nRUN write /done D\nSHELL ["/bin/ash", "-c"]\n'
        "RUN write /broken B\nENV X=9\nUSER 8\nRUN never\nCMD z\n",
    )
    assert error.kept.startswith("FAILED:")
    assert error.hint == f"{advice(7)}\n{HINT}"
    image = shop.images.get(error.kept)
    assert shop.images.get("FAILED").id == image.id
    assert shop.files(image) == {"a": "A", "done": "D", "broken": "B"}
    config = image.config.config
    assert dict(text.split("=", 1) for text in config.pop("Env")).items() >= {"X": "1", "Y": "2", "V": "1"}.items()
    assert config == {"User": "7", "WorkingDir": "/w", "Shell": ["/bin/ash", "-c"], "Cmd": ["/bin/ash"]}
    assert [line.created_by for line in image.config.history][-3:] == [
        "RUN |1 V=1 /bin/sh -c write /done D # buildkit",
        "SHELL [/bin/ash -c]",
        "RUN |1 V=1 /bin/ash -c write /broken B # buildkit",
    ]
    assert image.config.history[-1].comment == "failed"
    assert shop.files(shop.images.get("FAILED~1")) == {"a": "A", "done": "D"}
    assert shop.images.list()[0].names == ("docker.io/library/base:latest",), "there is no other image"


def test_it_is_told_once(shop: Any) -> None:
    fail(shop, "FROM scratch\nRUN write /broken B\n")
    ends = [line for line in shop.spy.lines if line.startswith(("error ", "canceled "))]
    assert ends == [
        'error [1/1] RUN write /broken B: process "/bin/sh -c write /broken B" did not complete successfully: '
        "exit code: 7"
    ]


def test_the_same_failure_is_the_same(shop: Any) -> None:
    text = "FROM scratch\nRUN write /broken B\n"
    assert fail(shop, text).kept == fail(shop, text).kept
    assert len(FailedSteps(shop.root).list()) == 1


def test_nothing_is_kept_that_is_not_asked_for_or_not_there(shop: Any) -> None:
    assert fail(shop, "FROM scratch\nRUN write /broken B\n", keep_failed=False).kept == ""
    error = fail(shop, "FROM scratch\nCOPY nothing /\n")
    assert (error.kept, error.status, error.output) == ("", 0, "")
    assert FailedSteps(shop.root).list() == []


def test_other_steps_leave_what_they_stood_on(shop: Any) -> None:
    shop.base("base", {"a": "A"}, User="root")
    error = fail(shop, "FROM base\nENV X=1\nRUN write /b B\nUSER 7\nCOPY nothing /\nUSER 8\nENV X=2\n")
    assert error.hint.endswith(HINT)
    image = shop.images.get(error.kept)
    assert shop.files(image) == {"a": "A", "b": "B"}
    assert image.config.config["User"] == "7"
    assert "X=1" in image.config.config["Env"]
    assert image.config.config["Cmd"] == ["/bin/sh"]
    assert image.config.history[-1].empty_layer
    assert image.config.history[1].created == "2020-01-01T00:00:00Z", "the base's time"
    assert not FailedSteps(shop.root).find("FAILED").wrote


def test_stages_beneath_are_told(shop: Any) -> None:
    shop.base("base", {"a": "A"})
    fail(shop, "FROM base AS one\nRUN write /b B\nFROM one\nENV X=1\nRUN write /broken C\n")
    image = shop.images.get("FAILED")
    assert [line.created_by for line in image.config.history] == [
        "import",
        "RUN /bin/sh -c write /b B # buildkit",
        "ENV X=1",
        "RUN /bin/sh -c write /broken C # buildkit",
    ]
    assert len(image.config.diff_ids) == 3
    shop.images.commit(image.config, image.manifest.layers, names=["kept"])


def test_mount_points_are_taken_away(shop: Any) -> None:
    shop.base("base", {"a": "A"})
    fail(shop, "FROM base\nRUN stub /point\n")
    assert shop.files(shop.images.get("FAILED")) == {"a": "A"}


def test_what_had_a_secret_keeps_nothing_that_it_wrote(shop: Any) -> None:
    shop.base("base", {"a": "A"})
    (shop.context / "s").write_text("hush")
    settings = RunSettings(secrets=(parse_secret(f"id=s,src={shop.context}/s"),))
    text = "FROM base\nRUN --mount=type=secret,id=s write /broken hush\n"
    error = fail(shop, text, settings=settings)
    assert error.hint.endswith(
        "look around where it failed, without what it wrote, since it had a secret: minidock run -it --rm FAILED"
    )
    assert shop.files(shop.images.get(error.kept)) == {"a": "A"}


def test_the_error_carries_what_the_command_said(shop: Any) -> None:
    error = fail(shop, "FROM scratch\nRUN say it is broken\n")
    assert (error.status, error.output) == (7, "it is broken\n")


def test_of_long_output_the_last_whole_lines_are_carried() -> None:
    passed: list[bytes] = []
    tail = _Tail(passed.append)
    for number in range(2000):
        tail.output(b"line %d\n" % number)
    lines = tail.text().splitlines()
    assert len(passed) == 2000
    assert lines[-1] == "line 1999"
    assert lines[0] == f"line {2000 - len(lines)}"
    assert 3000 < len(tail.text()) <= 4096
    endless = _Tail(passed.append)
    endless.output(b"\xff" + b"x" * 9000)
    assert len(endless.text()) == 4096


def test_what_hinders_keeping_is_not_what_the_build_failed_of(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (StoreError("no room"), OSError(errno.ENOSPC, "no space left")):

        def refuse(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(shop.rootfs, "commit", refuse)
        failed = fail(shop, "FROM scratch\nRUN write /broken B\n")
        assert (failed.status, failed.kept, failed.hint) == (7, "", advice(7))


def test_an_interrupt_keeps_nothing(shop: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        shop.build("FROM scratch\nRUN interrupt\n", keep_failed=True)
    assert FailedSteps(shop.root).list() == []


def test_a_shell_has_what_the_command_had(shop: Any) -> None:
    run, told = Wrecker(shop.spy), []
    text = 'FROM scratch\nENV X=1\nUSER 7\nWORKDIR /w\nSHELL ["/bin/ash", "-c"]\nRUN write /broken B\n'
    error = fail(shop, text, run, before_shell=lambda error: told.append((error.kept, error.status)))
    (how,) = run.shells
    command = shop.spy.runs[0]
    assert how["args"] == ("/bin/ash",)
    for name in ("env", "workdir", "user", "network", "ulimits", "insecure", "hosts"):
        assert how[name] == command[name], name
    assert told == [("", 7)], "it is told before the shell, with nothing kept yet"
    assert shop.files(shop.images.get(error.kept)) == {"broken": "B", "looked": "L"}
    failed = next(number for number, line in enumerate(shop.spy.lines) if line.startswith("error "))
    assert failed == len(shop.spy.lines) - 1


def test_only_a_command_that_ran_gets_a_shell(shop: Any) -> None:
    shop.base("base", {"a": "A"})
    run, told = Wrecker(shop.spy), []
    fail(shop, "FROM base\nCOPY nothing /\n", run, before_shell=told.append)
    assert (run.shells, told) == ([], [])


def test_a_shell_that_is_not_there(shop: Any) -> None:
    run = Wrecker(shop.spy, start="/bin/sh: no such file")
    error = fail(shop, "FROM scratch\nRUN write /broken B\n", run, before_shell=lambda _: None)
    assert "no shell could be opened: /bin/sh: no such file" in error.hint
    assert error.kept
