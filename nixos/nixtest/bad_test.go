package nixtest

import (
	"strings"
	"testing"
)

// What can be told without a build is told when the expression is evaluated.
func TestRefused(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ expr, says string }{
		{`w.runInWindowsVM { inherit image; } (drv "x" "" { system = "aarch64-darwin"; })`, "it is for aarch64-darwin"},
		{`w.runInWindowsVM { } (drv "x" "" { })`, "Give windowsImage or image"},
		{`w.runInWindowsVM { inherit image; cpus = 2; } (drv "x" "" { })`, "memSize and cpus go with windowsImage"},
		{`w.runInWindowsVM { inherit image; } (drv "what?" "" { })`, "Windows can't have a store path of that name"},
		{`w.runInWindowsVM { inherit image; } (drv "dot." "" { })`, "Windows can't have a store path of that name"},
		{`w.runInWindowsVM { inherit image; } { }`, "takes a derivation"},
		{`(w.windowsImage { }).suspendedVM`, `this version can make images of ["wine"] alone`},
		{`(w.winvmImages.wine { }).suspendedVM`, "needs rootfs"},
		{`(w.winvmImages.wine { arch = "i686"; rootfs = ./.; }).suspendedVM`, "is for x86_64"},
		{`(w.winvmImages.wine { productKey = "A"; rootfs = ./.; }).suspendedVM`, "neither isoFile nor productKey"},
		{`(w.winvmImages.wine { rootfs = ./.; accel = "warp"; }).suspendedVM`, "accel"},
	} {
		out, err := w.command(nil, "nix-instantiate", "-E", w.prelude()+c.expr).CombinedOutput()
		if err == nil || !strings.Contains(string(out), c.says) {
			t.Errorf("%s: error %v, want one that says %q:\n%s", c.expr, err, c.says, out)
		}
	}
}

// The derivations of the chain; what is in them is what was asked for.
func TestChain(t *testing.T) {
	w := newWorld(t)
	out, err := w.command(nil, "nix-instantiate", "--eval", "--strict", "-E", w.prelude()+`
	  let i = w.winvmImages.wine { rootfs = ./.; };
	      d = w.runInWindowsVM { windowsImage = i; memSize = 2048; cpus = 2; } (drv "sized" "" { });
	  in builtins.concatStringsSep " " ((i.override { memSize = 2048; cpus = 2; }).suspendedVM.args ++ d.requiredSystemFeatures)
	     + (if builtins.match ".*${builtins.unsafeDiscardStringContext (i.override { memSize = 2048; cpus = 2; }).suspendedVM.outPath}.*" (builtins.unsafeDiscardStringContext d.winvm) == null then " other" else " same")`).CombinedOutput()
	want := `"--accel tcg image create --guest wine --memory 2048 --cpus 2 wine windows-vm same"`
	if err != nil || strings.TrimSpace(string(out)) != want {
		t.Errorf("%v: %s, want %s", err, out, want)
	}
}

// These fail before a VM is started.
func TestBadBuilds(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name, expr string
		says       []string
	}{
		{"image", `w.runInWindowsVM { image = "/nowhere"; } (drv "no-image" "" { })`, []string{"no such image", "image export"}},
		{"shell", `w.runInWindowsVM { inherit image; } (drv "bash" "" { builder = "/bin/bash"; args = [ "-e" "x.sh" ]; })`, []string{"the guest's own shell is cmd.exe", "docs/nix.md"}},
	} {
		t.Run(c.name, func(t *testing.T) { w.build(t, c.expr).fails(c.says...) })
	}
	t.Run("feature", func(t *testing.T) {
		w.build(t, `cmd "feature" "echo x > %out%" { }`, "--option", "system-features", "other").fails("{windows-vm}")
	})
}
