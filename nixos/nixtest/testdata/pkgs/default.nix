# A small stand-in of nixpkgs: as much as nixos/ uses, as derivations that are never built.
{ system }:
let
  drv = name: attrs: derivation ({ inherit system; builder = "/bin/sh"; args = [ "-c" "exit 1" ]; } // attrs // { inherit name; });
  pkg = name: drv name { };
  pkgs = {
    stdenv.hostPlatform.system = system;
    callPackage = f: given:
      let function = if builtins.isFunction f then f else import f; in
      function (builtins.intersectAttrs (builtins.functionArgs function) pkgs // given);

    buildGoModule = { pname, version, vendorHash, src, env ? { }, meta ? { }, ... }@args:
      drv "${pname}-${version}"
        (removeAttrs args [ "pname" "version" "env" "meta" "src" ] // env // { src = "${src}"; }) // { inherit meta; };
    runCommand = name: env: script: drv name (env // { inherit script; });
    writeText = name: text: drv name { inherit text; };
    writeShellScriptBin = name: text: drv name { inherit text; };
    closureInfo = { rootPaths }: drv "closure-info" { inherit rootPaths; };

    runtimeShell = "/bin/sh";
    qemu = pkg "qemu";
    samba = pkg "samba";
    squashfsTools = pkg "squashfs-tools";
    cpio = pkg "cpio";
    kmod = pkg "kmod";
    xz = pkg "xz";
    zstd = pkg "zstd";
    linuxPackages.kernel = pkg "linux" // { modDirVersion = "6.1.0"; };
    pkgsStatic.busybox = pkg "busybox-static";
    pkgsCross.mingwW64.stdenv.cc = pkg "mingw-cc";
  };
in
pkgs
