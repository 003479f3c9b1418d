#!/bin/sh
# customize.sh ROOT: turns the bootstrapped root into the guest's, and leaves
# vmlinuz, initrd, root.squashfs and packages.txt in ROOT/winvm-build/out.
#
# mmdebstrap runs it as a hook: as root, or as the root of a user namespace.
# The tools are the host's, but what runs in Wine runs in ROOT. Of the recipe
# only ROOT/winvm-build (copied in) may be read: in the namespace, this user
# may have no right to anything else.
set -eu
root=$1
here=$root/winvm-build
say() { echo "wine image: $*" >&2; }

# What runs in the root as Administrator, in a UTS namespace of its own, since
# Wine's prefix remembers the machine's name.
as_administrator() {
	unshare --uts sh -c 'hostname WINVM && exec "$@"' sh \
		chroot "$root" env -i PATH=/usr/bin:/bin \
		setpriv --reuid 1000 --regid 1000 --clear-groups "$@" </dev/null
}
# Wine's server is a daemon: a signal to our group doesn't reach it.
stop() {
	trap - HUP INT TERM
	[ ! -d "$root/run/user/1000/wine" ] || as_administrator sh /winvm-build/prefix.sh stop 2>/dev/null || true
	exit 1
}
trap stop HUP INT TERM

mkdir -p "$here/out" "$here/deb"

say "fetching the kernel and mount.cifs"
# Unpacked, not installed: the kernel's scripts would build an initrd of their
# own, and cifs-utils brings Python and Kerberos.
(
	cd "$here/deb"
	APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
	export APT_CONFIG
	kernel=$(apt-cache -o "APT::Default-Release=$KERNEL_SUITE" depends linux-image-cloud-amd64 |
		sed -n 's/.*Depends: //p' | head -n 1)
	apt-get -qq -o APT::Sandbox::User=root download "$kernel" cifs-utils >/dev/null
	for deb in *.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -x -f - || exit 1; done
)
# one FILES...: the one that exists (/usr is merged in newer packages only).
one() { ls -d "$@" 2>/dev/null | head -n 1; }
cp "$here"/deb/boot/vmlinuz-* "$here/out/vmlinuz"
install -m 755 "$(one "$here/deb/sbin/mount.cifs" "$here/deb/usr/sbin/mount.cifs")" "$root/usr/sbin/mount.cifs"
{
	chroot "$root" dpkg-query -W -f '${Package} ${Version}\n'
	for deb in "$here"/deb/*.deb; do dpkg-deb -W --showformat '${Package} ${Version} (unpacked in part)\n' "$deb"; done
} | LC_ALL=C sort >"$here/out/packages.txt"

from=$(one "$here"/deb/lib/modules/* "$here"/deb/usr/lib/modules/*)
modules=${from##*/}
to=$root/usr/lib/modules/$modules
mkdir -p "$to"
cp "$from"/modules.builtin* "$from/modules.order" "$to/"
for path in arch/x86/crypto crypto lib fs/fscache fs/netfs fs/nls fs/smb fs/overlayfs fs/squashfs net/dns_resolver \
	drivers/virtio drivers/block/virtio_blk drivers/char/hw_random drivers/net/virtio_net drivers/net/net_failover \
	net/core/failover; do
	found=$(one "$from/kernel/$path" "$from/kernel/$path.ko" "$from/kernel/$path.ko.xz")
	[ -n "$found" ] || continue # built in, or not in this version
	mkdir -p "$to/kernel/${path%/*}"
	cp -R "$found" "$to/kernel/${path%/*}/"
done
find "$to" -name '*.ko.xz' -exec xz -d {} + # unpacking xz is slow on an emulated processor
chroot "$root" depmod "$modules"

say "making the initrd"
initrd=$here/initrd
mkdir -p "$initrd/bin" "$initrd/dev" "$initrd/proc" "$initrd/sys" "$initrd/modules" "$initrd/lower" \
	"$initrd/upper" "$initrd/root"
mknod -m 600 "$initrd/dev/console" c 5 1 2>/dev/null || true # in a user namespace init does without
install -m 755 "$here/rootfs/init" "$initrd/init"
install -m 755 "$root/usr/bin/busybox" "$initrd/bin/busybox"
n=10
chroot "$root" modprobe -S "$modules" -a --show-depends virtio_pci virtio_blk virtio_net virtio_rng squashfs overlay |
	sed -n 's/^insmod //p' | awk '!seen[$1]++ { print $1 }' |
	while read -r module; do
		cp "$root$module" "$initrd/modules/$n-${module##*/}"
		n=$((n + 1))
	done
find "$initrd" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
# Not compressed: the host agent appends another cpio, and reading 4 MB is
# quicker than unpacking 2.
(cd "$initrd" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 --reproducible) >"$here/out/initrd"

say "stripping Wine"
wine=$root/usr/lib/x86_64-linux-gnu/wine
find "$wine/x86_64-windows" -type f -print0 |
	xargs -0 -n 64 x86_64-w64-mingw32-strip --strip-debug

say "installing the guest's own files"
lib=$root/usr/lib/winvm
mkdir -p "$lib" "$root/etc/winvm"
install -m 755 "$here/rootfs/pid1" "$lib/init"
install -m 755 "$here/rootfs/netd" "$lib/netd"
install -m 755 "$here/rootfs/shell" "$lib/shell"
install -m 755 "$here/bin/shares.so" "$lib/shares.so"
install -m 644 "$here/rootfs/environment" "$here/rootfs/sshd_config" "$here/rootfs/mount-options.conf" \
	"$root/etc/winvm/"
for tool in wine64 wineserver64; do
	[ -x "$root/usr/lib/wine/$tool" ] || { say "the wine64 package has no /usr/lib/wine/$tool"; exit 1; }
done
# Nobody sees the fonts, but every program would look for them.
rm -rf "$root"/etc/fonts/conf.d "$root"/usr/share/fonts
install -m 644 "$here/rootfs/fonts.conf" "$root/etc/fonts/fonts.conf"
echo WINVM >"$root/etc/hostname"
printf '127.0.0.1 localhost WINVM\n::1 localhost\n192.168.0.2 controller\n' >"$root/etc/hosts"
: >"$root/etc/resolv.conf"
# `*`, not `!`: sshd refuses keys of a locked account.
echo 'Administrator:x:1000:1000:Administrator:/home/Administrator:/usr/lib/winvm/shell' >>"$root/etc/passwd"
echo 'Administrator:x:1000:' >>"$root/etc/group"
echo 'Administrator:*:14610:0:99999:7:::' >>"$root/etc/shadow"
mkdir -p "$root/home/Administrator" "$root/winvm"
chown 1000:1000 "$root/home/Administrator"

say "making Wine's prefix"
cat >"$here/prefix.sh" <<'EOF'
set -eu
set -a
. /etc/winvm/environment
HOME=/home/Administrator
set +a
cd "$HOME"
[ "${1:-}" != stop ] || exec wineserver64 -k
wine64 wineboot -i
wineserver64 -w
cd "$WINEPREFIX"
echo disable >.update-timestamp
ln -s /run/winvm/unc dosdevices/unc
rm -f dosdevices/z:
EOF
mkdir -p "$root/run/user/1000"
chown 1000:1000 "$root/run/user/1000"
chmod 700 "$root/run/user/1000"
as_administrator sh /winvm-build/prefix.sh >"$here/prefix.log" 2>&1 || {
	tail -n 20 "$here/prefix.log" >&2
	say "Wine's prefix couldn't be made"
	exit 1
}
windows=$root/home/Administrator/.wine/drive_c/windows
[ -f "$windows/system32/cmd.exe" ] || { say "Wine made a prefix without cmd.exe"; exit 1; }
for name in net winvm-shell; do
	install -m 755 -o 1000 -g 1000 "$here/bin/$name.exe" "$windows/system32/$name.exe"
done

say "packing the root"
rm -rf "$root"/run/user "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/info "$root"/usr/share/locale \
	"$root"/usr/share/icons "$root"/usr/share/bug "$root"/usr/share/lintian "$root"/var/cache/* "$root"/var/lib/apt \
	"$root"/var/log/* "$root"/tmp/* "$root"/etc/ssh/ssh_host_*
find "$root/var/lib/dpkg/info" -type f ! -name '*.list' -delete
mksquashfs "$root" "$here/out/root.squashfs" -noappend -no-progress -quiet -comp zstd -Xcompression-level 12 \
	-b 256K -no-xattrs -wildcards -e winvm-build 'proc/*' 'sys/*' 'dev/*' 'run/*' 'boot/*' >/dev/null
chmod 644 "$here"/out/*
