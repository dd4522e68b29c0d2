"""The quick reader reads what click reads, and to the same values, or gives up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.cli import click_reader, main, quick
from minidock.cli.declare import GLOBAL_OPTIONS, Command, Group, defaults
from minidock.errors import UsageError

RUN = main.load("run")
assert isinstance(RUN, Command)
REFUSED = {"refused": True}


def by_click(name: str, line: list[str]) -> dict[str, Any]:
    """The values that click reads; REFUSED where it refuses or prints help."""
    seen: list[dict[str, Any]] = []

    def keep(_command: Command, _globals: dict[str, Any], values: dict[str, Any]) -> int:
        seen.append(values)
        return 0

    try:
        click_reader.run([name, *line], load=main.load, members={name: name}, run_command=keep)
    except UsageError:
        return REFUSED
    return seen[0] if seen else REFUSED


WORDS = (
    "-d -i -it -dit -e -eA=b -e= -tx -- - --name --name=x --name= --rm --rm=x --env --env=A -v/a -h h --mount image "
    "--help --tt -z --net --network=none -p --publish=1 --rm=true --rm=0 -it=true -d=false -e=A --init=F -t="
)
words = st.sampled_from(["", "a b", *WORDS.split()])


@given(st.lists(words, max_size=6))
def test_run_reads_the_same_with_and_without_click(line: list[str]) -> None:
    quickly = quick.read(RUN, line)
    if quickly is not None:
        assert quickly == by_click("run", line)


OTHERS = (
    "-a -f -q -qa --format json --filter=a=b --filter x -n 3 -n3 -- --latest - -t -s --signal=9 name --no-trunc -fa"
)
OTHERS += " -q=true --no-trunc=false -n=5 -f=a=b -aq=0 --all=maybe"
others = st.sampled_from(["", *OTHERS.split()])


@pytest.mark.parametrize("name", ["ps", "images", "stop", "tag", "rm", "logs", "inspect", "history"])
def test_other_commands_read_the_same(name: str) -> None:
    command = main.load(name)
    assert isinstance(command, Command)

    @given(st.lists(others, max_size=5))
    def check(line: list[str]) -> None:
        quickly = quick.read(command, line)
        if quickly is not None:
            assert quickly == by_click(name, line)

    check()


def test_ordinary_lines_need_no_click() -> None:
    values = quick.read(
        RUN, ["--rm", "-it", "-eA=b", "-e", "C", "--name=n", "-v", "a:/b", "img", "sh", "-c", "echo", "--rm"]
    )
    assert values is not None
    given_values = {key: value for key, value in values.items() if value not in (None, False, ())}
    assert given_values == {
        "rm": True,
        "interactive": True,
        "tty": True,
        "env": ("A=b", "C"),
        "name": "n",
        "volume": ("a:/b",),
        "image": "img",
        "command": ("sh", "-c", "echo", "--rm"),
        "network": "bridge",
    }


def test_flags_stop_at_the_image() -> None:
    values = quick.read(RUN, ["img", "-d"])
    assert values is not None
    assert not values["detach"]
    assert values["command"] == ("-d",)


def test_defaults_have_every_key() -> None:
    assert set(defaults(GLOBAL_OPTIONS)) == {"root", "debug", "storage_driver", "layers", "version"}


def test_keys_of_a_command_are_its_own() -> None:
    for module in main.command_modules().values():
        declared = main.load(module)
        members = declared.members.values() if isinstance(declared, Group) else [module]
        for member in members:
            command = main.load(member)
            assert isinstance(command, Command)
            keys = [option.key for option in command.options] + [argument.key for argument in command.arguments]
            flags = [flag for option in command.options for flag in option.flags]
            assert len(set(keys)) == len(keys)
            assert len(set(flags)) == len(flags)
            assert not set(flags) & set(command.not_yet.split())
