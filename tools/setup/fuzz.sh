#!/bin/bash
# Usage: tools/setup/with tools/setup/fuzz.sh DURATION
#
# Runs every fuzz target of the tree for that long, one after the other. What a
# target finds is kept in its package's testdata/fuzz: commit it with the fix.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
time=${1:-30s}
failed=0

targets=$(git grep --untracked -oE '^func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | sed 's/:func /:/' || true)
while IFS=: read -r file target; do
    [ -n "$file" ] || continue
    printf '== %s in %s\n' "$target" "$(dirname "$file")"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./$(dirname "$file")" </dev/null || failed=1
done <<<"$targets"
exit "$failed"
