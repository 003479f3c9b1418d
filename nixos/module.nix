# virtualisation.winvm.host: a NixOS machine on which derivations are built in Windows VMs.
# services.winvm-controller: a NixOS system as the controller VM, instead of the small image.
{ config, lib, ... }:

let
  host = config.virtualisation.winvm.host;
  controller = config.services.winvm-controller;
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

  options.services.winvm-controller = {
    enable = mkEnableOption "the controller agent: this system is the controller VM of a pair";

    package = mkOption {
      type = types.package;
      description = "The package with libexec/winvm/controlleragent.";
    };

    image = mkOption {
      type = types.package;
      description = "The controller's image (`nixos/controller-image.nix`); the agent and smbd run in its root.";
    };

    configFile = mkOption {
      type = types.str;
      default = "/winvm/config.json";
      description = "The agent's configuration, which has passwords and keys: a path outside of the store.";
    };

    interface = mkOption {
      type = types.str;
      default = "eth0";
      description = "The network card that is the link to the Windows VM.";
    };

    ipv4 = mkOption {
      type = types.str;
      default = "192.168.0.2";
      description = "This machine's IPv4 address on the link, a /24.";
    };

    ipv6 = mkOption {
      type = types.str;
      default = "fd77:696e:766d::2";
      description = "This machine's IPv6 address on the link, a /64.";
    };
  };

  config = mkMerge [
    (mkIf controller.enable {
      boot.kernelModules = [ "fuse" "virtio_console" ];
      networking = {
        hostName = "controller";
        useDHCP = false;
        usePredictableInterfaceNames = false;
        # The one peer is the Windows VM; smbd listens to it.
        firewall.enable = false;
        interfaces.${controller.interface} = {
          ipv4.addresses = [{ address = controller.ipv4; prefixLength = 24; }];
          ipv6.addresses = [{ address = controller.ipv6; prefixLength = 64; }];
        };
      };
      # Whom the files on the shares belong to.
      users.groups.winvm.gid = 1000;
      users.users.winvm = { isNormalUser = true; uid = 1000; group = "winvm"; };

      systemd.services.winvm-controller = {
        description = "winvm: controller agent";
        wantedBy = [ "multi-user.target" ];
        after = [ "network.target" ];
        serviceConfig = {
          # The agent mounts the guest's store at /nix/store. In a root of its own that
          # covers neither this system's programs nor, there, smbd's.
          RootImage = "${controller.image}/root.squashfs";
          MountAPIVFS = true;
          TemporaryFileSystem = [ "/tmp" "/winvm" ];
          BindReadOnlyPaths = [
            "${controller.package}/libexec/winvm/controlleragent:/winvm/controlleragent"
            "${controller.configFile}:/winvm/config.json"
          ];
          ExecStart = "/usr/bin/env PATH=/usr/sbin:/usr/bin /winvm/controlleragent daemon --config /winvm/config.json";
          Restart = "always";
          RestartSec = "200ms";
          LimitNOFILE = 65536;
        };
      };
    })

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
