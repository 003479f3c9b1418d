#!/bin/bash
# Usage: tools/setup/with tools/setup/soak.sh REVIVES SUSPENDS
#
# Runs the soak tests of hostagent/e2e for as long as that takes: REVIVES revives in a
# row, a fifth of them under file load, a tenth with four at once; and SUSPENDS
# suspends that are killed. The figures go to build/soak, as JSON, and are printed as
# a table.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export WINVM_SOAK_REVIVES=${1:-1000} WINVM_SOAK_SUSPENDS=${2:-200} WINVM_SOAK_OUT=$PWD/build/soak
export WINVM_TEST_STATE_DIR=${WINVM_TEST_STATE_DIR:-$WINVM_CACHE_DIR/test-state} CI=true

WINVM_STATE_DIR=$WINVM_TEST_STATE_DIR build/bin/hostagent image create "${IMAGE:-wine}"
rm -rf build/soak
pattern='^TestSoak$'
if [ "$WINVM_SOAK_SUSPENDS" != 0 ]; then pattern='^TestSoak'; fi
status=0
go test -count 1 -timeout 0 -v -run "$pattern" ./hostagent/e2e || status=$?
echo
sed -E -n 's/^ +"([a-z_0-9]+)": (".*"|[0-9.]+),?$/\1 \2/p' build/soak/*.json | awk '{ k = $1; $1 = ""; printf "%-18s%s\n", k, $0 }'
exit "$status"
