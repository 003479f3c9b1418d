#!/bin/sh
# build.sh OUTDIR: builds the licence-free `wine` guest:
#     OUTDIR/{vmlinuz,initrd,root.squashfs,packages.txt}
#
# As root, or as any user for whom mmdebstrap can make a user namespace
# (/etc/subuid). Packages come from the mirror the host's own apt uses, from
# the suite below; WINVM_DEBIAN_MIRROR=URI takes another. Progress goes to
# standard error. README.md tells what is inside and why.
#
# Tools of the host, and the Debian packages that have them:
tools='mmdebstrap=mmdebstrap mksquashfs=squashfs-tools gcc=gcc x86_64-w64-mingw32-gcc=gcc-mingw-w64-x86-64
x86_64-w64-mingw32-strip=binutils-mingw-w64-x86-64 cpio=cpio xz=xz-utils dpkg-deb=dpkg apt-get=apt unshare=util-linux setsid=util-linux
install=coreutils awk=mawk'
# Wine 10; Debian 12's Wine 8 can't run current Go programs.
suite=trixie
# Linux 6.1: cifs.ko of 6.12 oopses while it is loaded under QEMU 7.2's TCG.
kernel_suite=bookworm
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# No recommends: no X, no 32-bit Wine. libgnutls30t64 is for Wine's bcrypt,
# the last two for mount.cifs.
packages=wine64,openssh-server,busybox-static,kmod,iproute2,mount,util-linux,libgnutls30t64,libcap-ng0,libtalloc2

set -eu
LC_ALL=C
KERNEL_SUITE=$kernel_suite
SOURCE_DATE_EPOCH=1262304000 # 2010-01-01, where the guests' clock starts
export LC_ALL KERNEL_SUITE SOURCE_DATE_EPOCH
umask 022
exec </dev/null

die() {
	echo "build.sh: $*" >&2
	exit 1
}
say() { echo "wine image: $*" >&2; }

[ $# = 1 ] && [ -n "$1" ] || die "usage: build.sh OUTDIR"
missing=
for pair in $tools; do
	PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%=*}" >/dev/null || missing="$missing ${pair#*=} (for ${pair%%=*})"
done
[ -f $keyring ] || missing="$missing debian-archive-keyring (for $keyring)"
[ -z "$missing" ] || die "missing Debian packages:$missing; install them with apt-get install"
PATH=$PATH:/usr/sbin:/sbin
case $(dpkg --print-architecture) in amd64) ;; *) die "the wine guest can be built on amd64 only" ;; esac
if [ "$(id -u)" != 0 ]; then
	grep -q "^$(id -un):" /etc/subuid 2>/dev/null || grep -q "^$(id -u):" /etc/subuid 2>/dev/null ||
		die "$(id -un) has no line in /etc/subuid: add one (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $(id -un)) or run as root"
	command -v newuidmap >/dev/null || die "missing Debian package: uidmap (for newuidmap)"
fi

# The host's mirror: the one from which apt would take a Debian release. (Asked
# in this way it answers without having run apt-get update, too.)
mirror=${WINVM_DEBIAN_MIRROR:-}
[ -n "$mirror" ] || mirror=$(apt-get --print-uris update 2>/dev/null |
	sed -nE "s,^'([^']*)/dists/(bookworm|trixie|forky|sid|oldstable|stable|testing|unstable)/InRelease'.*,\\1,p" | head -n 1)
[ -n "$mirror" ] || die "apt's sources name no Debian mirror: set WINVM_DEBIAN_MIRROR to the URI of one"

out=$1
mkdir -p "$out"
out=$(cd "$out" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/winvm-wine.XXXXXXXX")
case $scratch in *[!A-Za-z0-9/._-]*) rmdir "$scratch"; die "TMPDIR has characters mmdebstrap's hooks can't take: $scratch" ;; esac

child=
cleanup() {
	trap - EXIT HUP INT TERM
	if [ -n "$child" ]; then
		# To the whole group, since mmdebstrap itself waits for its hooks.
		kill -TERM "-$child" 2>/dev/null || true
		wait "$child" 2>/dev/null || true
	fi
	rm -rf --one-file-system "$scratch" "$out"/.winvm-*.part
}
trap cleanup EXIT
for signal in HUP INT TERM; do trap 'cleanup; exit 1' $signal; done
chmod 755 "$scratch" # the namespace's root is another user
stage=$scratch/stage
mkdir -p "$stage/winvm-build/bin" "$scratch/out"
cp -R "$here/customize.sh" "$here/rootfs" "$stage/winvm-build/"

for pair in net=net shell=winvm-shell; do
	x86_64-w64-mingw32-gcc -Os -Wall -nostdlib -ffreestanding -fno-builtin -s \
		-Wl,-e,start,--major-subsystem-version=5,--minor-subsystem-version=2,--no-insert-timestamp \
		-o "$stage/winvm-build/bin/${pair#*=}.exe" "$here/src/${pair%=*}.c" -lkernel32 ||
		die "src/${pair%=*}.c can't be compiled"
done

gcc -O2 -Wall -shared -fPIC -s -o "$stage/winvm-build/bin/shares.so" "$here/src/shares.c" ||
	die "src/shares.c can't be compiled (it needs the C library's headers too: libc6-dev)"

say "bootstrapping $suite"
# In the background, so that a signal is handled at once; in a group of its own,
# so that cleanup reaches all of it; and root's mounts in a namespace of their
# own (a user's are anyway), so that none can be left.
own=
[ "$(id -u)" != 0 ] || own='unshare --mount'
TMPDIR=$scratch setsid $own mmdebstrap --quiet --mode=auto --architectures=amd64 --variant=essential --format=null --skip=cleanup \
	--keyring=$keyring --components=main --include=$packages \
	--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	--customize-hook="copy-in $stage/winvm-build /" \
	--customize-hook='sh "$1/winvm-build/customize.sh" "$1"' \
	--customize-hook="copy-out /winvm-build/out/vmlinuz /winvm-build/out/initrd /winvm-build/out/root.squashfs /winvm-build/out/packages.txt $scratch/out" \
	"$suite" - "deb $mirror $suite main" "deb $mirror $kernel_suite main" >/dev/null &
child=$!
status=0
wait "$child" || status=$?
child=
[ $status = 0 ] || die "the root couldn't be built (mmdebstrap ended with $status, see above)"

for f in vmlinuz initrd root.squashfs packages.txt; do
	[ -s "$scratch/out/$f" ] || die "$f wasn't made"
	cp "$scratch/out/$f" "$out/.winvm-$f.part"
done
for f in vmlinuz initrd root.squashfs packages.txt; do
	chmod 644 "$out/.winvm-$f.part"
	mv -f "$out/.winvm-$f.part" "$out/$f"
done
say "done: $(du -k "$out/root.squashfs" | awk '{ print int($1 / 1024) }') MB"
