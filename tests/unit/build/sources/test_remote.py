"""The grammar of remote sources, by its friends and its enemies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.build.sources.remote import (
    Credentials,
    GitSource,
    HttpSource,
    check_commit,
    is_commit,
    is_remote,
    parse_http,
    parse_remote,
    redacted,
)
from minidock.errors import UsageError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def git(text: str) -> GitSource:
    found = parse_remote(text)
    assert isinstance(found, GitSource)
    return found


@pytest.mark.parametrize(
    ("text", "remote", "ref", "subdir"),
    [
        ("https://h/o/r.git", "https://h/o/r.git", "", ""),
        ("HTTPS://H/o/r.git#v1", "https://h/o/r.git", "v1", ""),
        ("http://h:8080/r.git#v1:a/b", "http://h:8080/r.git", "v1", "a/b"),
        ("https://h/r.git#:/a//b/./c/", "https://h/r.git", "", "a/b/c"),
        ("https://h/r.git#a%20b:c%20d".replace("a%20b", "ab"), "https://h/r.git", "ab", "c d"),
        ("git://h/r", "git://h/r", "", ""),
        ("git://h:1/r.git#x/y", "git://h:1/r.git", "x/y", ""),
        ("ssh://git@h:22/r", "ssh://git@h:22/r", "", ""),
        ("git@h:o/r.git#x:y", "git@h:o/r.git", "x", "y"),
        ("me@h:/abs/r", "me@h:/abs/r", "", ""),
        ("git@[::1]:r.git", "git@[::1]:r.git", "", ""),
        ("https://[::1]:8/r.git", "https://[::1]:8/r.git", "", ""),
        (f"https://h/r.git#{COMMIT}", "https://h/r.git", COMMIT, ""),
        ("https://h/r.git#refs/pull/1/head", "https://h/r.git", "refs/pull/1/head", ""),
        ("https://h/r.git?branch=main&subdir=d", "https://h/r.git", "refs/heads/main", "d"),
        ("https://h/r.git?tag=v1", "https://h/r.git", "refs/tags/v1", ""),
        ("https://h/r.git?ref=pull/1/head", "https://h/r.git", "pull/1/head", ""),
    ],
)
def test_git(text: str, remote: str, ref: str, subdir: str) -> None:
    found = git(text)
    assert (found.remote, found.ref, found.subdir, found.credentials) == (remote, ref, subdir, None)
    assert is_remote(text)


def test_what_a_query_says() -> None:
    found = git(f"https://h/r.git?commit={COMMIT[:8]}&keep-git-dir&submodules=0")
    assert (found.commit, found.keep_git_dir, found.submodules) == (COMMIT[:8], True, False)
    assert git("https://h/r.git?keep-git-dir=false").keep_git_dir is False
    assert git("https://h/r.git").keep_git_dir is None


@pytest.mark.parametrize(
    ("text", "url", "name"),
    [
        ("https://h/a/f.tar.gz", "https://h/a/f.tar.gz", "f.tar.gz"),
        ("http://h/a%20b?x=/y#z", "http://h/a%20b?x=/y", "a b"),
        ("http://h/a%2Fb", "http://h/a%2Fb", "b"),
        ("http://h", "http://h/", ""),
        ("http://h/d/", "http://h/d/", ""),
        ("http://h/%2e%2e", "http://h/%2e%2e", ""),
        ("http://h/r.git/", "http://h/r.git/", ""),
        ("http://h/x?y=r.git", "http://h/x?y=r.git", "x"),
    ],
)
def test_files(text: str, url: str, name: str) -> None:
    assert parse_remote(text) == HttpSource(url, name)


def test_credentials_are_apart() -> None:
    found = parse_remote("https://us%40er:p%3Aw@h/f")
    assert found == HttpSource("https://h/f", "f", Credentials("us@er", "p:w"))
    source = git("https://token@h/r.git#x")
    assert (source.shown, source.credentials) == ("https://h/r.git#x", Credentials("token", ""))


def test_shorthand_is_for_contexts_alone() -> None:
    assert parse_remote("github.com/o/r#x", shorthand=True) == GitSource("https://github.com/o/r", "https", ref="x")
    assert parse_remote("github.com/o/r") is None


@pytest.mark.parametrize("text", ["", ".", "/a", "./https://h/x", "../git@h:x", "a:b", "a@b", "C:\\x", "ext::sh", "-x"])
def test_paths(text: str) -> None:
    assert parse_remote(text, shorthand=True) is None


@pytest.mark.parametrize(
    "text",
    [
        "ext::sh://x".replace("::", "://"),
        "file:///etc/passwd",
        "ftp://h/x",
        "https:///x",
        "https://-h/x",
        "https://h-/x.git",
        "https://h h/x",
        "https://h\t/x",
        "https://h/x\r\nEvil: 1",
        "https://h/x\0",
        "https://h\\@evil/x",
        "https://h/%0d%0aEvil",
        "https://u%0a:p@h/x",
        "https://h:99999/x",
        "https://h:x/x",
        "https://[::1/x",
        "https://h%2fevil/x",
        "https://\u2100/x",
        "https://h/.git?".replace(".git?", ".git?evil=1"),
        "https://h/r.git?ref=a&tag=b",
        "https://h/r.git?ref=a&ref=b",
        "https://h/r.git?ref=a#b",
        "https://h/r.git?checksum=xyz",
        "https://h/r.git?keep-git-dir=perhaps",
        "https://h/r.git?subdir=../x",
        "https://h/r.git#--upload-pack=x",
        "https://h/r.git#-x",
        "https://h/r.git#a..b",
        "https://h/r.git#a%00b",
        "https://h/r.git#a%20b",
        "https://h/r.git#a@{b",
        "https://h/r.git#a.lock",
        "https://h/r.git#/a",
        "https://h/r.git#a/",
        "https://h/r.git#a^b",
        "https://h/r.git#*",
        "https://h/r.git#:..",
        "https://h/r.git#:a/%2e%2e/b",
        "https://h/r.git#:a%0ab",
        "ssh://-oProxyCommand=x/r",
        "ssh://-l@h/r",
        "ssh://u:p@h/r",
        "ssh://h",
        "git://u@h/r",
        "git://h/",
        "git@-oProxyCommand=x:r",
        "git@h:-x",
        "git@h:",
        "git@h:r#-x",
        "https://h/" + "x" * 9000,
    ],
)
def test_refusals(text: str) -> None:
    with pytest.raises(UsageError):
        parse_remote(text)


@given(st.text(max_size=60))
def test_nothing_else_is_raised(text: str) -> None:
    for prefix in ("", "https://", "https://h/r.git#", "https://h/r.git?", "git@h:", "ssh://", "git://h/"):
        try:
            found = parse_remote(prefix + text)
        except UsageError:
            continue
        if isinstance(found, GitSource):
            # What is handed to git can be no option, and nothing leads out of the repository.
            assert not found.remote.startswith("-")
            assert not found.ref.startswith("-")
            assert ".." not in found.subdir.split("/")
            assert not any(char < " " for char in found.remote + found.ref + found.subdir)
        elif found is not None:
            assert "/" not in found.name
            assert found.name not in (".", "..")
            assert found.url.startswith(("http://", "https://"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ADD https://u:p@h/x https://t@h /", "ADD https://xxxxx@h/x https://xxxxx@h /"),
        ("https://u:p@ss@h/x", "https://xxxxx@h/x"),
        ("ssh://git@h/x ssh://git:pw@h/x", "ssh://git@h/x ssh://git:xxxxx@h/x"),
        ("git@h:x https://h/a@b", "git@h:x https://h/a@b"),
        ("mail a@b.c", "mail a@b.c"),
    ],
)
def test_redacted(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize("text", ["https://u:secret@h:x/y", "https://u:sec/ret@h/y", "https://u:secret@-h/y"])
def test_errors_show_no_credentials(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_remote(text)
    assert "sec" not in str(caught.value)


def test_a_redirects_target_is_a_file_whatever_it_is_called() -> None:
    assert parse_http("https://h/r.git") == HttpSource("https://h/r.git", "r.git")
    for text in ("git://h/x", "ssh://h/x", "file:///x"):
        with pytest.raises(UsageError):
            parse_http(text)


def test_commits() -> None:
    assert is_commit(COMMIT)
    assert not is_commit(COMMIT[:39])
    assert not is_commit(COMMIT.upper())
    assert check_commit(COMMIT[:7], what="x") == COMMIT[:7]
    for bad in (COMMIT[:6], "g" * 40, COMMIT.upper(), "sha256:" + "0" * 64, "-" + COMMIT[:10], ""):
        with pytest.raises(UsageError):
            check_commit(bad, what="x")
