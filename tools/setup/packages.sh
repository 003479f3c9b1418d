#!/bin/bash
# Usage: packages.sh [NAME...]     install those Debian packages that are missing
#        packages.sh --update      only refresh apt's lists
#
# Without names it takes the list in packages.txt. When nothing is missing it
# touches neither the network nor the package database, so a warm machine can be
# offline. No service is started, and none that it installs will start at boot.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
policy=/usr/sbin/policy-rc.d
apt_options=(-qq -y -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 -o Acquire::Retries=3)

# say tells people; standard output stays free for results.
say() { printf 'setup: %s\n' "$*" >&2; }

# missing_of prints those of its arguments that are not installed.
missing_of() {
    local installed
    installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null |
        awk '$2 == "installed" { print $1 }') || true
    comm -23 <(printf '%s\n' "$@" | sort -u) <(sort -u <<<"$installed")
}

# become_root runs this script again as root, if there is a way to.
become_root() {
    if [ "$(id -u)" = 0 ]; then
        return
    fi
    local non_interactive=()
    [ -t 0 ] || non_interactive=(-n)
    if command -v sudo >/dev/null &&
        sudo "${non_interactive[@]}" --preserve-env=http_proxy,https_proxy,no_proxy \
            "${BASH_SOURCE[0]}" "$@"; then
        exit 0
    fi
    say "these have to be installed as root: apt-get install --no-install-recommends $*"
    exit 1
}

# quietly runs a command; its output is shown only if it fails.
quietly() {
    local log
    log=$(mktemp)
    if ! "$@" </dev/null >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        say "failed: $*"
        return 1
    fi
    rm -f "$log"
}

# hold_services_back makes the packages' scripts start nothing, until this script
# ends. A policy that is there already is somebody else's: it stays.
hold_services_back() {
    [ -e "$policy" ] && return
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
}

# disable_services keeps the daemons of packages that were just installed from
# starting at the next boot: winvm and its tests run smbd and sshd themselves and
# share nothing else.
disable_services() {
    local service services=()
    case " $* " in *" samba "*) services+=(smbd nmbd samba-ad-dc) ;; esac
    case " $* " in *" openssh-server "*) services+=(ssh) ;; esac
    for service in "${services[@]}"; do
        update-rc.d "$service" disable >/dev/null 2>&1 || true
        if [ -d /run/systemd/system ]; then
            systemctl disable "$service" >/dev/null 2>&1 || true
        fi
    done
}

main() {
    local want=("$@") missing
    if ! command -v dpkg-query >/dev/null; then
        say "this is no Debian system: install by hand what tools/setup/packages.txt lists"
        [ "${CI:-}" != true ]
        return
    fi
    if [ "${1:-}" = --update ]; then
        become_root "$@"
        quietly apt-get "${apt_options[@]}" update
        return
    fi
    if [ ${#want[@]} = 0 ]; then
        mapfile -t want < <(awk '{ sub(/#.*/, "") } NF { print $1 }' "$here/packages.txt")
    fi
    mapfile -t missing < <(missing_of "${want[@]}")
    if [ ${#missing[@]} = 0 ]; then
        return
    fi
    become_root "${missing[@]}"
    say "installing ${missing[*]}"
    hold_services_back
    quietly apt-get "${apt_options[@]}" update
    quietly apt-get "${apt_options[@]}" --no-install-recommends install "${missing[@]}"
    disable_services "${missing[@]}"
    mapfile -t missing < <(missing_of "${missing[@]}")
    if [ ${#missing[@]} != 0 ]; then
        say "apt-get reported success but these are still missing: ${missing[*]}"
        return 1
    fi
}

main "$@"
