#!/bin/bash
# Usage: tools/setup/with tools/setup/fuzz.sh DURATION
#
# Runs every fuzz target of the tree for that long, one after the other. What a
# target finds is kept in its package's testdata/fuzz: commit it with the fix.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
time=${1:-30s}
start=$SECONDS count=0 failed=()
corpus=$(go env GOCACHE)/fuzz
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT

# fuzz runs the target $2 of the package in the directory $1. Its binary is built once.
fuzz() {
    local dir=$1 target=$2 test=$bin/${1//\//-}.test
    if [ ! -e "$test" ]; then
        go test -c -fuzz . -o "$test" "./$dir"
    fi
    mkdir -p "$corpus/winvm/$dir"
    (cd "$dir" && exec "$test" -test.run '^$' -test.fuzz "^$target\$" -test.fuzztime "$time" \
        -test.fuzzcachedir "$corpus/winvm/$dir" </dev/null)
}

while IFS=: read -r file target; do
    [ -n "$file" ] || continue
    printf '== %s in %s\n' "$target" "$(dirname "$file")"
    count=$((count + 1))
    fuzz "$(dirname "$file")" "$target" || failed+=("$target")
done < <(git grep --untracked -oE '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | sed 's/:func /:/')

printf 'fuzz: %d targets, %s each, in %d s, %d failed\n' "$count" "$time" $((SECONDS - start)) ${#failed[@]}
if [ ${#failed[@]} != 0 ]; then
    printf 'fuzz FAILED: %s\n' "${failed[*]}"
    exit 1
fi
