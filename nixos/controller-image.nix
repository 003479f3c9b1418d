# The controller VM's image out of a nixpkgs: kernel, initrd and root file system, with Samba's store
# paths in it, in the layout of hostagent's own recipe and with that recipe's scripts. The agent, and
# so smb.conf, which it writes, are in neither: `hostagent suspend` appends its own controlleragent.
# callPackage style.
{ runCommand
, closureInfo
, linuxPackages
, samba
, pkgsStatic # for busybox
, squashfsTools
, cpio
, kmod
, xz
, zstd
}:

let
  inherit (linuxPackages) kernel;
in
runCommand "winvm-controller-image"
{
  nativeBuildInputs = [ squashfsTools cpio kmod xz zstd ];
  recipe = "${../hostagent/image/recipe/controller}";
  kernel = "${kernel}/bzImage";
  modules = "${kernel.modules or kernel}";
  release = kernel.modDirVersion;
  busybox = "${pkgsStatic.busybox}";
  samba = "${samba}";
  closure = "${closureInfo { rootPaths = [ samba ]; }}/store-paths";
} "sh ${./controller-image.sh}"
