"""``RUN --mount``: the grammar of one mount, what is refused, and where variables are expanded."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.dockerfile.fields import expanded
from minidock.dockerfile.instructions import Run
from minidock.dockerfile.parser import parse
from minidock.dockerfile.run_mounts import check_mount, expanded_mount, read_mount, source_name
from minidock.errors import DockerfileError
from minidock.model.run_mounts import TYPES, RunMount


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("target=/x", RunMount("bind", "/x")),
        ("type=bind,dst=/x,src=a/b,from=one,rw", RunMount("bind", "/x", "a/b", "one", read_only=False)),
        ("destination=/x,ro=false", RunMount("bind", "/x", read_only=False)),
        ("TYPE=BIND,Target=/x,readwrite=false", RunMount("bind", "/x")),
        ("type=cache,target=/x/../y/", RunMount("cache", "/x/../y/", read_only=False, id="/y")),
        ("type=cache,target=a/./b", RunMount("cache", "a/./b", read_only=False, id="a/b")),
        (
            "type=cache,id=go,target=/x,sharing=Locked,mode=0700,uid=5,gid=6,ro,from=s,source=/d",
            RunMount("cache", "/x", "/d", "s", True, "go", "locked", 0o700, 5, 6),
        ),
        ("type=tmpfs,target=/x", RunMount("tmpfs", "/x", read_only=False)),
        ("type=tmpfs,target=/x,size=1.5k,ro", RunMount("tmpfs", "/x", size=1536)),
        ("type=secret,id=s", RunMount("secret", "/run/secrets/s", id="s")),
        ("type=secret,id=a/s", RunMount("secret", "/run/secrets/s", id="a/s")),
        ("type=secret,src=s,required", RunMount("secret", "/run/secrets/s", id="s", required=True)),
        ("type=secret,target=/etc/s.conf", RunMount("secret", "/etc/s.conf", id="s.conf")),
        ("type=secret,id=s,env=TOKEN", RunMount("secret", "", id="s", env="TOKEN")),
        ("type=secret,id=s,env=T,target=/x,mode=440", RunMount("secret", "/x", id="s", env="T", mode=0o440)),
        ("type=ssh", RunMount("ssh", "", id="default")),
        ("type=ssh,id=x,target=/s,required=true,mode=0666", RunMount("ssh", "/s", id="x", required=True, mode=0o666)),
        ('type=cache,"id=a,b",target=/x', RunMount("cache", "/x", read_only=False, id="a,b")),
        ('"target=/a ""b"""', RunMount("bind", '/a "b"')),
    ],
)
def test_what_a_mount_says(text: str, mount: RunMount) -> None:
    assert read_mount(text) == mount


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("type=cahce,target=/x", "unsupported mount type 'cahce'", "did you mean cache?"),
        ("type=volume,target=/x", "unsupported mount type 'volume'", "bind, cache, tmpfs, secret, ssh"),
        ("type=cache,taget=/x", "unknown key 'taget'", "did you mean target?"),
        ("qqq=1", "unknown key 'qqq'", "the keys are type, target,"),
        ("target=/x,dst=/y", "target is given twice", "once"),
        ("target=/x,type=bind,type=bind", "type is given twice", "once"),
        ("target=/x,ro,readonly", "readonly is given twice", "once"),
        ("target=/x,ro,rw", "readonly and readwrite are both given", "one of them"),
        ("target", "'target' has no value", "target=VALUE"),
        ("type=cache,target=/x,sharing", "'sharing' has no value", "sharing=VALUE"),
        ("target=/x,ro=maybe", "invalid value 'maybe' of readonly", "true or false"),
        ("type=bind,target=/x,", "a field is empty", "KEY=VALUE"),
        ("", "a field is empty", "KEY=VALUE"),
        ('type=bind,"target=/x', "it is not one record of CSV", "quote"),
        ("type=bind", "the mount of type bind has no target", "target=PATH"),
        ("type=cache,id=x", "the mount of type cache has no target", "target=PATH"),
        ("type=tmpfs", "the mount of type tmpfs has no target", "target=PATH"),
        ("target=/x,id=a", "id is not allowed for a mount of type bind", "id is for type cache and secret and ssh"),
        ("target=/x,mode=0700", "mode is not allowed for a mount of type bind", "bind takes target, source"),
        ("type=tmpfs,target=/x,uid=1", "uid is not allowed for a mount of type tmpfs", "uid is for type"),
        ("target=/x,sharing=shared", "sharing is not allowed for a mount of type bind", "for type cache"),
        ("type=secret,id=a,sharing=shared", "sharing is not allowed for a mount of type secret", "for type cache"),
        ("type=secret,id=a,from=b", "from is not allowed for a mount of type secret", "bind and cache"),
        ("type=ssh,source=x", "source is not allowed for a mount of type ssh", "bind and cache and secret"),
        ("type=cache,target=/x,required", "required is not allowed for a mount of type cache", "secret and ssh"),
        ("type=cache,target=/x,size=1", "size is not allowed for a mount of type cache", "for type tmpfs"),
        ("type=secret,id=a,rw", "readwrite is not allowed for a mount of type secret", "bind and cache and tmpfs"),
        ("type=secret", "the secret has neither id nor target", "id=NAME"),
        ("type=secret,id=a,src=b", "id and source are both given", "the same"),
        ("type=secret,id=a,env=1x", "invalid value '1x' of env", "no digit first"),
        ("type=secret,id=a,env=", "invalid value '' of env", "no digit first"),
        ("type=secret,id=a,required=2", "invalid value '2' of required", "true or false"),
        ("type=cache,target=/x,sharing=lock", "unsupported sharing 'lock'", "did you mean locked?"),
        ("type=cache,target=/x,sharing=zzz", "unsupported sharing 'zzz'", "shared, private, locked"),
        ("type=cache,target=/x,mode=9", "invalid value '9' of mode", "octal"),
        ("type=cache,target=/x,mode=17777", "invalid value '17777' of mode", "octal"),
        ("type=cache,target=/x,mode=", "invalid value '' of mode", "octal"),
        ("type=cache,target=/x,uid=-1", "invalid value '-1' of uid", "number"),
        ("type=cache,target=/x,gid=2147483648", "invalid value '2147483648' of gid", "number"),
        ("type=cache,target=/x,uid=root", "invalid value 'root' of uid", "number"),
        ("type=tmpfs,target=/x,size=big", "invalid value 'big' of size", "64m"),
        ("type=tmpfs,target=/x,size=99999999999t", "of size", "64m"),
    ],
)
def test_what_makes_no_sense(text: str, message: str, hint: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        read_mount(text)
    assert message in caught.value.message
    assert f"--mount={text}" in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message


def test_an_error_has_its_place() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse("FROM x\nRUN a\nRUN --mount=type=cache,tagret=/c \\\n  b\n", filename="Dockerfile")
    error = caught.value
    assert (error.filename, error.line, error.end_line) == ("Dockerfile", 3, 4)
    assert "   3 | >>> RUN --mount=type=cache,tagret=/c" in error.excerpt
    assert error.hint == "did you mean target?"


@pytest.mark.parametrize(
    "text",
    ["type=$T,target=/x", "type=cache,target=/x,uid=${UID}", "type=tmpfs,target=/x,size='$S'", "target=\\/x,ro=$R"],
)
def test_what_is_not_expanded_yet_is_not_judged(text: str) -> None:
    check_mount(text)
    with pytest.raises(DockerfileError, match="unknown key"):
        check_mount(f"{text},nope=1")


def _run(line: str, env: dict[str, str]) -> Run:
    instruction = parse(f"FROM x\n{line}\n", filename="f").stages[0].instructions[0]
    found = expanded(instruction, env)
    assert isinstance(found, Run)
    return found


def test_rule_mount_values_are_expanded() -> None:
    run = _run("RUN --mount=type=$T,target=/$X/y,id=${I:-go},uid=$U,sharing=$S x", {"T": "cache", "X": "a", "U": "7"})
    assert run.mounts == ("type=cache,target=/a/y,id=go,uid=7,sharing=",)


def test_an_expanded_value_stays_one_field() -> None:
    run = _run("RUN --mount=type=cache,target=/c,id=$I x", {"I": 'a,mode=0777,"q"'})
    assert read_mount(run.mounts[0]).id == 'a,mode=0777,"q"'


def test_rule_from_is_not_expanded() -> None:
    with pytest.raises(DockerfileError, match=r"variables are not expanded in from=\$X") as caught:
        _run("RUN --mount=from=$X,target=/a x", {"X": "1"})
    assert "name a stage" in caught.value.hint


@pytest.mark.parametrize(("text", "name"), [("from=one,target=/x", "one"), ("target=/x", ""), ("FROM=2,dst=$x", "2")])
def test_the_name_of_a_source(text: str, name: str) -> None:
    assert source_name(text) == name


_TEXT = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0\n\r"), max_size=20)


@given(st.lists(st.sampled_from(["type=cache", "target=/x", "ro", "id=a", "mode=7", "from=x", ",", '"', "$x"]) | _TEXT))
def test_nothing_but_an_error_of_the_grammar(parts: list[str]) -> None:
    text = ",".join(parts)
    with contextlib.suppress(DockerfileError):
        assert read_mount(text).type in TYPES


@given(st.sampled_from(["id", "target"]), _TEXT.filter(bool))
def test_any_value_survives_expansion(key: str, value: str) -> None:
    values: dict[str, Any] = {"id": "a", "target": "/t", key: value}
    text = expanded_mount(
        "type=cache,target=T,id=I", lambda word: {"T": values["target"], "I": values["id"]}.get(word, word)
    )
    mount = read_mount(text)
    assert (mount.target, mount.id) == (values["target"], values["id"])
