#!/bin/bash
# Usage: bareroot.sh [COMMAND...]      (as root; the default is: make test)
#
# Proves that the tree needs nothing installed by hand: makes a Debian 12 root with
# the base system, make and git, puts a copy of the work tree into it, runs the
# command there with CI=true, and removes it all again. This machine's package
# sources, certificates and proxy settings are lent to it, since what reaches the
# network here is nothing the tree can know. WINVM_BARE_ROOT names a directory to
# keep it in instead; a root that is there already is used again.
set -euo pipefail

tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

make_root() {
    mmdebstrap --quiet --variant=minbase --include=make,git,ca-certificates bookworm "$1"
    # What mmdebstrap takes from this machine on its own is enough to make the
    # root, but not always to go on with in it.
    rm -rf "$1/etc/apt/sources.list" "$1/etc/apt/sources.list.d"
    cp -a /etc/apt/sources.list.d "$1/etc/apt/"
    if [ -f /etc/apt/sources.list ]; then cp -a /etc/apt/sources.list "$1/etc/apt/"; fi
    cp -aL /etc/apt/apt.conf.d/. "$1/etc/apt/apt.conf.d/"
    rm -f "$1"/etc/apt/apt.conf.d/docker-* "$1"/etc/apt/apt.conf.d/20packagekit
    cp -aL /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"
    cp -L /etc/resolv.conf /etc/hosts "$1/etc/"
}

copy_tree() {
    rm -rf "$1/src/winvm"
    mkdir -p "$1/src/winvm"
    (cd "$tree" && git ls-files -co --exclude-standard -z |
        while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
        tar --null -T - -cf -) | tar -C "$1/src/winvm" -xf -
    git -C "$1/src/winvm" init -q
}

# inside runs in a mount and process namespace of its own: what it mounts and
# starts ends with it.
inside() {
    local root=$1
    shift
    mount --make-rprivate /
    mount --bind "$root" "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    # shellcheck disable=SC2016 # expanded inside
    exec chroot "$root" /usr/bin/env -i HOME=/root LANG=C.UTF-8 TERM=dumb CI="${CI:-true}" \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        ${http_proxy:+"http_proxy=$http_proxy"} ${https_proxy:+"https_proxy=$https_proxy"} \
        ${no_proxy:+"no_proxy=$no_proxy"} ${GOPROXY:+"GOPROXY=$GOPROXY"} \
        /bin/bash -c 'cd /src/winvm && exec "$@"' bash "$@" </dev/null
}

main() {
    local root status=0
    if [ "${1:-}" = --inside ]; then
        shift
        inside "$@"
    fi
    [ $# != 0 ] || set -- make test
    root=${WINVM_BARE_ROOT:-$(mktemp -d /var/tmp/winvm-bare.XXXXXX)}
    [ -x "$root/bin/bash" ] || make_root "$root"
    copy_tree "$root"
    unshare --mount --pid --fork --kill-child "${BASH_SOURCE[0]}" --inside "$root" "$@" || status=$?
    if [ -z "${WINVM_BARE_ROOT:-}" ]; then
        rm -rf --one-file-system "$root"
    fi
    return "$status"
}

main "$@"
