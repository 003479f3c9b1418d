# virtualisation.winvm.host: a NixOS machine on which derivations are built in Windows VMs.
{ config, lib, ... }:

let
  host = config.virtualisation.winvm.host;
  inherit (lib) mkEnableOption mkOption mkIf mkMerge types;
in
{
  options.virtualisation.winvm.host = {
    enable = mkEnableOption "builds of Nix derivations in Windows VMs on this machine";

    package = mkOption {
      type = types.package;
      description = "The package with bin/hostagent and libexec/winvm.";
    };

    kvm = mkOption {
      type = types.bool;
      default = true;
      description = "Whether builds may use /dev/kvm. Without it the VMs are emulated.";
    };

    imageDir = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "/var/lib/winvm/images";
      description = ''
        A directory with suspended images (`hostagent image export`) that the sandbox shows
        under the same path. For what must not be in the store, which everybody can read.
      '';
    };

    pool = {
      enable = mkEnableOption "a service that keeps the image named below made and suspended";

      image = mkOption {
        type = types.str;
        default = "wine";
        description = "The image's name. It is made if it isn't there.";
      };

      stateDir = mkOption {
        type = types.str;
        default = "/var/lib/winvm";
        description = "The state directory it is made in.";
      };
    };
  };

  config = mkMerge [
    (mkIf host.enable {
      environment.systemPackages = [ host.package ];
      nix.settings.system-features =
        [ "nixos-test" "benchmark" "big-parallel" "windows-vm" ] ++ (if host.kvm then [ "kvm" ] else [ ]);
      nix.settings.sandbox = true;
      nix.settings.sandbox-fallback = false;
      nix.settings.extra-sandbox-paths = if host.imageDir == null then [ ] else [ host.imageDir ];
    })

    (mkIf (host.enable && host.pool.enable) {
      systemd.services.winvm-pool = {
        description = "winvm: image ${host.pool.image}, made and suspended";
        wantedBy = [ "multi-user.target" ];
        after = [ "network-online.target" ];
        wants = [ "network-online.target" ];
        serviceConfig = {
          Type = "oneshot";
          RemainAfterExit = true;
          ExecStart = "${host.package}/bin/hostagent --state-dir ${host.pool.stateDir} --cache-dir ${host.pool.stateDir}/cache image create ${host.pool.image}";
        };
      };
    })
  ];
}
