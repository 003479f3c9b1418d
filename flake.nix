{
  description = "Hermetic Windows builds on a Linux host, awake in a blink";

  # No inputs: packages are arguments. lib.winvm takes them; docs/nix.md has examples with
  # a nixpkgs of yours.
  outputs = { self }: {
    lib = {
      # { hostagent, qemu, system, shell } -> { runInWindowsVM, winvmImages, ... }
      winvm = import ./nixos/lib.nix;
    };

    nixosModules = {
      host = import ./nixos/module.nix;
      default = self.nixosModules.host;
    };
  };
}
