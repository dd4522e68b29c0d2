"""``--cache-to``, ``--cache-from`` and ``--no-cache-filter`` as texts."""

from __future__ import annotations

import pytest

from minidock.errors import UsageError
from minidock.model.cache_places import CacheFrom, CacheTo, parse_cache_from, parse_cache_to, parse_stage_names


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("type=local,dest=/c", CacheTo("local", "/c")),
        ("dest=c,mode=max,type=local", CacheTo("local", "c", whole=True)),
        ("type=local,dest=c,mode=min,ignore-error=true,compression=uncompressed", CacheTo("local", "c")),
        ("type=local,dest=c,ignore-error=false", CacheTo("local", "c", strict=True)),
        ('type=local,"dest=a,b"', CacheTo("local", "a,b")),
        ("type=inline", CacheTo("inline")),
        ("type=inline,mode=min", CacheTo("inline")),
    ],
)
def test_destinations(text: str, place: CacheTo) -> None:
    assert parse_cache_to(text) == place


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("type=local,src=/c", CacheFrom("local", "/c")),
        ("app:1", CacheFrom("image", "app:1")),
        (
            "example.org:5000/team/app@sha256:" + "a" * 64,
            CacheFrom("image", "example.org:5000/team/app@sha256:" + "a" * 64),
        ),
    ],
)
def test_sources(text: str, place: CacheFrom) -> None:
    assert parse_cache_from(text) == place


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "type=registry,ref=a",
            "a cache of type=registry is not supported: minidock keeps caches in folders and in images",
        ),
        ("user/app", "a cache of type=registry is not supported"),
        ("type=gha", "a cache of type=gha is not supported"),
        ("type=s3,region=x", "a cache of type=s3 is not supported"),
        ("type=azblob", "a cache of type=azblob is not supported"),
        ("type=loacl,dest=x", "there is no type 'loacl'"),
        ("dest=x", "it has no type"),
        ("type=local", "it has no folder"),
        ("type=local,dest=", "it has no folder"),
        ("type=local,src=x", "type=local has no 'src'"),
        ("type=local,dest=x,mode=all", "there is no mode 'all'"),
        ("type=local,dest=x,dest=y", "dest stands twice"),
        ("type=local,x", "'x' has no value"),
        ("type=local,dest=x,ignore-error=maybe", "ignore-error is true or false"),
        ("type=local,dest=x,compression=zstd", "layers are written uncompressed"),
        ("type=inline,mode=max", "an image keeps the steps of its own layers only"),
        ('type="', "invalid --cache-to"),
        ("", "not supported"),
    ],
)
def test_destinations_that_make_no_sense(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        parse_cache_to(text)
    assert "\n" not in caught.value.message
    assert caught.value.hint or "true or false" in sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("type=registry,ref=a", "type=registry is not supported"),
        ("type=gha", "type=gha is not supported"),
        ("type=local,dest=x", "type=local has no 'dest'"),
        ("type=local", "it has no folder"),
        ("type=inline", "it does not say in which image"),
        ("UPPER", "invalid --cache-from 'UPPER'"),
        ("", "invalid --cache-from ''"),
    ],
)
def test_sources_that_make_no_sense(text: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        parse_cache_from(text)


def test_stage_names() -> None:
    assert parse_stage_names(["a,b", "0", "a"]) == ("a", "b", "0")
    assert parse_stage_names([]) == ()
    with pytest.raises(UsageError, match="a stage's name is empty"):
        parse_stage_names(["a,,b"])
    with pytest.raises(UsageError, match="a stage's name is empty"):
        parse_stage_names([""])
