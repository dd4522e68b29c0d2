"""The image before its last steps: what is cut, and what the history tells of the configuration there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.errors import InvalidReferenceError
from minidock.model.image_steps import image_before, split_step, steps_of
from minidock.model.oci import ImageConfig

PATH = "PATH=/usr/bin"


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def image(*lines: str, layers: int | None = None, **config: Any) -> ImageConfig:
    """An image with a history: lines that begin with ``+`` have a layer. ``layers`` is their number, if it differs."""
    history = []
    for line in lines:
        entry: dict[str, Any] = {"created": f"2024-01-{len(history) + 1:02}T00:00:00Z", "created_by": line.lstrip("+")}
        history.append(entry if line.startswith("+") else {**entry, "empty_layer": True})
    count = sum(line.startswith("+") for line in lines) if layers is None else layers
    raw = {
        "created": "2025-01-01T00:00:00Z",
        "architecture": "amd64",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest(number) for number in range(count)]},
        "history": history,
    }
    return ImageConfig(raw)


def test_names() -> None:
    assert split_step("app~2") == ("app", 2)
    assert split_step("host:5000/app:1.0~") == ("host:5000/app:1.0", 1)
    assert split_step("app~1~2") == ("app~1", 2)
    assert split_step("app~0") == ("app", 0)
    assert split_step(f"app~{'9' * 5000}")[1] > 10**8
    for text in ("app~x", "~1", "~", "app~-1", "app~1.5", "app~\u0663"):
        with pytest.raises(InvalidReferenceError, match="a number of steps has to follow"):
            split_step(text)


def test_layers_and_history_are_cut_at_the_line() -> None:
    whole = image("+ADD rootfs", 'CMD ["sh"]', "+RUN a", "ENV A=1", "+RUN b")
    assert len(steps_of(whole)) == 5
    found = image_before(whole, 1)
    assert found.diff_ids == (digest(0), digest(1))
    assert [line.created_by for line in found.history] == ["ADD rootfs", 'CMD ["sh"]', "RUN a", "ENV A=1"]
    assert found.created == "2024-01-04T00:00:00Z"
    assert image_before(whole, 3).diff_ids == (digest(0),)
    assert image_before(whole, 0).raw == whole.raw
    assert whole.diff_ids == (digest(0), digest(1), digest(2)), "the image itself stays as it is"


def test_another_makers_history_may_tell_less_or_more() -> None:
    untold = image("+ADD rootfs", layers=3)
    assert len(steps_of(untold)) == 3
    assert image_before(untold, 1).diff_ids == (digest(0), digest(1))
    assert [entry.empty_layer for entry in image_before(untold, 1).history] == [False, False]
    silent = image(layers=2)
    assert image_before(silent, 1).diff_ids == (digest(0),)
    boastful = image("+ADD rootfs", "+RUN a", "+RUN b", layers=1)
    assert len(steps_of(boastful)) == 3
    cut = image_before(boastful, 1)
    assert cut.diff_ids == (digest(0),)
    assert [entry.empty_layer for entry in cut.history] == [False, True]
    assert steps_of(image(layers=0)) == []


def test_what_no_left_out_line_sets_stays() -> None:
    config = {"Env": [PATH, "A=1"], "Cmd": ["sh"], "User": "u", "WorkingDir": "/w", "Labels": {"a": "1"}}
    whole = image("+ADD rootfs", "ENV A=1", "+RUN make", "+COPY a b # buildkit", **config)
    assert image_before(whole, 2).config == config


@pytest.mark.parametrize(
    ("kept", "gone", "field", "final", "before"),
    [
        ("USER one", "USER two", "User", "two", "one"),
        ("ARG x", "USER two", "User", "two", None),
        ("WORKDIR /a", "WORKDIR /a/b", "WorkingDir", "/a/b", "/a"),
        ("STOPSIGNAL SIGINT", "STOPSIGNAL SIGHUP", "StopSignal", "SIGHUP", "SIGINT"),
        ('CMD ["a" "b c"]', 'CMD ["z"]', "Cmd", ["z"], ["a", "b c"]),
        ('CMD ["a"]', 'ENTRYPOINT ["e"]', "Cmd", None, ["a"]),
        ('ENTRYPOINT ["e" "\\"q\\""]', 'ENTRYPOINT ["f"]', "Entrypoint", ["f"], ["e", '"q"']),
        ("CMD echo hidden", 'CMD ["z"]', "Cmd", ["z"], None),
        ("SHELL [/bin/bash -c]", "SHELL [/bin/zsh -c]", "Shell", ["/bin/zsh", "-c"], ["/bin/bash", "-c"]),
        ('SHELL ["/bin/bash", "-c"]', "SHELL [x]", "Shell", ["x"], ["/bin/bash", "-c"]),
        ("EXPOSE [80/tcp]", "EXPOSE [443/tcp]", "ExposedPorts", {"443/tcp": {}, "80/tcp": {}}, {"80/tcp": {}}),
        ("EXPOSE map[53/udp:{}]", "EXPOSE 80", "ExposedPorts", {"53/udp": {}, "80/tcp": {}}, {"53/udp": {}}),
        ("VOLUME [/a /b]", "VOLUME [/c]", "Volumes", {"/a": {}, "/b": {}, "/c": {}}, {"/a": {}, "/b": {}}),
        ("ARG x", "VOLUME [/c]", "Volumes", {"/c": {}}, None),
        ("ENV A=1 B=2", "ENV B=3 C=4", "Env", [PATH, "A=1", "B=3", "C=4"], [PATH, "A=1", "B=2"]),
        ("ENV A=b x=y c", "ENV A=2", "Env", ["A=2"], ["A=b x=y c"]),
        ("LABEL a.b=1 c d", "LABEL a.b=2 e=3", "Labels", {"a.b": "2", "e": "3"}, {"a.b": "1 c d"}),
        ("ARG x", 'HEALTHCHECK CMD ["x"]', "Healthcheck", {"Test": ["CMD", "x"]}, None),
        ("/bin/sh -c #(nop)  USER one", "/bin/sh -c #(nop) USER two", "User", "two", "one"),
        ("/bin/sh -c #(nop)  ENV A=1", "/bin/sh -c #(nop)  ENV A=2", "Env", ["A=2"], ["A=1"]),
        ("USER one # buildkit", "USER two # buildkit", "User", "two", "one"),
    ],
)
def test_what_left_out_lines_set_is_undone(kept: str, gone: str, field: str, final: Any, before: Any) -> None:
    whole = image("+ADD rootfs", kept, "+RUN make", gone, **({} if final is None else {field: final}))
    found = image_before(whole, 1).config
    assert found.get(field) == before
    assert (field in found) == (before is not None)
    assert image_before(whole, 0).config.get(field) == final


@pytest.mark.parametrize(
    "line", ["+RUN echo '#(nop) USER root'", "+/bin/sh -c USER root", "+RUN |1 A=b USER x", "USER"]
)
def test_commands_that_look_like_instructions_say_nothing(line: str) -> None:
    whole = image("+ADD rootfs", "USER one", line, User="one")
    assert image_before(whole, 1).config == {"User": "one"}


def test_an_entrypoint_has_dropped_the_command_before_it() -> None:
    whole = image("+ADD rootfs", 'CMD ["sh"]', 'ENTRYPOINT ["e"]', 'CMD ["c"]', Entrypoint=["e"], Cmd=["c"])
    assert image_before(whole, 1).config == {"Entrypoint": ["e"]}
    assert image_before(whole, 2).config == {"Cmd": ["sh"]}


def test_triggers_and_author() -> None:
    whole = image("+ADD rootfs", "MAINTAINER one", "MAINTAINER two", OnBuild=["RUN x"])
    whole.raw["author"] = "two"
    assert image_before(whole, 1).raw["author"] == "one"
    assert "author" not in image_before(whole, 2).raw
    assert image_before(whole, 1).config == {}


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.from_regex(r"\A[a-z =]{0,6}\Z")), min_size=1, max_size=8))
def test_every_state_of_the_environment_is_found_again(sets: list[tuple[str, str]]) -> None:
    states: list[dict[str, str]] = [{}]
    for name, value in sets:
        states.append({**states[-1], name: value})
    lines = [f"ENV {name}={value}" for name, value in sets]
    whole = image("+ADD rootfs", *lines, Env=[f"{name}={value}" for name, value in states[-1].items()])
    for count in range(len(sets) + 1):
        env = image_before(whole, count).config.get("Env") or []
        assert dict(text.split("=", 1) for text in env) == states[len(sets) - count]
