# runInWindowsVM, and the images it runs in. Nothing here is fetched: all packages are
# arguments, callPackage style.
#
#   hostagent   a store path with bin/hostagent and libexec/winvm/
#   qemu        a store path with bin/qemu-system-x86_64
#   system      of the machines that the VMs run on
#   shell       a Linux shell, for preVM and postVM; needed only if they are used
#
# docs/nix.md is the manual.
{ hostagent
, qemu
, system ? builtins.currentSystem
, shell ? null
}:

let
  agent = "${hostagent}/bin/hostagent";
  qemuBinary = "${qemu}/bin/qemu-system-x86_64";

  # The system feature of machines that can do this, and KVM's if the image needs that.
  features = accel: [ "windows-vm" ] ++ (if accel == "kvm" then [ "kvm" ] else [ ]);

  optional = condition: set: if condition then set else { };

  elemOr = what: list: value:
    if builtins.elem value list then value
    else throw "winvm: ${what} ${builtins.toJSON value}: there are ${builtins.toJSON list}";

  # The guests that hostagent can make images of.
  guests = [ "wine" ];

  # Stage 1 and 2: what a guest is made of, and the pair of VMs, suspended.
  windowsImage =
    { guest ? "windows-11"
    , arch ? "x86_64"
    , isoFile ? null
    , productKey ? null
    , layers ? [ ]
    , rootfs ? null
    , memSize ? null
    , cpus ? null
    , accel ? "tcg"
    }@args:
    let
      checked =
        if !(builtins.elem guest guests) then
          throw "winvm: windowsImage: guest ${builtins.toJSON guest}: this version can make images of ${builtins.toJSON guests} alone"
        else if arch != "x86_64" then
          throw "winvm: windowsImage: arch ${builtins.toJSON arch}: guest ${guest} is for x86_64"
        else if isoFile != null || productKey != null then
          throw "winvm: windowsImage: guest ${guest} is installed from no medium and takes neither isoFile nor productKey"
        else if layers != [ ] then
          throw "winvm: windowsImage: guest ${guest} takes no layers"
        else if rootfs == null then
          throw "winvm: windowsImage: guest ${guest} needs rootfs, a directory with its root file systems (docs/nix.md says how to make it)"
        else guest;
      installedVM = rootfs;
      suspendedVM = derivation ({
        name = "winvm-image-${checked}";
        inherit system;
        builder = agent;
        args = [ "--accel" (elemOr "accel" [ "tcg" "kvm" ] accel) "image" "create" "--guest" checked ]
          ++ (if memSize == null then [ ] else [ "--memory" (toString memSize) ])
          ++ (if cpus == null then [ ] else [ "--cpus" (toString cpus) ])
          ++ [ checked ];
        winvmRootfs = "${installedVM}";
        WINVM_QEMU = qemuBinary;
        requiredSystemFeatures = features accel;
        # It holds keys, and, of a guest with a licence, what may not be passed on: it is
        # made where it is used, and no binary cache is asked for it.
        preferLocalBuild = true;
        allowSubstitutes = false;
      });
    in
    {
      inherit installedVM suspendedVM accel arch;
      guest = checked;
      override = changes: windowsImage (args // changes);
    };

  # The architecture of the systems that a derivation for a Windows guest may be for.
  windowsSystems = {
    x86_64 = [ "x86_64-windows" "x86_64-cygwin" "x86_64-mingw32" ];
  };

  inputsOf = drv: derivation {
    name = "winvm-inputs";
    inherit system;
    builder = agent;
    args = [ "nix-inputs" ];
    text = builtins.toJSON drv.drvAttrs;
    passAsFile = [ "text" ];
    preferLocalBuild = true;
    allowSubstitutes = false;
  };

  runInWindowsVM =
    { windowsImage ? null # what the function windowsImage returns
    , image ? null # or a directory, in the store or outside, with an image that is suspended
    , accel ? if windowsImage == null then "tcg" else windowsImage.accel
    , arch ? if windowsImage == null then "x86_64" else windowsImage.arch
    , memSize ? null # of the guest, in MiB: another suspended image
    , cpus ? null # the same
    , preVM ? "" # run by shell on the host, in the sandbox, before the VMs start
    , postVM ? "" # and after the command has succeeded
    }@settings: drv:
    let
      attrs = drv.drvAttrs or (throw "winvm: runInWindowsVM takes a derivation");
      structured = attrs.__structuredAttrs or false;

      resized = if memSize == null && cpus == null then windowsImage else windowsImage.override
        (optional (memSize != null) { inherit memSize; } // optional (cpus != null) { inherit cpus; });
      imagePath =
        if windowsImage != null && image != null then throw "winvm: runInWindowsVM of ${drv.name}: give windowsImage or image, not both"
        else if windowsImage != null then "${resized.suspendedVM}"
        else if image == null then throw "winvm: runInWindowsVM of ${drv.name}: which image? Give windowsImage or image"
        else if memSize != null || cpus != null then throw "winvm: runInWindowsVM of ${drv.name}: an image that is suspended has its memory and its CPUs: memSize and cpus go with windowsImage"
        else if builtins.isPath image then toString image # not copied
        else "${image}";

      # The builder of a derivation is a Linux program in any case: the host agent.
      hostSystem =
        if attrs.system == system || builtins.elem attrs.system windowsSystems.${arch} then system
        else throw "winvm: runInWindowsVM of ${drv.name}: it is for ${attrs.system}; the VMs run on ${system}, the guest is ${arch}";

      name = builtins.unsafeDiscardStringContext drv.name;
      checkedName =
        if builtins.match ".*[?].*|.*[.]" name == null then drv.name
        else throw "winvm: runInWindowsVM of ${name}: Windows can't have a store path of that name: it has a '?' or ends in a dot";

      inputs = inputsOf drv;
      hook = script: if script == "" then "" else if shell == null then throw "winvm: preVM and postVM need the argument shell of lib.nix" else script;
      winvm = builtins.toJSON {
        inherit (attrs) builder;
        inherit (attrs) system;
        args = map toString' (attrs.args or [ ]);
        image = imagePath;
        qemu = qemuBinary;
        shell = if shell == null then "" else "${shell}";
        preVM = hook preVM;
        postVM = hook postVM;
        inputs = "${inputs}";
      };
      toString' = x: if builtins.isPath x then "${x}" else toString x;

      wrapped = derivation (removeAttrs attrs [ "args" "builder" ] // {
        name = checkedName;
        system = hostSystem;
        builder = agent;
        args = [ "build" ];
        requiredSystemFeatures = (attrs.requiredSystemFeatures or [ ]) ++ features accel;
        inherit winvm;
      } // (if structured then {
        exportReferencesGraph = (attrs.exportReferencesGraph or { }) // { winvmClosure = [ inputs ]; };
      } else {
        passAsFile = (attrs.passAsFile or [ ]) ++ [ "winvm" ];
        exportReferencesGraph = words (attrs.exportReferencesGraph or [ ]) ++ [ "winvm-closure" inputs ];
      }));
      words = list: if builtins.isList list then list else [ list ];
    in
    wrapped
    // optional (drv ? meta) { inherit (drv) meta; }
    // optional (drv ? passthru) ({ inherit (drv) passthru; } // drv.passthru)
    // optional (drv ? overrideAttrs) { overrideAttrs = change: runInWindowsVM settings (drv.overrideAttrs change); }
    // { unwrapped = drv; };
in
{
  inherit runInWindowsVM windowsImage;

  # Images of guests without a licence.
  winvmImages.wine = args: windowsImage (args // { guest = "wine"; });

  # What a store path is called in the guest: S:\NAME.
  windowsPath = path: "S:\\${baseNameOf "${path}"}";
}
