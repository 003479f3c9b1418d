#!/bin/bash
# Usage: tools/setup/with tools/setup/lint.sh
#
# Runs every linter over the whole tree, and all of them even if one complains.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
failed=()

check() {
    local name=$1 start=$SECONDS
    shift
    if "$@"; then
        printf 'lint: %s ok (%d s)\n' "$name" $((SECONDS - start))
    else
        printf 'lint: %s FAILED (%d s)\n' "$name" $((SECONDS - start))
        failed+=("$name")
    fi
}

tool() { go tool -modfile=tools/go.mod "$@"; }

formatted() {
    local files
    files=$(git ls-files -co --exclude-standard -z -- '*.go' | xargs -0r gofmt -l)
    if [ -n "$files" ]; then
        printf 'not formatted; run make fmt:\n%s\n' "$files"
        return 1
    fi
}

# scripts prints the shell scripts of the tree, whatever they are called.
scripts() {
    git ls-files -co --exclude-standard | while read -r file; do
        [ -f "$file" ] || continue
        case $file in
        *.sh) printf '%s\n' "$file" ;;
        *.*) ;;
        *) head -n 1 "$file" | grep -qE '^#!.*/(env )?(ba|da)?sh' && printf '%s\n' "$file" ;;
        esac
    done
}

shell_scripts() {
    local files
    mapfile -t files < <(scripts)
    shellcheck --external-sources --severity=warning "${files[@]}"
}

# vulnerabilities is about the code only where the database can be reached: no
# answer from it is said, and is no fault of the tree's.
vulnerabilities() {
    local status=0 output
    output=$(timeout 300 go tool -modfile=tools/go.mod govulncheck ./... 2>&1) || status=$?
    case $status in
    0) ;;
    3)
        printf '%s\n' "$output"
        return 1
        ;;
    *)
        printf 'lint: govulncheck could not do its work here, gone on without it:\n%s\n' \
            "$(tail -n 3 <<<"$output")"
        ;;
    esac
}

check gofmt formatted
check 'go vet' go vet ./...
check golangci-lint tool golangci-lint run ./...
check shellcheck shell_scripts
check govulncheck vulnerabilities

if [ ${#failed[@]} != 0 ]; then
    printf 'make lint FAILED:'
    printf ' [%s]' "${failed[@]}"
    printf '\n'
    exit 1
fi
