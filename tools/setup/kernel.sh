#!/bin/bash
# Usage: kernel.sh            print the path of a Linux kernel for the tests' small VMs
#        kernel.sh FLAVOUR    the same of another kernel of Debian's: amd64 has 9p,
#                             which the cloud kernel lacks (`make bench` wants it)
#
# It is Debian's cloud kernel, unpacked into the cache and not installed, with its
# modules beside it in lib/modules. One that is cached is used as it is, without
# the network; remove the cache's kernel directory to have a newer one.
set -euo pipefail

flavour=${1:-cloud-amd64}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${WINVM_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/winvm}/kernel
meta=linux-image-$flavour
current=current
[ "$flavour" = cloud-amd64 ] || current=current-$flavour

say() { printf 'setup: %s\n' "$*" >&2; }

# cached prints the path of the kernel in the cache, or fails.
cached() {
    local kernel
    for kernel in "$cache/$current"/boot/vmlinuz-*; do
        [ -f "$kernel" ] && realpath "$kernel" && return
    done
    return 1
}

# package prints the name of the package behind the meta package, or nothing.
package() {
    apt-cache depends "$meta" 2>/dev/null | awk '$1 == "Depends:" && !found { print $2; found = 1 }'
}

# download fetches the package into the directory $1.
download() {
    local name
    name=$(package)
    [ -n "$name" ] && (cd "$1" && apt-get -qq -o APT::Sandbox::User=root download "$name" </dev/null)
}

# fetch unpacks the package into the cache. It appears there whole or not at all.
fetch() (
    if ! command -v apt-get >/dev/null; then
        say "no apt-get here: set WINVM_TEST_KERNEL to a Linux kernel image for x86_64, with its modules in ../lib/modules"
        return 1
    fi
    work=$(mktemp -d "$cache/.fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    say "fetching a kernel for the tests' VMs ($flavour)"
    # apt's lists may be missing, or older than the mirror.
    if ! download "$work" 2>/dev/null; then
        "$here/packages.sh" --update
        download "$work"
    fi
    mkdir "$work/root"
    dpkg-deb -x "$work"/*.deb "$work/root"
    release=$(cd "$work/root/lib/modules" && echo *)
    "$(PATH=$PATH:/usr/sbin:/sbin command -v depmod)" -b "$work/root" "$release"
    chmod 0755 "$work/root"
    rm -rf "${cache:?}/$release"
    mv -T "$work/root" "$cache/$release"
    ln -sfnT "$release" "$cache/$current"
)

if [ $# = 0 ] && [ -n "${WINVM_TEST_KERNEL:-}" ]; then
    printf '%s\n' "$WINVM_TEST_KERNEL"
    exit 0
fi
if ! cached; then
    mkdir -p "$cache"
    exec 9>"$cache/.lock"
    flock 9
    if ! cached; then
        fetch
        cached
    fi
fi
