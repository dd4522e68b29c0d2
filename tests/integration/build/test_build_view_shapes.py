"""The live view on terminals of several widths, with many stages, wide characters, colours and returns: captures, held
against golden text as in test_build_view.py."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.build.test_build_view import Build, Terminal, hold_against, is_sane

ODD = r"""FROM busybox AS a-stage-with-a-name
WORKDIR /日本語のとても長い名前のディレクトリ/日本語
RUN printf '\033[1;32mgreen\033[0m, \033]0;title\007bell\n'; printf 'a\ttab\n'; printf '10%%\r50%%\r100%% done\n'; \
    echo 日本語のとても長い行はどこかで切らなければならない、端末の幅はそれほど広くないからである。もっと長くしよう。; \
    echo "$(seq -s' ' 1 60)"; printf 'no end of line yet'; [ ! -e /wait/wait ] || sleep 1000
FROM busybox
COPY --from=a-stage-with-a-name / /copied
"""
STAGES = range(9)
LINES = [f"FROM busybox AS stage-{number}\nRUN expr 70 + {number}; sleep 1000\n" for number in STAGES]
MANY = "".join((*LINES, "FROM scratch\n", *(f"COPY --from=stage-{number} / /\n" for number in STAGES)))


@pytest.fixture
def build(minidock: Any) -> Iterator[Build]:
    opened = []

    def start(*arguments: str | Path, columns: int, lines: int = 24) -> Terminal:
        command = [minidock.command, "build", "--network", "none", *map(str, arguments)]
        environment = {**minidock.environment, "TERM": "xterm-256color", "MINIDOCK_DEBUG": ""}
        terminal = Terminal(command, environment, columns=columns, lines=lines)
        opened.append(terminal)
        return terminal

    yield start
    for terminal in opened:
        terminal.close()


def shown(terminal: Terminal) -> str:
    """What is on the screen now."""
    return "\n".join(line.rstrip() for line in terminal.screen.display).rstrip()


@pytest.mark.parametrize("columns", [40, 120])
def test_what_is_odd(build: Build, context: Callable[..., Path], tmp_path: Path, columns: int) -> None:
    folder = context(ODD.replace("RUN ", "RUN --mount=target=/wait "), {"wait": ""})
    terminal = build(folder, columns=columns)
    terminal.read_until(lambda: "no end of line yet" in terminal.text())
    hold_against(f"odd-{columns}", shown(terminal))
    os.write(terminal.fd, b"\x03")
    assert terminal.finish() == 130
    assert is_sane(terminal)
    (folder / "wait").unlink()
    terminal = build(folder, columns=columns)
    assert terminal.finish() == 0
    # On a narrow terminal a digest takes several lines.
    hold_against(f"odd-{columns}-success", re.sub(r"(sha256:[0-9a-f]+)\n[0-9a-f\n]+", r"\1", terminal.text()))


@pytest.mark.parametrize("lines", [50, 24, 10])
def test_many_stages(build: Build, context: Callable[..., Path], lines: int) -> None:
    terminal = build("--jobs", "9", context(MANY), columns=80, lines=lines)
    begun = [f"=> => # {70 + number}" for number in STAGES] if lines > 10 else ["(12/21)", "[stage-8 2/2]"]
    terminal.read_until(lambda: all(text in shown(terminal) for text in begun))
    hold_against(f"many-{lines}", shown(terminal))
    os.write(terminal.fd, b"\x03")
    assert terminal.finish() == 130
    assert is_sane(terminal)


def test_a_terminal_that_becomes_narrow(build: Build, context: Callable[..., Path]) -> None:
    """Nothing of the wide lines is left above or below."""
    terminal = build(context(ODD.replace("RUN ", "RUN --mount=target=/wait "), {"wait": ""}), columns=120)
    terminal.read_until(lambda: "no end of line yet" in terminal.text())
    for columns in (40, 100, 40):
        terminal.resize(columns, 24)
        edge = columns - 1
        terminal.read_until(
            lambda edge=edge: any(
                len(line.rstrip()) == edge and line.rstrip()[-1] == "s" for line in lines_of(terminal)
            )
        )
    hold_against("narrowed-40", shown(terminal))
    os.write(terminal.fd, b"\x03")
    assert terminal.finish() == 130


def lines_of(terminal: Terminal) -> list[str]:
    return [line for line in terminal.screen.display if line.strip()]


def test_an_error_on_a_narrow_terminal(build: Build, context: Callable[..., Path]) -> None:
    text = "FROM busybox\nRUN echo 'a line that is longer than forty columns are, by far'; \\\n    exit 3\n"
    terminal = build(context(text), columns=40)
    assert terminal.finish() == 1
    hold_against("error-40", terminal.text())
    assert is_sane(terminal)
