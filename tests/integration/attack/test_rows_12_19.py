"""Rows 12, 15, 16 and 19 of SECURITY.md, section 2: an image's directories, helper programs and libraries."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RUN = ("run", "--rm", "--network", "none")
HELPERS = (
    *("xz", "unxz", "gzip", "gunzip", "zcat", "bzip2", "zstd", "unpigz", "tar", "unzip", "git", "cp", "mkdir", "chown"),
    *(
        "nsenter",
        "unshare",
        "ps",
        "top",
        "mount",
        "umount",
        "ip",
        "nft",
        "iptables",
        "modprobe",
        "newuidmap",
        "newgidmap",
    ),
    *("python", "python3", "id", "getent", "sh.real", "tini", "docker-init", "ldconfig", "udevadm", "systemctl"),
)
TRAPS = "for f in /ran.* /imported /loaded; do [ -e $f ] && echo $f; done; echo looked"


# Row 12


@pytest.mark.parametrize("target", ["SENTINEL", "/../../../SENTINEL", "../../../../../../../../SENTINEL/private"])
def test_row_12_no_directory_of_the_host_is_made_or_given_away(
    minidock: Any, make_image: Callable[..., None], sentinel: Any, target: str
) -> None:
    """WORKDIR, ``-w``, COPY and VOLUME below a link that seems to lead to the host, as another user too."""
    link = target.replace("SENTINEL", str(sentinel.path))
    make_image("evil", lambda tree: (tree / "w").symlink_to(link))
    for lines in ("USER 1000\nWORKDIR /w/x/y", "WORKDIR /w\nWORKDIR empty"):
        folder = sentinel.path.parent / "context"
        folder.mkdir(exist_ok=True)
        (folder / "file").write_text("copied")
        (folder / "Dockerfile").write_text(
            f"FROM evil\n{lines}\nCOPY --chown=1:1 file /w/copied\nRUN touch /w/touched\n"
        )
        minidock.build(folder, "-t", "built", "--no-cache")
        listing = minidock.out(*RUN, "-w", "/", "built", "sh", "-c", "find /w/. ; ls -l /w/copied")
        assert "secret" not in listing
        assert "/w/./touched" in listing
        minidock(*RUN, "-w", "/w/new/deep", "-u", "1000", "built", "true")
        minidock(*RUN, "-u", "0", "-v", "/w/volume", "built", "touch", "/w/volume/file")


# Rows 15 and 19


def trapped(tree: Path) -> None:
    """Every program that an engine might be tempted to use leaves a mark when it runs."""
    for directory in ("bin", "usr/bin", "sbin", "usr/sbin", "usr/local/bin"):
        (tree / directory).mkdir(parents=True, exist_ok=True)
        for name in HELPERS:
            path = tree / directory / name
            path.unlink(missing_ok=True)
            path.write_text(f"#!/bin/sh\n: >/ran.{name}\n")
            path.chmod(0o755)


def archives(folder: Path) -> None:
    """The same file in every form that ADD unpacks, and one that only begins so."""
    (folder / "content").write_text("content")
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.bz2", "w:bz2"), ("a.tar.xz", "w:xz")):
        with tarfile.open(folder / name, mode) as tar:
            tar.add(folder / "content", f"from-{name}")
    (folder / "magic.xz").write_bytes(b"\xfd7zXZ\0" + bytes(100))
    (folder / "magic.gz").write_bytes(b"\x1f\x8b\x08" + bytes(100))


def test_row_15_no_program_of_the_image_unpacks_for_the_engine(
    minidock: Any, make_image: Callable[..., None], context: Any
) -> None:
    make_image("evil", trapped)
    lines = "".join(f"ADD a.tar{suffix} /added/\n" for suffix in ("", ".gz", ".bz2", ".xz"))
    folder = context(f"FROM evil\n{lines}COPY --from=evil /etc/passwd /copied\nCOPY --chown=bob:wheel content /c\n")
    archives(folder)
    minidock.build(folder, "-t", "built")
    listing = minidock.out(*RUN, "built", "/bin/sh", "-c", f"ls /added; {TRAPS}").split()
    assert listing[:-1] == ["from-a.tar", "from-a.tar.bz2", "from-a.tar.gz", "from-a.tar.xz"]
    for name in ("magic.xz", "magic.gz"):
        (folder / "Dockerfile").write_text(f"FROM evil\nADD {name} /added/\n")
        if minidock("build", "-t", "built", folder, status=None, timeout=60).returncode == 0:
            assert minidock.out(*RUN, "built", "/bin/sh", "-c", TRAPS) == "looked"


def test_row_19_no_command_uses_the_images_tools(minidock: Any, make_image: Callable[..., None]) -> None:
    """The product has no ``top`` yet: all that looks into a container or acts on one, and the traps stay unsprung."""
    make_image("evil", trapped)
    minidock("run", "-d", "--name", "it", "--keep", "-v", "vol:/vol", "evil", "/bin/sh", "-c", "/bin/sleep 1000")
    minidock("exec", "-u", "bob", "it", "/bin/busybox", "id")
    minidock("exec", "-w", "/tmp", "--privileged", "it", "/bin/busybox", "id")
    for command in (("ps", "-a"), ("inspect", "it"), ("logs", "it"), ("pause", "it"), ("unpause", "it"), ("info",)):
        minidock(*command)
    assert minidock.out("exec", "it", "/bin/sh", "-c", TRAPS) == "looked"
    minidock("stop", "-t", "0", "it")
    minidock("start", "it")
    minidock("kill", "it")
    minidock("wait", "it")
    minidock("start", "it")
    assert minidock.out("exec", "it", "/bin/sh", "-c", TRAPS) == "looked"
    # The trap is one: it springs when the container itself runs such a tool.
    minidock("exec", "it", "ps")
    assert minidock.out("exec", "it", "/bin/sh", "-c", TRAPS).split() == ["/ran.ps", "looked"]


# Row 16


def evil_python(tree: Path) -> None:
    """In the image, wherever the engine's interpreter looks for modules, each of them is the attacker's."""
    text = f'open("/imported", "a").write(__name__)\nraise ImportError({"evil"!r})\n'
    package = Path(sys.modules["minidock"].__file__ or "").parent
    for folder in (*filter(None, sys.path), str(package.parent)):
        for source in Path(folder).glob("*"):
            inside = tree / str(source)[1:]
            if source.suffix in {".py", ".so"}:
                inside.parent.mkdir(parents=True, exist_ok=True)
                inside.with_name(source.name.split(".")[0] + ".py").write_text(text)
            elif (source / "__init__.py").exists() and source.is_relative_to(Path(sys.base_prefix, "lib")):
                inside.mkdir(parents=True, exist_ok=True)
                (inside / "__init__.py").write_text(text)
    for source in package.rglob("*.py"):
        inside = tree / str(source)[1:]
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.write_text(text)


def evil_libraries(tree: Path, library: Path) -> None:
    """What the C library loads by itself: name services, character sets, and whatever is preloaded."""
    (tree / "etc/nsswitch.conf").write_text("passwd: evil\ngroup: evil\nhosts: evil\n")
    (tree / "etc/ld.so.preload").write_text("/lib/x86_64-linux-gnu/evil.so\n")
    folder = tree / "lib/x86_64-linux-gnu"
    (folder / "gconv").mkdir(parents=True)
    names = (
        "evil.so",
        "libnss_evil.so.2",
        "libnss_files.so.2",
        "libnss_dns.so.2",
        "libnss_compat.so.2",
        "libgcc_s.so.1",
    )
    for name in (*names, "libc.so.6", "libseccomp.so.2", "libcap.so.2", "gconv/UTF-16.so", "gconv/gconv-modules"):
        (folder / name).write_bytes(library.read_bytes())
    (tree / "usr/lib").mkdir(parents=True, exist_ok=True)
    (tree / "usr/lib/locale").write_text("no folder")


@pytest.fixture(scope="session")
def evil_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared library that leaves a mark wherever it is loaded."""
    folder = tmp_path_factory.mktemp("evil")
    (folder / "evil.c").write_text(
        "#include <fcntl.h>\n#include <unistd.h>\n"
        '__attribute__((constructor)) static void mark(void) { close(open("/loaded", O_CREAT | O_WRONLY, 0600)); }\n'
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "evil.so", folder / "evil.c"], check=True)
    return folder / "evil.so"


@pytest.fixture
def evil_image(make_image: Callable[..., None], evil_library: Path) -> str:
    def change(tree: Path) -> None:
        evil_python(tree)
        evil_libraries(tree, evil_library)

    library = "/lib/x86_64-linux-gnu"
    make_image(
        "evil",
        change,
        f"ENV PYTHONPATH=/evil PYTHONHOME=/evil PYTHONSTARTUP=/evil/x.py LD_PRELOAD={library}/evil.so\n"
        f"ENV LD_LIBRARY_PATH={library} GCONV_PATH={library}/gconv LOCPATH=/usr/lib/locale LANG=de_DE.UTF-16 LC_ALL=C",
    )
    return "evil"


def test_row_16_nothing_of_the_image_is_loaded_by_the_engine(minidock: Any, evil_image: str) -> None:
    """Starts and joins that succeed and that fail in every way after the root has changed."""
    minidock("run", "-d", "--name", "it", "--network", "none", evil_image, "sleep", "1000")
    starts = (
        *(("true",), ("/no/such",), ("no-such",), ("/etc/passwd",), ("/tmp",), ("/bin/caf\udce9",)),
        *(("-u", "bob", "id"), ("-u", "nobody-there", "id"), ("-u", "bob:nobody-there", "id"), ("-u", "77:88", "id")),
        *(("-w", "/etc/passwd", "true"), ("-w", "/proc/self/fd/9", "true"), ("-w", "/\udce9", "true")),
        *(("-e", "A=\udce9", "env"), ("-e", "PATH=/\udce9:/bin", "true")),
    )
    for words in starts:
        flags, command = (words[:2], words[2:]) if words[0].startswith("-") else ((), words)
        for arguments in (
            ("exec", *flags, "it", *command),
            (*RUN[:1], "--name", "other", "--keep", *flags, evil_image, *command),
        ):
            done = minidock(*arguments, status=None)
            assert "evil" not in done.stderr.replace("evil_", ""), (arguments, done.stderr)
            assert "ImportError" not in done.stderr
        upper = minidock.root / "containers"
        assert not list(upper.glob("*/upper/imported")) + list(upper.glob("*/upper/loaded")), arguments
        minidock("rm", "-f", "other", status=None)
    assert minidock.out("exec", "it", "sh", "-c", TRAPS) == "looked"


def test_row_16_of_a_build_neither(minidock: Any, evil_image: str, context: Any) -> None:
    folder = context(
        f"FROM {evil_image}\nUSER bob:wheel\nWORKDIR /x\nRUN true\nUSER root\nADD a.tar.xz /added/\n"
        "COPY --chown=bob:wheel content /c\nCOPY --from=0 /etc/passwd /p\n".replace(
            "COPY --from=0 /etc/passwd /p\n", ""
        )
    )
    archives(folder)
    minidock.build(folder, "-t", "built")
    (folder / "Dockerfile").write_text(f"FROM {evil_image}\nUSER nobody-there\nRUN true\n")
    minidock("build", "-t", "bad", folder, status=1)
    assert minidock.out(*RUN, "built", "sh", "-c", TRAPS) == "looked"
