#!/usr/bin/env bash
# run.sh: the demo. A real Windows build in the wine guest, twice, and the two results compared.
#
# Needs build/bin/hostagent (`make build`). The toolchain comes from toolchain.sh, the sample from
# src/ and build.bat. Everything goes to build/demo: store/ is the store, out1/ and out2/ the results.
#
# Environment: HOSTAGENT (another hostagent), DEMO_IMAGE (another image's name; default wine),
# DEMO_DIR (another place than build/demo), and what hostagent and toolchain.sh read.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
hostagent=${HOSTAGENT:-$root/build/bin/hostagent}
image=${DEMO_IMAGE:-wine}
demo=${DEMO_DIR:-$root/build/demo}
store=$demo/store

say() { echo "demo: $*" >&2; }
die() { say "$*"; exit 1; }

# place_sample: the sample as a store path, with the modes and times a Nix store would give it.
place_sample() {
	rm -rf "$store/demo-src"
	mkdir -p "$store/demo-src"
	cp -R "$here/src/." "$here/build.bat" "$store/demo-src/"
	find "$store/demo-src" -type d -exec chmod 755 {} +
	find "$store/demo-src" -type f -exec chmod 444 {} +
	find "$store/demo-src" -exec touch -h -d @1 {} +
}

# stamped puts the seconds since it started before each line, and takes cmd's carriage returns off.
stamped() {
	local line start=${EPOCHREALTIME/./} now
	while IFS= read -r line || [ -n "$line" ]; do
		now=$((${EPOCHREALTIME/./} - start))
		printf '%4d.%02d s  %s\n' $((now / 1000000)) $((now / 10000 % 100)) "${line%$'\r'}"
	done
}

# build N: one build into outN. The agent's standard error, with its timeline, is left as it is.
build() {
	local out=$demo/out$1 status=0 name inputs=() start=${EPOCHREALTIME/./}
	for name in demo-src "$tcc" "$gotools" "$esbuild"; do inputs+=(--input "$store/$name"); done
	rm -rf "$out"
	say "build $1 of 2"
	"$hostagent" build --image "$image" --store "$store" "${inputs[@]}" --out "$out" --timeline \
		--env 'SRC=S:\demo-src' --env "TCC=S:\\$tcc" --env "GOTOOLS=S:\\$gotools" --env "ESBUILD=S:\\$esbuild" \
		-- cmd /c 'S:\demo-src\build.bat' | stamped || status=${PIPESTATUS[0]}
	[ "$status" = 0 ] || die "build $1 failed: hostagent's exit status is $status (124: timed out, 125: hostagent itself failed, 126/127: the command can't be run/was not found; anything else is build.bat's own, see the lines above)"
	start=$((${EPOCHREALTIME/./} - start))
	say "build $1 took $((start / 1000000)).$(printf %02d $((start / 10000 % 100))) s, the whole process"
	[ -d "$out" ] || die "build $1 ended with 0 and left no $out: a fault in hostagent"
}

sums() { (cd "$1" && find . -type f -printf '%P\0' | sort -z | xargs -0r sha256sum); }

# check_results: what came back is whole, and the same twice. gzip's trailer holds a CRC-32 that
# neither of the two programs from the guest has had a hand in.
check_results() {
	local want have f
	want=$(printf '%s\n' c.sum crcsum.exe crctool.exe spans.js table.go)
	have=$(cd "$demo/out1" && find . -mindepth 1 -printf '%P\n' | sort)
	[ "$have" = "$want" ] || die "$demo/out1 holds: ${have//$'\n'/, }; expected: ${want//$'\n'/, }"
	for f in crctool.exe crcsum.exe; do
		[ "$(head -c 2 "$demo/out1/$f")" = MZ ] || die "$demo/out1/$f is no Windows program"
	done
	want=$(gzip -nc "$demo/out1/spans.js" | tail -c 8 | od -An -tx4 -N4 --endian=little | tr -d ' ')
	have=$(tr -d '\r\n' <"$demo/out1/c.sum")
	[ "$have" = "$want" ] || die "in the guest spans.js had the CRC $have, here it has $want: its bytes changed on the way"
	if ! diff <(sums "$demo/out1") <(sums "$demo/out2") >&2; then
		die "the two builds differ (above: < the first, > the second); compare $demo/out1 with $demo/out2"
	fi
}

[ $# = 0 ] || { echo "usage: run.sh" >&2; exit 2; }
[ -x "$hostagent" ] || die "no $hostagent; build it with: make build"
mkdir -p "$store"
names=$("$here/toolchain.sh" "$store") || die "no toolchain (see above)"
name_of() { sed -n "s/^$1=//p" <<<"$names"; }
tcc=$(name_of TCC) gotools=$(name_of GOTOOLS) esbuild=$(name_of ESBUILD)
[ "$(wc -l <<<"$names")" = 3 ] || die "toolchain.sh named no toolchain but: $names"
place_sample

say "image $image (made only if it isn't there)"
"$hostagent" image create --guest wine "$image" || die "can't make the image $image; 'hostagent doctor' says what is missing"
build 1
build 2
check_results
echo "the same bytes in both builds, sha256:"
sums "$demo/out1" | sed 's/^/  /'
