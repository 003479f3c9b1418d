#!/bin/bash
# Usage: tools/setup/with tools/setup/test.sh [PACKAGE...]
#
# Runs the tests, in stages: go vet; the packages without VMs, with the race
# detector; the packages that start VMs, one after the other; and a look at what
# they left behind. Every stage runs, whatever became of those before it. Without
# arguments it takes all packages. docs/testing.md is the manual.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
timeout=40m
gotestsum=(go tool -modfile=tools/go.mod gotestsum)

log=$(mktemp)
before=$(mktemp)
TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/winvm-test.XXXXXX")
# Other users' processes, smbd's among them, pass through it.
chmod 0755 "$TMPDIR"
export TMPDIR WINVM_TEST_STATE_DIR=${WINVM_TEST_STATE_DIR:-$WINVM_CACHE_DIR/test-state}
failed=()

cleanup() {
    # A mount that is left must not be emptied with the directory it is in.
    awk -v dir="$TMPDIR/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
        while read -r point; do umount -l "$(printf '%b' "$point")" || true; done
    rm -rf --one-file-system "$log" "$before" "$TMPDIR"
}
trap cleanup EXIT

# stage runs the command behind the name $1, and notes its failure and its time.
stage() {
    local name=$1 start=$SECONDS status=0
    shift
    printf '== %s\n' "$name"
    "$@" || status=$?
    if [ "$status" != 0 ]; then
        failed+=("$name")
    fi
    printf '== %s: %s in %d s\n\n' "$name" \
        "$([ "$status" = 0 ] && echo ok || echo FAILED)" $((SECONDS - start))
}

# with_vms prints the directories of the packages whose tests start VMs. They are
# known by what their tests ask for: a kernel, a VM of package vmtest, the state
# directory with images, or the cache with root file systems.
with_vms() {
    git grep --untracked -lE 'WINVM_TEST_(KERNEL|STATE_DIR)|Env\(t, "WINVM_CACHE_DIR"|/vmtest"' -- '*_test.go' |
        xargs -r -n 1 dirname | sort -u | sed 's|^|./|' | xargs -r go list
}

# make_image makes the image that tests share; one that is there already stays.
make_image() {
    WINVM_STATE_DIR=$WINVM_TEST_STATE_DIR build/bin/hostagent image create "${IMAGE:-wine}"
}

tests() {
    local format=$1
    shift
    "${gotestsum[@]}" --format "$format" -- -count 1 -timeout "$timeout" "$@" 2>&1 | tee -a "$log"
}

# total adds up the closing lines of the runs:
# "DONE 12 tests, 2 skipped, 1 failure in 0.5s".
total() {
    awk '
        /^DONE / {
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^tests?,?$/) tests += $(i - 1)
                if ($i ~ /^skipped,?$/) skipped += $(i - 1)
                if ($i ~ /^(failures?|errors?),?$/) bad += $(i - 1)
            }
        }
        END { printf "%d passed, %d failed, %d skipped\n", tests - skipped - bad, bad, skipped }
    ' "$log"
}

main() {
    local start=$SECONDS all vms pure
    mapfile -t all < <(go list "${@:-./...}")
    mapfile -t vms < <(comm -12 <(printf '%s\n' "${all[@]}" | sort) <(with_vms | sort))
    mapfile -t pure < <(comm -23 <(printf '%s\n' "${all[@]}" | sort) <(printf '%s\n' "${vms[@]}" | sort))

    env -u TMPDIR tools/setup/leftovers.sh before "$before"
    stage vet go vet "${all[@]}"
    if [ ${#pure[@]} != 0 ]; then
        stage 'packages without VMs' tests pkgname -race "${pure[@]}"
    fi
    if git grep --untracked -q WINVM_TEST_STATE_DIR -- '*_test.go'; then
        stage 'image for the tests' make_image
    fi
    if [ ${#vms[@]} != 0 ]; then
        stage 'packages with VMs' tests testname -p 1 "${vms[@]}"
    fi
    # Without TMPDIR, by which it knows the tests' processes from its own.
    stage 'nothing left behind' env -u TMPDIR tools/setup/leftovers.sh after "$before" "$TMPDIR"

    total
    if [ ${#failed[@]} != 0 ]; then
        printf 'make test FAILED after %d s, in:' $((SECONDS - start))
        printf ' [%s]' "${failed[@]}"
        printf '\n'
        return 1
    fi
    printf 'make test passed in %d s\n' $((SECONDS - start))
}

main "$@"
