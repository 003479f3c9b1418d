#!/bin/bash
# Usage: leftovers.sh before FILE       note what there is before the tests
#        leftovers.sh after FILE DIR    fail if the tests left anything behind
#
# DIR is the temporary directory that the tests were given as TMPDIR. What is
# left counts as the tests' if it lies in DIR; or if it is a process that has
# DIR in its environment or on its command line, or an orphan with one of our
# names that was not there before; or if it is a new mount, shared-memory file or
# runtime directory of winvm. Other work on the same machine is left out of it.
# Each finding is a line on standard error; processes found are then ended, so
# that the next run starts clean.
set -euo pipefail

names='^(qemu-system-.*|qemu-img|smbd|controlleragent|hostagent|serialdbg|virtiofsd|winvm-.*)$'

# processes_with prints the processes that carry the directory $1.
processes_with() {
    local dir pid
    for dir in /proc/[0-9]*; do
        pid=${dir#/proc/}
        if [ "$pid" = $$ ]; then continue; fi
        if grep -qzF -- "TMPDIR=$1" "$dir/environ" 2>/dev/null ||
            grep -qzF -- "$1/" "$dir/cmdline" 2>/dev/null; then
            printf '%s\n' "$pid"
        fi
    done
}

# orphans prints the processes with one of our names whose parent is gone.
orphans() {
    local dir comm parent
    for dir in /proc/[0-9]*; do
        comm=$(cat "$dir/comm" 2>/dev/null) || continue
        [[ $comm =~ $names ]] || continue
        parent=$(awk '$1 == "PPid:" { print $2 }' "$dir/status" 2>/dev/null) || continue
        if [ "$parent" = 1 ] || [ "$(cat "/proc/$parent/comm" 2>/dev/null)" = systemd ]; then
            printf '%s\n' "${dir#/proc/}"
        fi
    done
}

# mounts prints "mountpoint type source" of every mount, spaces being \040.
mounts() {
    sed -E 's/^[^ ]+ [^ ]+ [^ ]+ [^ ]+ ([^ ]+) .* - ([^ ]+) ([^ ]+) .*$/\1 \2 \3/' /proc/self/mountinfo
}

# places prints the files that winvm may make outside of TMPDIR.
places() {
    find /dev/shm /run /tmp -maxdepth 1 -name 'winvm*' 2>/dev/null || true
}

state() {
    orphans | sed 's/^/process /'
    mounts | sed 's/^/mount /'
    places | sed 's/^/file /'
}

describe() {
    printf '%s %s: %s' "$1" "$(cat "/proc/$1/comm" 2>/dev/null)" \
        "$(tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null | cut -c 1-300)"
}

# new_since prints the lines of kind $1 that are not in the file $2.
new_since() {
    state | grep "^$1 " | grep -vxFf "$2" | sed "s/^$1 //" || true
}

# processes_left prints the processes left by the tests in $2, given the file $1.
processes_left() {
    { processes_with "$2" && new_since process "$1"; } | sort -un
}

after() {
    local before=$1 dir=$2 found=0 pid line tries
    # A process that was told to end may need a moment to be gone.
    for tries in 1 2 3 4 5 6 7 8 9 10; do
        [ -n "$(processes_left "$before" "$dir")" ] || break
        [ "$tries" = 10 ] || sleep 0.5
    done
    while read -r pid; do
        [ -d "/proc/$pid" ] || continue
        found=1
        printf 'left behind: process %s\n' "$(describe "$pid")" >&2
        kill -KILL "$pid" 2>/dev/null || true
    done < <(processes_left "$before" "$dir")
    while read -r line; do
        found=1
        printf 'left behind: mount %s\n' "$line" >&2
    done < <(new_since mount "$before" | grep -E "^$dir/|winvm" || true)
    while read -r line; do
        found=1
        printf 'left behind: %s\n' "$line" >&2
    done < <(
        new_since file "$before" | grep -vxF "$dir" || true
        find "$dir" -xdev -mindepth 1 -maxdepth 1 ! -name 'go-build*' ! -name 'gopath*' 2>/dev/null
    )
    return "$found"
}

case "${1:-}" in
before) state >"$2" ;;
after) after "$2" "$3" ;;
*)
    sed -n '2,3s/^# //p' "$0" >&2
    exit 2
    ;;
esac
