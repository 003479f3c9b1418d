#!/bin/bash
# Usage: go.sh      print the directory of a `go` command that is new enough
#
# In this order: the one on PATH, /usr/local/go, the one fetched earlier, and at
# last one fetched now, as the module golang.org/toolchain from the Go module proxy
# (`go env GOPROXY` says which), by whatever older Go there is or else by Debian's.
# The pinned checksum is checked by that Go; no checksum database is needed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${WINVM_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/winvm}

version=1.26.8
module=golang.org/toolchain
module_version=v0.0.1-go$version.linux-amd64
content_sum=h1:ZOmGe1OnfREDMIdb1Qi4G9JSuDPBLGExZMQ4nis1RXM=
gomod_sum=h1:8wlg68NqwW7eMnI1aABk/C2pDYXj8mrMY4TyRfiLeS0=
fetched=$cache/go/$version

say() { printf 'setup: %s\n' "$*" >&2; }

# needed prints the newest Go version that one of our modules asks for.
needed() {
    awk '$1 == "go" { print $2 }' "$here/../../go.mod" "$here/../go.mod" | sort -V | tail -n 1
}

# version_of prints the version of a go command, without "go", or nothing.
version_of() {
    (cd / && GOTOOLCHAIN=local GOFLAGS='' "$1" env GOVERSION 2>/dev/null) |
        sed -n 's/^.*go\([0-9][0-9.]*\).*$/\1/p'
}

# new_enough succeeds if the go command is at least as new as is needed.
new_enough() {
    local have
    [ -x "$1" ] || return 1
    have=$(unset GOROOT && version_of "$1")
    [ -n "$have" ] && printf '%s\n' "$(needed)" "$have" | sort -V -C
}

# any_go prints a go command of whatever age that can download a module.
any_go() {
    local go
    for go in "$(command -v go || true)" /usr/local/go/bin/go /usr/bin/go; do
        if [ -x "$go" ]; then
            printf '%s\n' "$go"
            return
        fi
    done
    "$here/packages.sh" golang-go
    printf '/usr/bin/go\n'
}

# fetch puts the pinned toolchain into the cache. It appears there whole or not at all.
fetch() (
    if [ "$(uname -sm)" != 'Linux x86_64' ]; then
        say "Go $(needed) or newer is needed on PATH; it is fetched for Linux on x86_64 only"
        return 1
    fi
    go=$(any_go)
    mkdir -p "$cache/go"
    work=$(mktemp -d "$cache/go/.fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    say "fetching Go $version through the module proxy"
    mkdir "$work/scratch"
    cd "$work/scratch"
    printf 'module scratch\n\ngo 1.19\n\nrequire %s %s\n' "$module" "$module_version" >go.mod
    printf '%s %s %s\n' "$module" "$module_version" "$content_sum" \
        "$module" "$module_version/go.mod" "$gomod_sum" >go.sum
    unset GOROOT GOBIN
    if ! GOTOOLCHAIN=local GOWORK=off GO111MODULE=on GOFLAGS=-modcacherw \
        GOMODCACHE=$work/mod GOPATH=$work/path "$go" mod download "$module" </dev/null >&2; then
        say "Go $version could not be fetched; put Go $(needed) or newer on PATH, or set GOPROXY to a module proxy that is reached"
        return 1
    fi
    # A module carries no execute bits.
    chmod 0755 "$work/mod/$module@$module_version"/bin/* \
        "$work/mod/$module@$module_version"/pkg/tool/*/*
    rm -rf "$fetched"
    mv -T "$work/mod/$module@$module_version" "$fetched"
)

main() {
    local go
    for go in "$(command -v go || true)" /usr/local/go/bin/go "$fetched/bin/go"; do
        if new_enough "$go"; then
            dirname "$go"
            return
        fi
    done
    mkdir -p "$cache/go"
    exec 9>"$cache/go/.lock"
    flock 9
    if ! new_enough "$fetched/bin/go"; then
        fetch
    fi
    if ! new_enough "$fetched/bin/go"; then
        say "$fetched/bin/go does not run, or go.mod asks for $(needed), which is newer: remove $fetched, or pin a newer version in ${BASH_SOURCE[0]}"
        return 1
    fi
    printf '%s\n' "$fetched/bin"
}

main
