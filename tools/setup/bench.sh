#!/bin/bash
# Usage: tools/setup/with tools/setup/bench.sh REGEXP COUNT
#
# Runs the benchmarks of every package that has some, COUNT times each, one package
# after the other, and prints benchstat's summary. The figures themselves are kept
# in build/bench.txt, for `benchstat OLD NEW`.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
regexp=${1:-.} count=${2:-3}
out=build/bench.txt

mapfile -t packages < <(git grep --untracked -lE '^func Benchmark[A-Z]' -- '*_test.go' |
    xargs -r -n 1 dirname | sort -u | sed 's|^|./|')
if [ ${#packages[@]} = 0 ]; then
    echo 'there are no benchmarks'
    exit 0
fi
mkdir -p build
go test -run '^$' -bench "$regexp" -benchmem -count "$count" -p 1 -timeout 40m "${packages[@]}" | tee "$out"
go tool -modfile=tools/go.mod benchstat "$out"
