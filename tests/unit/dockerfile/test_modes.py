"""Symbolic modes: tables of what they mean, and GNU's chmod beside ours wherever both mean to say the same."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minidock.dockerfile.modes import parse_symbolic
from minidock.errors import DockerfileError

FILE, DIRECTORY = False, True


@pytest.mark.parametrize(
    ("text", "directory", "before", "after"),
    [
        # The manual of COPY --chmod.
        ("u=rwX,go=rX", FILE, 0o600, 0o644),
        ("u=rwX,go=rX", FILE, 0o700, 0o755),
        ("u=rwX,go=rX", FILE, 0o610, 0o755),
        ("u=rwX,go=rX", DIRECTORY, 0o700, 0o755),
        ("u=rwX,go=rX", DIRECTORY, 0o7000, 0o755),
        ("+x", FILE, 0o640, 0o751),
        ("g=u", FILE, 0o640, 0o660),
        # BuildKit's own test of symbolic modes.
        ("go-w", FILE, 0o666, 0o644),
        ("u=rw,g=r,o=r", FILE, 0o666, 0o644),
        ("a+X", FILE, 0o666, 0o666),
        ("go-w", DIRECTORY, 0o124, 0o104),
        ("u+rw,g+r,o-x,o+w", DIRECTORY, 0o124, 0o766),
        ("a+X", DIRECTORY, 0o124, 0o135),
        # Who: nobody named is everybody, whatever the umask.
        ("=r", FILE, 0o777, 0o444),
        ("a=", FILE, 0o7777, 0),
        ("go=", FILE, 0o6755, 0o4700),
        ("ugo+w", FILE, 0, 0o222),
        ("uu+w", FILE, 0, 0o200),
        # Several actions in a clause, several clauses.
        ("u+x-w", FILE, 0o644, 0o544),
        ("u=r+x,g+w", FILE, 0o600, 0o520),
        ("a-x,u+x", FILE, 0o755, 0o744),
        # X asks the mode as it was.
        ("=rw,+X", FILE, 0o755, 0o777),
        ("=rw,+X", FILE, 0o644, 0o666),
        ("a-x,u+X", FILE, 0o755, 0o744),
        ("-X", FILE, 0o755, 0o644),
        ("Xr", FILE, 0, None),
        # Copies of another's permissions, as they are at that moment; never the special bits.
        ("u=r,go=u", FILE, 0o777, 0o444),
        ("o-g", FILE, 0o676, 0o670),
        ("g+o", FILE, 0o4701, 0o4711),
        ("u=u", FILE, 0o4755, 0o755),
        # Special bits.
        ("u+s", FILE, 0o755, 0o4755),
        ("g+s", DIRECTORY, 0o755, 0o2755),
        ("o+s", FILE, 0o755, 0o755),
        ("+s", FILE, 0o755, 0o6755),
        ("+t", DIRECTORY, 0o777, 0o1777),
        ("o+t", DIRECTORY, 0o777, 0o1777),
        ("u+t", DIRECTORY, 0o777, 0o777),
        ("a-st", FILE, 0o7777, 0o777),
        ("u=rws", FILE, 0, 0o4600),
        # Nothing at all.
        ("+", FILE, 0o644, 0o644),
        ("u=", FILE, 0o644, 0o44),
    ],
)
def test_what_a_mode_means(text: str, directory: bool, before: int, after: int | None) -> None:
    if after is None:
        with pytest.raises(DockerfileError):
            parse_symbolic(text)
        return
    assert f"{parse_symbolic(text).of(before, directory=directory):o}" == f"{after:o}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "a '+', '-' or '=' is missing"),
        ("u", "a '+', '-' or '=' is missing"),
        ("u+x,", "a '+', '-' or '=' is missing"),
        ("u+x,,g+x", "a '+', '-' or '=' is missing"),
        (",u+x", "a '+', '-' or '=' is missing"),
        ("rwx", "'r' is no '+', '-' or '='"),
        (" u+x", "' ' is no '+', '-' or '='"),
        ("u+q", "'q' is none of r, w, x, X, s and t"),
        ("u+x ", "' ' is none of"),
        ("u=rx;g=r", "';' is none of"),
        ("a=644", "'6' is none of"),
        ("=644", "'6' is none of"),
        ("u=a", "'a' is none of"),
        ("g=ur", "'u' stands alone after '='"),
        ("g=ru", "'u' stands alone after '='"),
        ("g+uo", "'u' stands alone after '+'"),
        ("99", "it is no octal number from 0 to 7777"),
        ("0o99", "it is no octal number from 0 to 7777"),
        ("\u0663", "it is no octal number from 0 to 7777"),
        ("\u00fc+x", "is no '+', '-' or '='"),
    ],
)
def test_what_is_no_mode(text: str, reason: str) -> None:
    with pytest.raises(DockerfileError, match=f"invalid mode .* of --chmod: .*{re.escape(reason)}") as caught:
        parse_symbolic(text)
    assert "u=rwX,go=rX" in caught.value.hint


def _is_gnu() -> bool:
    try:
        done = subprocess.run(["chmod", "--version"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return False
    return "GNU coreutils" in done.stdout


# X of GNU asks the mode of the moment, so that it stands first; set-ID bits of directories are another matter, too.
_WHO = st.text("ugoa", max_size=3)
_FIRST = st.one_of(st.sampled_from("ugo"), st.text("rwxXt", max_size=4))
_NEXT = st.one_of(st.sampled_from("ugo"), st.text("rwxt", max_size=4))


@st.composite
def _modes(draw: st.DrawFn, *, directory: bool) -> str:
    clauses = []
    for number in range(draw(st.integers(1, 3))):
        clause = draw(_WHO)
        for action in range(draw(st.integers(1, 2))):
            permissions = draw(_NEXT if number or action else _FIRST)
            if permissions not in ("u", "g", "o") and not directory and draw(st.booleans()):
                permissions += "s"
            clause += draw(st.sampled_from("+-=")) + permissions
        clauses.append(clause)
    return ",".join(clauses)


@pytest.mark.skipif(not _is_gnu(), reason="there is no GNU chmod to compare with")
@pytest.mark.parametrize("directory", [False, True])
@settings(deadline=None, max_examples=150)
@given(st.data())
def test_gnu_s_chmod_says_the_same(directory: bool, data: st.DataObject) -> None:
    text = data.draw(_modes(directory=directory))
    before = data.draw(st.integers(0, 0o1777 if directory else 0o7777))
    with tempfile.TemporaryDirectory() as scratch:
        path = f"{scratch}/x"
        if directory:
            os.mkdir(path)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        os.chmod(path, before)
        subprocess.run(["chmod", "--", text, path], check=True, umask=0, capture_output=True)
        after = stat.S_IMODE(os.stat(path).st_mode)
        os.chmod(path, 0o700)
    assert f"{parse_symbolic(text).of(before, directory=directory):o}" == f"{after:o}"


@given(st.text("ugoarwxXst+-=,07", max_size=12), st.integers(0, 0o7777), st.booleans())
def test_any_text_is_a_mode_or_refused(text: str, before: int, directory: bool) -> None:
    try:
        mode = parse_symbolic(text)
    except DockerfileError:
        return
    assert 0 <= mode.of(before, directory=directory) <= 0o7777
