#!/bin/sh
# Makes the controller VM's image out of store paths: the builder of controller-image.nix, which
# sets what is checked below. It writes $out/{vmlinuz,initrd,root.squashfs,packages.txt}, as the
# recipe does (hostagent/image/recipe/controller), with that recipe's scripts.
set -eu
umask 022
: "${out:?}" "${recipe:?}" "${kernel:?}" "${modules:?}" "${release:?}" "${busybox:?}" "${samba:?}" "${closure:?}"

# The guest's store is mounted at /nix/store, over whatever is there. So the controller's own
# has another name, as long, in every path that its files refer to each other by.
from=/nix/store
to=/ctl/store

die() {
	echo "controller image: $*" >&2
	exit 1
}

entries() { sed -e 's/[[:space:]]*#.*//' -e '/^[[:space:]]*$/d' "$1"; }

applets() {
	"$busybox/bin/busybox" --list-full | grep / | while read -r a; do
		case $a in usr/*) ;; *) a=usr/$a ;; esac
		mkdir -p "$1/${a%/*}"
		[ -e "$1/$a" ] || [ -L "$1/$a" ] || ln -s /usr/bin/busybox "$1/$a"
	done
}

# move_store copies the closure of Samba to its new name.
move_store() {
	mkdir -p "$root$to"
	while read -r p; do cp -a "$p" "$root$to/"; done <"$closure"
	chmod -R u+w "$root$to"
	find "$root$to" -type f -exec grep -lF "$from/" {} + >"$work/refer" || :
	while read -r f; do sed -i "s,$from/,$to/,g" "$f"; done <"$work/refer"
	find "$root$to" -type l >"$work/links"
	while read -r l; do
		target=$(readlink "$l")
		case $target in "$from"/*) ln -sfn "$to${target#"$from"}" "$l" ;; esac
	done <"$work/links"
	! grep -rqF "$from/" "$root$to" || die "there is still a path in $from"
}

make_root() {
	root=$work/root
	mkdir -p "$root"
	cd "$root"
	for d in bin sbin; do mkdir -p "usr/$d" && ln -s "usr/$d" "$d"; done
	mkdir -p dev proc sys run tmp root winvm nix/store xchg etc/samba \
		var/cache/samba var/lib/samba/private var/log/samba
	chmod 0700 root var/lib/samba/private
	ln -s /run var/run
	ln -s /tmp var/tmp
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
	move_store
	cp "$busybox/bin/busybox" usr/bin/busybox
	# What the agent starts, and what helps to debug it.
	for p in smbd smbpasswd pdbedit testparm smbcontrol smbstatus; do
		found=bin/$p
		[ -e "$samba/$found" ] || found=sbin/$p
		[ -e "$samba/$found" ] || die "$samba has no $p"
		ln -s "$to/${samba##*/}/$found" "usr/bin/$p"
	done
	find "$samba/" -name glusterfs_fuse.so | grep -q . ||
		die "$samba has no VFS module glusterfs_fuse, which smb.conf names"
	applets "$root"
	cp "$recipe/winvm-init" usr/sbin/winvm-init
	chmod 0755 usr/sbin/winvm-init
	mksquashfs "$root" "$out/root.squashfs" -noappend -no-progress -all-root -no-xattrs \
		-comp lz4 -Xhc -b 131072 -all-time "$epoch" -mkfs-time "$epoch"
}

make_modules() {
	mkdir -p "$1" "$work/tree/lib/modules"
	cp -rs "$modules/lib/modules/$release" "$work/tree/lib/modules/"
	chmod -R u+w "$work/tree"
	rm -f "$work/tree/lib/modules/$release"/modules.dep* # of a kernel's package there may be none
	depmod -b "$work/tree" "$release"
	entries "$recipe/modules.list" >"$work/wanted"
	while read -r m _; do
		modprobe -C /dev/null -d "$work/tree" -S "$release" --show-depends "$m" >>"$work/depends" ||
			die "kernel $release has no module $m"
	done <"$work/wanted"
	awk '$1 == "insmod" && !seen[$2]++ {print $2}' "$work/depends" >"$work/insmod"
	n=100
	while read -r ko; do
		n=$((n + 1))
		name=${ko##*/}
		# The initrd's busybox loads what is not compressed.
		case $ko in
		*.xz) xz -dc "$ko" >"$1/$n-${name%.xz}" ;;
		*.zst) zstd -dcq "$ko" >"$1/$n-${name%.zst}" ;;
		*) cp "$ko" "$1/$n-$name" ;;
		esac
	done <"$work/insmod"
	[ "$n" -gt 100 ] || die "kernel $release has none of the modules of modules.list"
}

make_initrd() {
	ird=$work/initrd
	mkdir -p "$ird/usr/bin" "$ird/dev" "$ird/proc" "$ird/sys" "$ird/new"
	for d in bin sbin; do ln -s "usr/$d" "$ird/$d"; done
	cp "$busybox/bin/busybox" "$ird/usr/bin/busybox"
	applets "$ird"
	make_modules "$ird/modules"
	cp "$recipe/initrd-init" "$ird/init"
	chmod 0755 "$ird/init"
	find "$ird" -exec touch -h -d "@$epoch" {} +
	(cd "$ird" && find . | sort | cpio -o -H newc --quiet --reproducible -R 0:0) >"$out/initrd"
	size=$(wc -c <"$out/initrd")
	# Whole pages, because the host agent appends an archive of its own.
	truncate -s $(((size + 4095) / 4096 * 4096)) "$out/initrd"
}

epoch=1262304000
unset SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
mkdir -p "$out"
make_root
make_initrd
cp "$kernel" "$out/vmlinuz"
# Last, as the recipe does. Store paths are named without their store: they are no references.
sed 's,.*/,,' "$closure" >"$out/packages.txt"
