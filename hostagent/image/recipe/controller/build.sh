#!/bin/sh
# Builds the controller VM's image from Debian packages.
#
#     sh build.sh OUTDIR
#
# writes OUTDIR/{vmlinuz,initrd,root.squashfs,packages.txt}, and nothing else.
#
# Environment:
#   MIRROR_SUITE       the Debian release to build from (bookworm)
#   SOURCE_DATE_EPOCH  the time that every file of the image carries (1262304000,
#                      2010-01-01: the time at which the VMs' clocks start)
#   TMPDIR             where about 550 MB of scratch go (/tmp)
#
# It needs no root, no namespace and no chroot: apt resolves and fetches the
# packages below a scratch directory of its own, tar unpacks them, and no
# maintainer script runs. The mirrors, keys and proxies are those of the host's
# own apt. Progress goes to standard error. README.md says what is in the image.

set -eu
umask 022
export LC_ALL=C TZ=UTC PATH="$PATH:/usr/sbin:/sbin"
exec </dev/null

# Host tools, each with the Debian package that has it.
host_tools='apt-get:apt apt-config:apt apt-cache:apt dpkg:dpkg dpkg-deb:dpkg
tar:tar cpio:cpio mksquashfs:squashfs-tools depmod:kmod modprobe:kmod
awk:mawk sed:sed find:findutils realpath:coreutils'

recipe=$(cd -- "$(dirname -- "$0")" && pwd)
suite=${MIRROR_SUITE:-bookworm}
epoch=${SOURCE_DATE_EPOCH:-1262304000}
# mksquashfs refuses its own time options when this is in the environment.
unset SOURCE_DATE_EPOCH
triplet=x86_64-linux-gnu

work='' stage='' child=''

say() { printf 'controller image: %s\n' "$*" >&2; }

die() {
	say "$*"
	exit 1
}

cleanup() {
	status=$?
	trap - EXIT
	trap '' HUP INT TERM
	if [ -n "$child" ]; then
		kill "$child" 2>/dev/null || :
		wait "$child" 2>/dev/null || :
	fi
	[ -z "$work" ] || rm -rf -- "$work"
	[ -z "$stage" ] || rm -rf -- "$stage"
	exit "$status"
}

# run COMMAND...: in the background, so that a signal ends it at once instead
# of waiting for it; its output is shown only if it fails.
run() {
	"$@" >"$work/log" 2>&1 &
	child=$!
	if wait "$child"; then
		child=''
		return 0
	fi
	child=''
	tail -n 30 "$work/log" >&2
	return 1
}

# entries FILE: its lines without comments and empty lines.
entries() { sed -e 's/[[:space:]]*#.*//' -e '/^[[:space:]]*$/d' "$1"; }

check_host() {
	missing=''
	for pair in $host_tools; do
		command -v "${pair%%:*}" >/dev/null 2>&1 ||
			missing="$missing ${pair%%:*} (Debian package ${pair#*:}),"
	done
	[ -z "$missing" ] ||
		die "missing on this host:${missing%,}; install them with apt-get install"
	arch=$(dpkg --print-architecture)
	[ "$arch" = amd64 ] ||
		die "the image is for amd64 and programs out of it are run to build it; this host is $arch"
	case $suite in
	'' | *[!a-z]*) die "MIRROR_SUITE=$suite is no Debian code name such as bookworm" ;;
	esac
	case $epoch in
	'' | *[!0-9]*) die "SOURCE_DATE_EPOCH=$epoch is no number of seconds" ;;
	esac
	for f in packages.list assumed.list files.list modules.list initrd-init winvm-init; do
		[ -r "$recipe/$f" ] || die "the recipe is incomplete: $recipe/$f can't be read"
	done
}

# isolate_apt makes an apt with the host's sources, keys and proxies, but with
# lists, cache and "installed" packages of its own. The host's hooks are left
# out: some of them tidy the host's real cache.
isolate_apt() {
	apt=$work/apt
	# apt fetches as the user _apt, who has to get in here.
	chmod 0755 "$work"
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/log" "$apt/sources.d"
	sources
	: >"$apt/status"
	# Nothing but Debian's own suites of this release, whatever else the host
	# is set up for.
	for s in "$suite" "$suite-updates" "$suite-security"; do
		printf 'Package: *\nPin: release n=%s\nPin-Priority: 500\n\n' "$s"
	done >"$apt/preferences"
	printf 'Package: *\nPin: release n=*\nPin-Priority: -1\n' >>"$apt/preferences"
	{
		apt-config dump |
			grep -Ev '^(DPkg|APT::Update)::(Pre|Post)-|^APT::Architectures|^APT::Default-Release|^Binary'
		cat <<-END
			Dir::Etc::main "/dev/null";
			Dir::Etc::parts "/dev/null";
			Dir::Etc::sourcelist "$apt/sources.list";
			Dir::Etc::sourceparts "$apt/sources.d";
			Dir::Etc::preferences "$apt/preferences";
			Dir::Etc::preferencesparts "/dev/null";
			Dir::State "$apt";
			Dir::State::lists "$apt/lists";
			Dir::State::status "$apt/status";
			Dir::State::extended_states "$apt/extended_states";
			Dir::Cache "$apt/cache";
			Dir::Cache::archives "$apt/cache/archives";
			Dir::Log "$apt/log";
			APT::Architecture "amd64";
			APT::Architectures { "amd64"; };
			APT::Install-Recommends "false";
			APT::Install-Suggests "false";
			Acquire::Languages "none";
			Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
			Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
		END
	} >"$apt/apt.conf"
	export APT_CONFIG="$apt/apt.conf"
}

# sources copies the host's sources; on a Debian of another release its name in
# them is replaced by the one that is wanted.
sources() {
	eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
	host=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release | tr -d '"')
	edit="s/^\$//"
	if [ -n "$host" ] && [ "$host" != "$suite" ]; then
		edit="/^[[:space:]]*\(deb\|Suites:\)[[:space:]]/ s/\([[:space:]]\)$host\([-[:space:]]\|\$\)/\1$suite\2/g"
	fi
	: >"$apt/sources.list"
	[ ! -r "${list:-}" ] || sed "$edit" "$list" >"$apt/sources.list"
	for f in "${parts:-}"*.list "${parts:-}"*.sources; do
		[ ! -r "$f" ] || sed "$edit" "$f" >"$apt/sources.d/${f##*/}"
	done
}

# assumed_status tells apt that the packages of assumed.list are installed, so
# that it fetches neither them nor what they depend on.
assumed_status() {
	# VERSION "-" stands for one that is newer than all, "=NAME" for NAME's.
	entries "$recipe/assumed.list" | while read -r name version _; do
		case $version in
		-) version=9999:0 ;;
		=*) version=$(apt-cache policy "${version#=}" | sed -n 's/^  Candidate: //p') ;;
		esac
		cat <<-END
			Package: $name
			Status: install ok installed
			Architecture: amd64
			Multi-Arch: allowed
			Version: $version
			Maintainer: assumed
			Description: not in the image

		END
	done
}

fetch() {
	say "reading the package lists of $suite"
	# A source that can't be reached need not matter: what counts is whether
	# the packages are found below.
	run apt-get -q update || say 'not every source of this host could be read; going on with the rest'
	kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
		sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
	[ -n "$kernel" ] || grep '^[EW]:' "$work/log" >&2 || :
	[ -n "$kernel" ] ||
		die "this host's apt sources have no linux-image-cloud-amd64 of $suite; add a Debian $suite mirror (component main) to them"
	assumed_status >"$apt/status.new"
	mv "$apt/status.new" "$apt/status"
	say "fetching $kernel, samba and what they need"
	# shellcheck disable=SC2046 # one argument a package
	run apt-get -q -y --download-only install "$kernel" $(entries "$recipe/packages.list" | awk '{print $1}') ||
		die "apt could not get the packages from this host's sources"
}

# unpack puts every package into one merged-usr tree, and the list of its files
# into lists/.
unpack() {
	say 'unpacking'
	tree=$work/tree
	mkdir -p "$tree/usr/bin" "$tree/usr/sbin" "$tree/usr/lib" "$tree/usr/lib64" "$work/lists"
	for d in bin sbin lib lib64; do ln -s "usr/$d" "$tree/$d"; done
	for deb in "$apt"/cache/archives/*.deb; do
		name=$(dpkg-deb -f "$deb" Package)
		# No pipelines here: one's status is that of its last command alone.
		dpkg-deb --fsys-tarfile "$deb" >"$work/data.tar"
		tar -xvf "$work/data.tar" -C "$tree" --keep-directory-symlink --no-same-owner \
			--exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale' >"$work/unpacked"
		sed -e 's,^\./,,' -e 's,^\(bin\|sbin\|lib\|lib64\)/,usr/&,' "$work/unpacked" >"$work/lists/$name"
		dpkg-deb -f "$deb" Package Version Installed-Size |
			awk '{v[$1] = $2} END {print v["Package:"], v["Version:"], v["Installed-Size:"]}' >>"$work/versions"
	done
	rm -f "$work/data.tar"
}

# select_files writes the files of the image to kept: those that match
# files.list, and each shared library that one of them needs.
select_files() {
	# No loop here is a part of a pipeline: what dies in one would go unnoticed.
	entries "$recipe/files.list" >"$work/patterns"
	while read -r pattern _; do
		# shellcheck disable=SC2086 # the pattern is there to be expanded
		found=$(cd "$tree" && ls -d $pattern 2>/dev/null) ||
			die "files.list: no file of the packages matches $pattern"
		printf '%s\n' "$found"
	done <"$work/patterns" >"$work/wanted"
	say "finding the libraries of $(grep -c . "$work/wanted") files"
	# The libraries of the tree only: neither the host's cache nor the absolute
	# paths that are built into Samba's programs may lead to the host's.
	lib=$tree/usr/lib/$triplet
	while read -r f; do
		printf '%s\n' "$f"
		[ "$(head -c 4 "$tree/$f" | tr -d '\177')" = ELF ] || continue
		"$lib/ld-linux-x86-64.so.2" --inhibit-cache --library-path "$lib:$lib/samba" \
			--list "$tree/$f" >"$work/needed" 2>&1 || continue # a static program
		sed -n 's,.* => \(.*\) (0x.*,\1,p; s,^[[:space:]]*\(/.*\) (0x.*,\1,p; s,.* => not found.*,missing & of '"$f"',p' "$work/needed"
	done <"$work/wanted" >"$work/closure"
	! grep '^missing' "$work/closure" >&2 ||
		die 'a library is in no package: name its package in packages.list'
	# Symbolic links come with what they point to.
	sed "s,^$tree/,," "$work/closure" | sort -u >"$work/resolved"
	while read -r f; do
		case $f in /*) die "a library of the host's got in: $f" ;; esac
		while [ -L "$tree/$f" ]; do
			printf '%s\n' "$f"
			to=$(readlink "$tree/$f")
			case $to in
			/*) f=${to#/} ;;
			*) f=$(realpath -s --relative-to="$tree" "$tree/${f%/*}/$to") ;;
			esac
		done
		printf '%s\n' "$f"
	done <"$work/resolved" >"$work/links"
	sed 's,^\(bin\|sbin\|lib\|lib64\)/,usr/&,' "$work/links" | sort -u >"$work/kept"
}

# applets DIR: a symbolic link in DIR for each of busybox's programs.
applets() {
	"$tree/usr/bin/busybox" --list-full | grep / | while read -r a; do
		case $a in usr/*) ;; *) a=usr/$a ;; esac
		mkdir -p "$1/${a%/*}"
		[ -e "$1/$a" ] || [ -L "$1/$a" ] || ln -s /usr/bin/busybox "$1/$a"
	done
}

make_root() {
	root=$work/root
	mkdir -p "$root"
	tar -cf "$work/root.tar" -C "$tree" --no-recursion -T "$work/kept"
	tar -xf "$work/root.tar" -C "$root" --no-same-owner
	(
		cd "$root"
		for d in bin sbin lib lib64; do mkdir -p "usr/$d" && ln -s "usr/$d" "$d"; done
		mkdir -p dev proc sys run tmp root winvm nix/store xchg etc/samba \
			var/cache/samba var/lib/samba/private var/log/samba
		chmod 0700 root var/lib/samba/private
		ln -s /run var/run
		ln -s /tmp var/tmp
		# vfs_glusterfs_fuse reads the mounts there.
		ln -s /proc/self/mounts etc/mtab
		cat >etc/passwd <<-END
			root:x:0:0:root:/root:/bin/sh
			winvm:x:1000:1000:owner of what is on the shares:/:/bin/false
			nobody:x:65534:65534:nobody:/:/bin/false
		END
		printf 'root:x:0:\nwinvm:x:1000:\nnogroup:x:65534:\n' >etc/group
		printf '%s: files\n' passwd group shadow hosts services protocols >etc/nsswitch.conf
		printf '127.0.0.1 localhost\n::1 localhost\n192.168.0.2 controller\nfd77:696e:766d::2 controller\n' >etc/hosts
		printf 'controller\n' >etc/hostname
	)
	applets "$root"
	cp "$recipe/winvm-init" "$root/usr/sbin/winvm-init"
	chmod 0755 "$root/usr/sbin/winvm-init"
	# lz4: 10 MB more than zstd, but smbd's first start is 0.3 s quicker under TCG.
	say "packing the root: $(du -sk "$root" | awk '{print int($1 / 1024)}') MB"
	run mksquashfs "$root" "$stage/root.squashfs" -noappend -no-progress -all-root -no-xattrs \
		-comp lz4 -Xhc -b 131072 -all-time "$epoch" -mkfs-time "$epoch" ||
		die 'mksquashfs failed'
}

# modules DIR: the modules of modules.list and what they depend on, as
# DIR/NNN-NAME.ko, numbered in the order of loading.
modules() {
	release=${kernel#linux-image-}
	run depmod -b "$tree" "$release" || die 'depmod failed'
	entries "$recipe/modules.list" >"$work/wanted-modules"
	while read -r m _; do
		modprobe -C /dev/null -d "$tree" -S "$release" --show-depends "$m" ||
			die "modules.list: $kernel has no module $m"
	done <"$work/wanted-modules" >"$work/depends"
	awk '$1 == "insmod" && !seen[$2]++ {print $2}' "$work/depends" >"$work/insmod"
	mkdir -p "$1"
	n=100
	while read -r ko; do
		n=$((n + 1))
		cp "$ko" "$1/$n-${ko##*/}"
	done <"$work/insmod"
	[ "$n" -gt 100 ] || die "$kernel has none of the modules of modules.list"
}

make_initrd() {
	ird=$work/initrd
	mkdir -p "$ird/usr/bin" "$ird/dev" "$ird/proc" "$ird/sys" "$ird/new"
	for d in bin sbin; do ln -s "usr/$d" "$ird/$d"; done
	cp "$tree/usr/bin/busybox" "$ird/usr/bin/busybox"
	applets "$ird"
	modules "$ird/modules"
	cp "$recipe/initrd-init" "$ird/init"
	chmod 0755 "$ird/init"
	find "$ird" -exec touch -h -d "@$epoch" {} +
	# Not compressed: it costs 4 MB, saves the boot the unpacking, and the host
	# agent can append its own archive. Padded to whole pages for the same.
	(cd "$ird" && find . | sort | cpio -o -H newc --quiet --reproducible -R 0:0) >"$stage/initrd"
	size=$(wc -c <"$stage/initrd")
	truncate -s $(((size + 4095) / 4096 * 4096)) "$stage/initrd"
	cp "$tree/boot/vmlinuz-$release" "$stage/vmlinuz"
}

# describe writes packages.txt: what is in the image, out of which package.
describe() {
	# What the kernel's package and busybox give to the initrd counts too.
	sed "s,^$tree/,," "$work/insmod" | sed 's,^lib/,usr/&,' >"$work/initrd-kept"
	printf 'boot/vmlinuz-%s\n' "$release" >>"$work/initrd-kept"
	# shellcheck disable=SC2046 # one argument a file
	(cd "$tree" && find $(cat "$work/kept" "$work/initrd-kept") -prune -type f -printf '%s %p\n') |
		sort -u >"$work/sizes"
	{
		printf '# The controller image: Debian %s, kernel %s.\n#\n# Asked for:\n' "$suite" "$release"
		printf '#   %s: %s\n' "$kernel" 'the kernel, without drivers for real hardware; its modules in the initrd'
		sed -n 's/^\([a-z0-9][^[:space:]]*\)[[:space:]]*#[[:space:]]*/#   \1: /p' "$recipe/packages.list"
		printf '# The others have libraries that these need. Only the files of files.list and the\n'
		printf '# libraries they are linked with are taken from each.\n#\n'
		printf '# name\tversion\tinstalled size as the package says, KiB\tof which in the image, KiB\n'
		while read -r name version size; do
			kept=$(awk 'NR == FNR {s[$2] = $1; next} $1 in s {n += s[$1]} END {print int((n + 1023) / 1024)}' \
				"$work/sizes" "$work/lists/$name")
			[ "$kept" -eq 0 ] || printf '%s\t%s\t%s\t%s\n' "$name" "$version" "$size" "$kept"
		done <"$work/versions" | sort
	} >"$stage/packages.txt"
}

[ $# -eq 1 ] || {
	echo 'usage: build.sh OUTDIR' >&2
	exit 2
}
check_host
mkdir -p "$1"
out=$(cd -- "$1" && pwd)
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
work=$(mktemp -d "${TMPDIR:-/tmp}/winvm-controller.XXXXXX")
# On the file system of the result, so that it is put in place by renaming.
stage=$(mktemp -d "$out/.controller.XXXXXX")

isolate_apt
fetch
unpack
select_files
make_root
make_initrd
describe
# packages.txt last: where it is, the rest is whole.
rm -f "$out/packages.txt"
for f in vmlinuz initrd root.squashfs packages.txt; do mv -f "$stage/$f" "$out/$f"; done
say "done: $(cd "$out" && wc -c vmlinuz initrd root.squashfs | awk '{printf("%s %.1f MB, ", $2, $1 / 1000000)}')from Debian $suite"
