#!/usr/bin/env bash
# Install minidock on Debian: packages, a virtual environment of its own, the command, the data root and a base image;
# then build Dockerfile.example and run it with a volume. Running it again changes nothing that is in place.
set -euo pipefail

PREFIX=/opt/minidock
COMMAND=/usr/local/bin/minidock
ROOT=${MINIDOCK_ROOT:-/var/lib/minidock}
PACKAGES=(python3 python3-venv python3-dev gcc libc6-dev libcap-dev libseccomp2 libnftables1 busybox-static mmdebstrap)
HERE=$(cd "$(dirname "$0")" && pwd)

say() { printf '\n==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }
die() {
    printf 'install.sh: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '            %s\n' "$line" >&2; done
    exit 1
}

usage() {
    cat <<TEXT
Usage: sudo ./install.sh [--uninstall [--purge]] [--no-example]

  (no option)    install minidock, a busybox base image, and show it at work
  --no-example   install only; do not build and run Dockerfile.example
  --uninstall    remove the command, its environment and its network; data stays under $ROOT
  --purge        with --uninstall: remove the data too (images, containers, volumes)
TEXT
}

check_host() {
    [ "$(id -u)" = 0 ] || die "minidock must be installed by root" "run: sudo ./install.sh"
    command -v apt-get >/dev/null 2>&1 || die "this is not a Debian system: apt-get is missing" \
        "install these by hand and run it again: ${PACKAGES[*]}"
    local release major minor
    release=$(uname -r)
    major=${release%%.*}
    minor=${release#*.}
    minor=${minor%%[!0-9]*}
    if [ "$major" -lt 5 ] || { [ "$major" -eq 5 ] && [ "$minor" -lt 10 ]; }; then
        die "Linux $release is too old" "minidock needs 5.10 or newer"
    fi
    if ! grep -qw overlay /proc/filesystems; then
        modprobe overlay 2>/dev/null || true
        grep -qw overlay /proc/filesystems || die "the kernel has no overlay file system" \
            "load it (modprobe overlay), or use the slower driver: minidock --storage-driver vfs"
    fi
}

install_packages() {
    say "Debian packages: ${PACKAGES[*]}"
    local missing=() package
    for package in "${PACKAGES[@]}"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    if [ "${#missing[@]}" = 0 ]; then
        note "all are installed"
        return
    fi
    note "installing: ${missing[*]}"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends \
        "${missing[@]}" >/dev/null
}

source_hash() {
    (cd "$HERE" && find minidock pyproject.toml -type f ! -name '*.pyc' -print0 | LC_ALL=C sort -z |
        xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
}

install_program() {
    say "virtual environment in $PREFIX, command $COMMAND"
    local hash build
    hash=$(source_hash)
    if [ "$(cat "$PREFIX/source.sha256" 2>/dev/null)" = "$hash" ] && [ -x "$COMMAND" ]; then
        note "this version is installed"
        return
    fi
    [ -x "$PREFIX/bin/python3" ] || /usr/bin/python3 -m venv "$PREFIX"
    build=$(mktemp -d)
    # setuptools writes beside the source, so it gets a copy.
    cp -r "$HERE/minidock" "$HERE/pyproject.toml" "$HERE/README.md" "$build/"
    if ! "$PREFIX/bin/pip" --quiet install --disable-pip-version-check --use-pep517 --upgrade "$build"; then
        rm -rf "$build"
        die "the Python packages could not be installed" "is PyPI reachable? see the message above"
    fi
    "$PREFIX/bin/pip" --quiet install --disable-pip-version-check --force-reinstall --no-deps "$build"
    rm -rf "$build"
    write_command
    "$PREFIX/bin/python3" -m compileall -q "$PREFIX"/lib/python3*/site-packages/minidock
    printf '%s\n' "$hash" >"$PREFIX/source.sha256"
}

write_command() {
    local packages
    packages=$("$PREFIX/bin/python3" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
    # Isolated and without site: nothing of the caller's environment is imported, and the start is faster.
    cat >"$COMMAND.new" <<TEXT
#!$PREFIX/bin/python3 -IS
import sys

sys.path.append("$packages")
from minidock.cli.main import main

sys.exit(main())
TEXT
    chmod 0755 "$COMMAND.new"
    mv "$COMMAND.new" "$COMMAND"
}

install_data() {
    say "data root $ROOT and a base image"
    "$COMMAND" info >/dev/null 2>&1
    "$COMMAND" image bootstrap busybox
    note "$ROOT/images      an OCI image layout: every image and its layers"
    note "$ROOT/layers      layers as directories, ready to be mounted"
    note "$ROOT/containers  one folder for each container"
    note "$ROOT/volumes     one folder for each volume"
}

show_example() {
    say "build Dockerfile.example (minidock build -t example -f Dockerfile.example .)"
    "$COMMAND" build -t example -f "$HERE/Dockerfile.example" "$HERE"
    say "run it with a volume (minidock run --rm -v example_data:/data example)"
    "$COMMAND" run --rm -v example_data:/data example
    note "the volume's files lie in $ROOT/volumes/example_data/_data:"
    local file
    for file in "$ROOT"/volumes/example_data/_data/*; do note "  $file ($(stat -c '%s bytes' "$file"))"; done
    say "minidock is ready: try 'minidock run --rm -it busybox' and 'minidock explain run busybox true'"
}

uninstall() {
    [ "$(id -u)" = 0 ] || die "minidock must be removed by root" "run: sudo ./install.sh --uninstall"
    if [ -x "$COMMAND" ]; then
        say "stopping containers, removing the network"
        local running
        running=$("$COMMAND" ps -q 2>/dev/null || true)
        # shellcheck disable=SC2086 # one word for each container
        [ -z "$running" ] || "$COMMAND" stop -t 3 $running >/dev/null || true
        "$COMMAND" system teardown || true
    fi
    say "removing $PREFIX and $COMMAND"
    rm -rf "$PREFIX"
    rm -f "$COMMAND"
    # Another data root's containers may run on: only what is empty or the removed network's goes.
    rm -rf /run/minidock/net
    rmdir /run/minidock/roots /run/minidock 2>/dev/null || true
    if [ "${1:-}" = purge ]; then
        say "removing the data under $ROOT"
        rm -rf "$ROOT"
    else
        note "the data stays under $ROOT (remove it with: sudo ./install.sh --uninstall --purge)"
    fi
    note "Debian packages were left installed"
}

example=yes mode=install purge=
for argument in "$@"; do
    case $argument in
        --uninstall) mode=uninstall ;;
        --purge) purge=purge ;;
        --no-example) example=no ;;
        -h | --help) usage && exit 0 ;;
        *) usage >&2 && die "unknown option '$argument'" ;;
    esac
done

if [ "$mode" = uninstall ]; then
    uninstall "$purge"
    exit 0
fi
[ -z "$purge" ] || die "--purge goes with --uninstall"
check_host
install_packages
install_program
install_data
[ "$example" = no ] || show_example
