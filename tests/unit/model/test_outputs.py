"""``--output`` and ``--annotation`` as values."""

from __future__ import annotations

import pytest

from minidock.errors import UsageError
from minidock.model.outputs import Annotations, Output, parse_annotations, parse_output, parse_outputs


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("out", Output("local", "out")),
        ("./a b", Output("local", "./a b")),
        ("-", Output("tar", "-")),
        ("type=local,dest=d", Output("local", "d")),
        ("dest=f.tar,type=tar", Output("tar", "f.tar")),
        ("type=tar", Output("tar", "-")),
        ("type=oci", Output("oci", "-")),
        ("type=oci,dest=f,tar=true", Output("oci", "f")),
        ("type=docker,dest=f,name=a:1", Output("docker", "f", ("a:1",))),
        ("type=docker", Output("image")),
        ("type=image", Output("image")),
        ("type=image,name=a,push=false", Output("image", "", ("a",))),
        ('type=image,"name=a,b"', Output("image", "", ("a", "b"))),
        ('type=tar,"dest=a,b"', Output("tar", "a,b")),
        ("TYPE=tar,Dest=x=y", Output("tar", "x=y")),
    ],
)
def test_outputs(text: str, output: Output) -> None:
    assert parse_output(text) == output


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("type=zip,dest=x", "no type 'zip'"),
        ("dest=x", "no type"),
        ("type=local", "no folder"),
        ("type=local,dest=-", "no folder"),
        ("type=tar,dest", "'dest' has no value"),
        ("type=tar,name=x", "type=tar has no 'name'"),
        ("type=image,push=true", "cannot be pushed"),
        ("type=registry,name=x", "cannot be pushed"),
        ("type=image,name=UPPER", "lower-case"),
        ("type=image,push=maybe", "push is true or false"),
        ("type=oci,dest=x,tar=false", "only an archive"),
        ('type=tar,"dest=x', "quote is not closed"),
    ],
)
def test_outputs_that_make_no_sense(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_output(text)


def test_two_outputs_need_two_destinations() -> None:
    assert len(parse_outputs(["type=image", "type=docker", "a", "b"])) == 4
    with pytest.raises(UsageError, match="two outputs go to a"):
        parse_outputs(["a", "type=tar,dest=a"])
    with pytest.raises(UsageError, match="standard output"):
        parse_outputs(["-", "type=oci"])


def test_annotations() -> None:
    texts = ["b=1", "manifest:a=2=3", "index:c=", "manifest,index:both=x", "b=4"]
    assert parse_annotations(texts) == Annotations(
        (("a", "2=3"), ("b", "4"), ("both", "x")), (("both", "x"), ("c", ""))
    )


@pytest.mark.parametrize("text", ["a", "=x", "manifest:=x", "descriptor:a=b", ":a=b"])
def test_annotations_that_make_no_sense(text: str) -> None:
    with pytest.raises(UsageError, match="invalid annotation"):
        parse_annotations([text])
