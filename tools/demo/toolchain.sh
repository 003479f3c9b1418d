#!/usr/bin/env bash
# toolchain.sh STOREDIR [TCC|GOTOOLS|ESBUILD...]: the demo's Windows-hosted toolchain, as store
# paths. Without names all of it.
#
# Builds, once, and then places in STOREDIR:
#   tinycc-windows-VERSION   TinyCC, cross-built with mingw-w64 from Debian's source package
#   go-windows-VERSION       Go's compile, link and asm, and the part of the standard library
#                            that the sample needs, built from the Go distribution at hand
#   esbuild-windows-VERSION  esbuild's Windows binary, from npm
#
# Nothing in them is newer than the epoch, names this machine, or differs from one build to the
# next. What was built is kept in $WINVM_CACHE_DIR/demo/DIGEST (default: $XDG_CACHE_HOME/winvm,
# ~/.cache/winvm); the digest covers this script and the versions of everything that goes in.
#
# Standard output: one line NAME=STORE-PATH-NAME for each, where NAME is the variable through
# which build.bat is told of it. Everything for people goes to standard error.
set -euo pipefail
export LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH=1
umask 022

# Of Debian's release of that name, which every full mirror carries, whatever the host's release.
tcc_suite=bookworm
tcc_version=0.9.27+git20200814.62c30a4a-1
esbuild_version=0.28.2
esbuild_integrity=sha512-5ebpxr3nWMzrL/rnUI755Jkuee0bHL/Gq0WTF9lvcpv73wAp5eu8MfBUgWK9bhWvZjj7yX8etf/8tI8Ney695g==
mingw=x86_64-w64-mingw32
# What the sample may import; `go list -deps` adds what these import in turn.
go_packages=(bufio bytes errors fmt io os sort strconv strings)

say() { echo "toolchain: $*" >&2; }
die() { say "$*"; exit 1; }

need() { # need COMMAND PACKAGE...: Debian's packages that bring it
	command -v "$1" >/dev/null || die "no '$1' here; install it with: apt-get install ${*:2}"
}

check_host() { # check_host TCC|GOTOOLS|ESBUILD
	case $1 in
	TCC)
		need "$mingw-gcc" gcc-mingw-w64-x86-64
		need gcc gcc libc6-dev
		need dpkg-source dpkg-dev
		need bzip2 bzip2
		need patch patch
		;;
	GOTOOLS)
		command -v go >/dev/null || die "no 'go' here; the demo needs the Go that builds winvm itself"
		[ -d "$(go env GOROOT)/src/cmd/compile" ] ||
			die "$(go env GOROOT) has no src/cmd/compile; install a whole Go distribution (Debian: golang-src)"
		;;
	ESBUILD)
		need npm npm
		need openssl openssl
		;;
	*) die "no tool is called '$1': TCC, GOTOOLS, ESBUILD" ;;
	esac
}

# mirrors prints the base addresses of the archives that this host has its own release from. The
# mirror is the host's choice, so apt is asked for it (it needs no lists for that) and none is named.
mirrors() {
	local codename
	# shellcheck source=/dev/null
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	apt-get --print-uris update 2>/dev/null |
		sed -n "s,^'\([^']*\)/dists/$codename/InRelease'.*,\1,p" | sort -u
}

# fetch_tcc DIR: the unpacked source in DIR/src. apt checks it against the archive's signature,
# under a configuration of its own: the host's sources and lists stay as they are.
fetch_tcc() {
	local dir=$1 log=$1/apt.log key=/usr/share/keyrings/debian-archive-keyring.gpg mirror
	[ -e "$key" ] || die "no $key; install it with: apt-get install debian-archive-keyring"
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial" "$dir/fetched"
	local opts=(-q
		-o "Dir::Etc::SourceList=$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o "Dir::State::Lists=$dir/lists" -o "Dir::Cache=$dir/cache"
		-o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::Retries=2)
	for mirror in $(mirrors); do
		echo "deb-src [signed-by=$key] $mirror $tcc_suite main" >"$dir/sources.list"
		if (cd "$dir/fetched" && apt-get "${opts[@]}" update && apt-get "${opts[@]}" source --download-only "tcc=$tcc_version") >>"$log" 2>&1; then
			dpkg-source --no-check -x "$dir"/fetched/tcc_*.dsc "$dir/src" >>"$log" 2>&1 || break
			return
		fi
	done
	[ ! -e "$log" ] || tail -n 5 "$log" >&2
	die "can't get Debian's source package tcc $tcc_version ($tcc_suite); it comes from the Debian mirror in this host's apt sources: is there one, and does 'apt-get update' work?"
}

# build_tcc SRC OUT follows the source's win32/build-tcc.bat, with a cross compiler in the place of
# gcc, and a TinyCC for this host in the place of the freshly built one, which can't run here.
build_tcc() {
	local src=$1 out=$2 version f name objects=()
	version=$(cat "$src/VERSION")
	printf '#define TCC_VERSION "%s"\n#define TCC_LIBTCC1 "libtcc1-64.a"\n' "$version" >"$src/config.h"
	mkdir -p "$out/lib"
	local flags=(-DTCC_TARGET_PE -DTCC_TARGET_X86_64 "-ffile-prefix-map=$src=." -w)
	(cd "$src" && "$mingw-gcc" -O2 -s -static -Wl,--no-insert-timestamp "${flags[@]}" -o "$out/tcc.exe" tcc.c)
	(cd "$src" && gcc -O1 "${flags[@]}" -o "$src/cross-tcc" tcc.c)
	cp -R "$src/win32/include" "$out/include"
	cp "$src"/include/*.h "$src/tcclib.h" "$out/include/"
	cp "$src"/win32/lib/*.def "$out/lib/"
	cp "$src/COPYING" "$out/COPYING"
	cd "$src"
	for f in lib/libtcc1.c win32/lib/{crt1,crt1w,wincrt1,wincrt1w,dllcrt1,dllmain}.c win32/lib/chkstk.S lib/alloca86_64.S lib/alloca86_64-bt.S; do
		name=$(basename "${f%.*}").o
		./cross-tcc -B"$out" -I"$out/include" -I"$out/include/winapi" -c "$f" -o "$name"
		objects+=("$name")
	done
	./cross-tcc -ar rcs "$out/lib/libtcc1-64.a" "${objects[@]}"
}

# build_go OUT: bin/*.exe and pkg/IMPORT/PATH.a, where `compile -I` and `link -L` find them without
# an import configuration. No DWARF in the archives: the demo links with -s -w, and every byte of
# them goes through the share.
build_go() {
	local out=$1 tool path archive
	mkdir -p "$out/bin" "$out/pkg"
	(
		cd "$(go env GOROOT)/src"
		export GOOS=windows GOARCH=amd64 GOAMD64=v1 CGO_ENABLED=0 GOFLAGS='' GOEXPERIMENT='' GOWORK=off
		for tool in compile link asm; do
			go build -buildvcs=false -trimpath -ldflags='-s -w -buildid=' -o "$out/bin/$tool.exe" "cmd/$tool"
		done
		go list -trimpath -gcflags=all=-dwarf=false -export -deps \
			-f '{{if .Export}}{{.ImportPath}} {{.Export}}{{end}}' "${go_packages[@]}" >"$out/../packages"
	)
	while read -r path archive; do
		mkdir -p "$out/pkg/$(dirname "$path")"
		cp "$archive" "$out/pkg/$path.a"
	done <"$out/../packages"
	rm "$out/../packages"
	cp "$(go env GOROOT)/LICENSE" "$out/LICENSE" 2>/dev/null || true
}

# build_esbuild WORK OUT: npm compares the tarball with the registry's digest, we with our own.
build_esbuild() {
	local work=$1 out=$2 got
	mkdir -p "$work" "$out"
	(cd "$work" && npm pack --silent "@esbuild/win32-x64@$esbuild_version" >npm.log 2>&1) ||
		{ tail -n 5 "$work/npm.log" >&2; die "can't fetch @esbuild/win32-x64 $esbuild_version from npm"; }
	got=sha512-$(openssl dgst -sha512 -binary "$work"/*.tgz | base64 -w0)
	[ "$got" = "$esbuild_integrity" ] || die "@esbuild/win32-x64 $esbuild_version isn't what it was: $got, not $esbuild_integrity"
	tar -xzf "$work"/*.tgz -C "$work" --no-same-owner
	cp "$work/package/esbuild.exe" "$work/package/README.md" "$out/"
}

# frozen DIR: the modes and times a Nix store would give it.
frozen() {
	find "$1" -type d -exec chmod 755 {} +
	find "$1" -type f -exec chmod 444 {} +
	find "$1" -type f -name '*.exe' -exec chmod 555 {} +
	find "$1" -exec touch -h -d @1 {} +
}

build_one() { # build_one TCC|GOTOOLS|ESBUILD: its store path in $cached
	local name=${names[$1]} work start=$SECONDS
	rm -rf "$cached".work.* # left by a run that was killed; we hold the lock
	mkdir -p "$cached"
	work=$(mktemp -d "$cached.work.XXXXXX")
	# shellcheck disable=SC2064 # now, while the name is known
	trap "rm -rf '$work'" EXIT
	trap 'exit 130' INT TERM
	mkdir "$work/out"
	say "making $name"
	case $1 in
	TCC)
		fetch_tcc "$work"
		(build_tcc "$work/src" "$work/out/$name")
		;;
	GOTOOLS) build_go "$work/out/$name" ;;
	ESBUILD) build_esbuild "$work/npm" "$work/out/$name" ;;
	esac
	frozen "$work/out"
	mv -T "$work/out/$name" "$cached/$name"
	trap - EXIT
	rm -rf "$work"
	say "  $((SECONDS - start)) s"
}

# place NAME: a copy in the store (a reflink where the file system can), whole or not at all. Not a
# hard link: what happens to a store must not reach the cache.
place() {
	local name=$1 tmp
	if [ -e "$store/$name" ]; then
		diff -rq "$cached/$name" "$store/$name" >/dev/null && return
		say "replacing $store/$name, which differs"
		rm -rf "${store:?}/$name"
	fi
	tmp=$(mktemp -d "$store/.placing.XXXXXX")
	cp -a --no-preserve=ownership --reflink=auto "$cached/$name" "$tmp/"
	mv -T "$tmp/$name" "$store/$name"
	rmdir "$tmp"
}

[ $# -ge 1 ] || { echo "usage: toolchain.sh STOREDIR [TCC|GOTOOLS|ESBUILD...]" >&2; exit 2; }
tools=("${@:2}")
[ ${#tools[@]} != 0 ] || tools=(TCC GOTOOLS ESBUILD)
for tool in "${tools[@]}"; do check_host "$tool"; done
mkdir -p "$1"
store=$(cd "$1" && pwd)
cache=${WINVM_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/winvm}/demo
mkdir -p "$cache"

go_version=$(go env GOVERSION)
# '+' and '~' are legal in a Windows name, and cmd's copy takes the one for an operator.
declare -A names=(
	[TCC]=tinycc-windows-$(echo "$tcc_version" | tr '+~' '--')
	[GOTOOLS]=go-windows-$(echo "${go_version#go}" | tr ' ' '-')
	[ESBUILD]=esbuild-windows-$esbuild_version
)

digest=$({
	cat "${BASH_SOURCE[0]}"
	echo "$go_version"
	"$mingw-gcc" --version | head -n 1
} | sha256sum | cut -c1-32)
cached=$cache/$digest

exec 9>"$cache/.lock"
flock 9
for tool in "${tools[@]}"; do
	[ -d "$cached/${names[$tool]}" ] || build_one "$tool"
done
flock -u 9

for tool in "${tools[@]}"; do
	place "${names[$tool]}"
	echo "$tool=${names[$tool]}"
done
