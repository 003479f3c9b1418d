# hostagent and what it needs beside it: bin/hostagent, bin/serialdbg, and in libexec/winvm/ the
# programs that go into the VMs. callPackage style.
#
# buildGoModule has to have a Go as new as go.mod asks for.
{ buildGoModule
, pkgsCross # for winvm-run.exe, by mingw-w64
, src ? builtins.path {
    name = "winvm-source";
    path = ./..;
    # Not what is made there.
    filter = path: _: !(builtins.elem path (map (n: "${toString ./..}/${n}") [ ".git" "build" "result" ]));
  }
}:

buildGoModule {
  pname = "winvm";
  version = "0.1.0";
  inherit src;

  # Of what `go mod vendor` makes; nixos/nixtest checks it, and says what it should be.
  vendorHash = "sha256-h3RmPZsWbRvLn5bclnhzvu8vSQHySZ0/jB0NSNvKmZs=";

  subPackages = [ "cmd/hostagent" "cmd/controlleragent" "cmd/serialdbg" ];
  nativeBuildInputs = [ pkgsCross.mingwW64.stdenv.cc ];

  # As in the Makefile: images are named by digests of these files.
  env = { CGO_ENABLED = "0"; GOAMD64 = "v1"; };
  ldflags = [ "-s" "-w" ];

  # The tests want root, QEMU, Samba and VMs: `make test`.
  doCheck = false;

  postInstall = ''
    mkdir -p $out/libexec/winvm
    mv $out/bin/controlleragent $out/libexec/winvm/
    x86_64-w64-mingw32-gcc -Os -Wall -Wextra -Werror -nostdlib -ffreestanding -fno-builtin -s \
      -Wl,-e,start,--major-subsystem-version=5,--minor-subsystem-version=2,--no-insert-timestamp \
      -o $out/libexec/winvm/winvm-run.exe hostagent/guest/windows/run.c -lkernel32
  '';

  meta = {
    description = "Hermetic Windows builds on a Linux host, awake in a blink";
    mainProgram = "hostagent";
    platforms = [ "x86_64-linux" ];
  };
}
