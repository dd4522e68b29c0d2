"""Three real Dockerfiles on a real Debian: a service, a compiled program on scratch, a Python application."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

SERVICE = """\
FROM debian
RUN apt-get update && apt-get install -y --no-install-recommends nginx-light
RUN echo "served by minidock" > /var/www/html/index.html
EXPOSE 80
CMD ["nginx", "-g", "daemon off;"]
"""

PROGRAM = """\
FROM debian AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
COPY hello.c /src/
RUN gcc -static -o /hello /src/hello.c
FROM scratch
COPY --from=build /hello /hello
ENTRYPOINT ["/hello"]
"""

APPLICATION = """\
FROM debian
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-pip
WORKDIR /app
COPY certificates.crt requirements.txt ./
RUN PIP_CERT=/app/certificates.crt pip install --break-system-packages --no-cache-dir -r requirements.txt
COPY app.py .
USER 1000
CMD ["python3", "app.py"]
"""


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory, debian_tar: Path, minidock_at) -> Iterator:
    """The command on one data root for the whole module, with a Debian image."""
    command = minidock_at(tmp_path_factory.mktemp("real") / "root")
    command("import", debian_tar, "debian", timeout=120)
    yield command
    command.close()


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    return folder


def disk_usage(path: Path) -> int:
    return int(subprocess.run(["du", "-sk", path], check=True, capture_output=True, text=True).stdout.split()[0]) * 1024


def steps(progress: str) -> dict[str, bool]:
    """The numbered steps of a build by their text, and whether each was taken from the cache."""
    titles = {
        line.split()[0]: line.partition("] ")[2]
        for line in progress.splitlines()
        if "/" in line.partition("]")[0] and "[" in line
    }
    cached = {line.split()[0] for line in progress.splitlines() if line.endswith(" CACHED")}
    return {title: number in cached for number, title in titles.items() if not title.startswith("FROM")}


def answer_of(address: str) -> str:
    deadline = time.monotonic() + 15
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/", timeout=5) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def test_a_service_installed_by_apt_answers_on_its_bridge_address(debian, tmp_path: Path) -> None:
    folder = write(tmp_path / "web", Dockerfile=SERVICE)
    debian.build(folder, "-t", "web")
    before = disk_usage(debian.root)
    debian("run", "-d", "--name", "web", "web")
    assert answer_of(debian.inspect("web")["NetworkSettings"]["IPAddress"]) == "served by minidock\n"
    debian("stop", "web")
    debian("rm", "web")
    again = debian.build(folder, "-t", "web2")
    assert all(steps(again).values())
    assert len(steps(again)) == 2
    (folder / "Dockerfile").write_text(SERVICE.replace("served", "also served"))
    debian.build(folder, "-t", "other")
    assert disk_usage(debian.root) - before < 1_000_000, "two images with one base share its layers"


def test_a_program_compiled_in_one_stage_runs_on_scratch(debian, tmp_path: Path) -> None:
    source = '#include <stdio.h>\nint main(void) { puts("hello from scratch"); return 0; }\n'
    folder = write(tmp_path / "program", Dockerfile=PROGRAM, hello_c=source)
    debian.build(folder, "-t", "hello")
    assert debian.out("run", "--rm", "--network", "none", "hello") == "hello from scratch"
    assert all(steps(debian.build(folder, "-t", "hello")).values())


def test_a_python_application_installed_by_pip(debian, tmp_path: Path) -> None:
    """The host's certificates come along: a package index may stand behind a proxy that they vouch for."""
    source = "import humanize\nprint(humanize.naturalsize(1234567))\n"
    folder = write(tmp_path / "app", Dockerfile=APPLICATION, requirements_txt="humanize==4.9.0\n", app_py=source)
    shutil.copy(CERTIFICATES, folder / "certificates.crt")
    debian.build(folder, "-t", "app")
    assert debian.out("run", "--rm", "--network", "none", "app") == "1.2 MB"

    for path in folder.iterdir():
        os.utime(path, (1, 1))
    assert all(steps(debian.build(folder, "-t", "app")).values()), "times alone change nothing"

    (folder / "app.py").write_text(source.replace("1234567", "7654321"))
    progress = steps(debian.build(folder, "-t", "app"))
    assert [cached for title, cached in progress.items()] == [True, True, True, True, False]
    assert debian.out("run", "--rm", "--network", "none", "app") == "7.7 MB"

    (folder / "requirements.txt").write_text("humanize==4.8.0\n")
    progress = steps(debian.build(folder, "-t", "app"))
    assert [cached for title, cached in progress.items()] == [True, True, False, False, False]
