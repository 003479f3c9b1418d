{
  description = "Hermetic Windows builds on a Linux host, awake in a blink";

  # Which nixpkgs is the user's choice, and none is fetched to evaluate this: until the input
  # follows another it is this flake itself, and there are no packages. docs/nix.md.
  inputs.nixpkgs.follows = "";

  outputs = { self, nixpkgs }:
    let
      # Both VMs are of this architecture.
      systems = if nixpkgs.outPath == self.outPath then [ ] else [ "x86_64-linux" ];

      perSystem = choose: builtins.listToAttrs (map
        (system: {
          name = system;
          value = choose (self.lib.mkPackages (import nixpkgs.outPath { inherit system; }));
        })
        systems);
    in
    {
      lib = {
        # { hostagent, qemu, system, shell } -> { runInWindowsVM, winvmImages, ... }
        winvm = import ./nixos/lib.nix;

        # pkgs -> { hostagent, winvm, demo, ... }
        mkPackages = import ./nixos/packages.nix;
      };

      packages = perSystem (p: { inherit (p) hostagent demo controllerImage; default = p.hostagent; });

      checks = perSystem (p: p.checks);

      apps = perSystem (p: { demo = { type = "app"; program = "${p.demo}/bin/winvm-demo"; }; });

      nixosModules = {
        # virtualisation.winvm.host and services.winvm-controller
        host = import ./nixos/module.nix;
        default = self.nixosModules.host;
      };
    };
}
