# All of winvm out of a nixpkgs: lib.mkPackages of the flake.
pkgs:

let
  system = pkgs.stdenv.hostPlatform.system;
in
rec {
  # Everything here is for hosts of this system alone.
  hostagent = pkgs.callPackage ./package.nix { };

  # runInWindowsVM and the images.
  winvm = import ./lib.nix {
    inherit hostagent system;
    inherit (pkgs) qemu;
    shell = pkgs.runtimeShell;
  };

  # The controller VM's image.
  controllerImage = pkgs.callPackage ./controller-image.nix { };

  # `hostagent image create` fetches from Debian, by apt: docs/nix.md.
  demo = pkgs.writeShellScriptBin "winvm-demo" ''
    set -eu
    export WINVM_QEMU=${pkgs.qemu}/bin/qemu-system-x86_64
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/store"
    printf 'built from an input, on S:\n' >"$work/store/input.txt"
    ${hostagent}/bin/hostagent image create wine
    ${hostagent}/bin/hostagent build --check --store "$work/store" --out "$work/result" -- \
      cmd /c 'ver & type S:\input.txt > %out%'
    cat "$work/result"
  '';

  # What can be checked without booting a VM.
  checks = {
    inherit hostagent demo controllerImage;

    # The expressions evaluate, down to derivations. Nothing of those is built.
    lib = pkgs.writeText "winvm-lib-evaluates" (builtins.unsafeDiscardStringContext
      (winvm.runInWindowsVM { image = "/var/lib/winvm-images/wine"; } (derivation {
        name = "hello";
        inherit system;
        builder = "cmd.exe";
        args = [ "/d" "/c" "echo hello > %out%" ];
      })).drvPath);
  };
}
