#!/bin/sh
# Take the snapshot in a default container of docker: docker.sh FOLDER CGROUP [MAJOR:MINOR...], which are the devices to
# leave out. FOLDER holds image.tar and gets version, snapshot and dockerd.log.
#
# The daemon runs in network, mount and pid namespaces of its own and without a bridge, so that it touches neither the
# host's firewall nor its network, and everything that it starts or mounts ends with this script; the caller removes
# CGROUP. What it would change outside of namespaces, the limits of the kernel's keys, is read-only for it.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
folder=$1
group=$2
shift 2

mount -t tmpfs -o mode=755 tmpfs /run
[ ! -d /etc/docker ] || mount -t tmpfs tmpfs /etc/docker
mount --bind /proc/sys/kernel/keys /proc/sys/kernel/keys
mount -o remount,bind,ro /proc/sys/kernel/keys

dockerd --host unix:///run/docker.sock --data-root "$folder/data" --exec-root /run/docker --pidfile /run/docker.pid \
    --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --cgroup-parent "/$group" \
    >"$folder/dockerd.log" 2>&1 &
daemon=$!
export DOCKER_HOST=unix:///run/docker.sock DOCKER_CONFIG="$folder/client"
until docker version --format '{{.Server.Version}}' >"$folder/version" 2>/dev/null; do
    kill -0 $daemon
    sleep 0.1
done
docker import "$folder/image.tar" snapshot >/dev/null
docker run --rm --network none snapshot /snapshot inside "$@" >"$folder/snapshot"
