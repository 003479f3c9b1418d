package nixtest

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"winvm/transport/needs"
)

// standIn is the small stand-in of nixpkgs.
const standIn = "testdata/pkgs/default.nix"

// flakeDir makes a copy of what the flake consists of.
func flakeDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	files, err := filepath.Glob("../*.*")
	must(t, err)
	copied := []string{"flake.nix", "flake.lock"}
	for _, f := range files {
		copied = append(copied, filepath.Join("nixos", filepath.Base(f)))
	}
	for _, f := range copied {
		b, err := os.ReadFile(filepath.Join("../..", f))
		must(t, err)
		must(t, writeAll(map[string]string{filepath.Join(dir, f): string(b)}))
	}
	must(t, os.CopyFS(filepath.Join(dir, recipeDir), os.DirFS(filepath.Join("../..", recipeDir))))
	return dir
}

const recipeDir = "hostagent/image/recipe/controller"

// nixFlake runs nix, offline.
func (w *world) nixFlake(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.command(nil, append([]string{"nix"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("nix %q: %v: %s", args, err, out)
	}
	return string(out)
}

// Without a nixpkgs the flake is checked as it stands, by a Nix that is offline.
func TestFlake(t *testing.T) {
	w := newWorld(t)
	dir := flakeDir(t)
	before, err := os.ReadFile(filepath.Join(dir, "flake.lock"))
	must(t, err)
	w.nixFlake(t, "flake", "check", "--offline", "path:"+dir)
	if after, err := os.ReadFile(filepath.Join(dir, "flake.lock")); err != nil || string(after) != string(before) {
		t.Errorf("flake.lock is out of date: %v\n%s", err, after)
	}
	out := w.nixFlake(t, "eval", "--offline", "--json", "path:"+dir+"#lib.winvm", "--apply",
		`f: let w = f { hostagent = "/h"; qemu = "/q"; system = "x86_64-linux"; }; in builtins.attrNames w`)
	if !strings.Contains(out, `"runInWindowsVM"`) {
		t.Error(out)
	}
	if out := w.nixFlake(t, "eval", "--offline", "--json", "path:"+dir+"#packages"); !strings.Contains(out, "{}") {
		t.Errorf("there are packages without a nixpkgs: %s", out)
	}
}

// A flake that uses it gives it a nixpkgs, which is the stand-in, and has packages.
func TestFlakeFollows(t *testing.T) {
	w := newWorld(t)
	dir, user := flakeDir(t), t.TempDir()
	b, err := os.ReadFile(standIn)
	must(t, err)
	must(t, writeAll(map[string]string{
		filepath.Join(user, "pkgs/default.nix"): string(b),
		filepath.Join(user, "pkgs/flake.nix"):   `{ outputs = _: { }; }`,
		filepath.Join(user, "user/flake.nix"): `{
  inputs.nixpkgs.url = "path:` + user + `/pkgs";
  inputs.winvm = { url = "path:` + dir + `"; inputs.nixpkgs.follows = "nixpkgs"; };
  outputs = { nixpkgs, winvm, ... }: { inherit (winvm) packages apps checks; };
}`,
	}))
	w.nixFlake(t, "flake", "check", "--offline", "--no-build", "path:"+user+"/user")
	if out := w.nixFlake(t, "eval", "--offline", "--raw", "path:"+user+"/user#apps.x86_64-linux.demo.program"); !strings.Contains(out, "/bin/winvm-demo") {
		t.Error(out)
	}
	names := w.nixFlake(t, "eval", "--offline", "--json", "path:"+user+"/user#packages", "--apply", `p: builtins.attrNames p.x86_64-linux`)
	for _, want := range []string{"hostagent", "demo", "controllerImage", "default"} {
		if !strings.Contains(names, `"`+want+`"`) {
			t.Errorf("no package %s: %s", want, names)
		}
	}
}

// packages evaluates an expression in which p is packages.nix with the stand-in.
func packages(t *testing.T, expr string, into any) {
	t.Helper()
	evaluate(t, `let p = import ../packages.nix (import ./`+standIn+` { system = "x86_64-linux"; }); in `+expr, into)
}

// With NIXPKGS=/path the packages are evaluated, down to derivations, with that nixpkgs.
func TestPackagesInNixpkgs(t *testing.T) {
	nixpkgs := os.Getenv("NIXPKGS")
	if nixpkgs == "" {
		t.Skip("NIXPKGS is not set; the other tests evaluate it with a stand-in")
	}
	w := newWorld(t)
	file, err := filepath.Abs("../packages.nix")
	must(t, err)
	out, err := w.command(nil, "nix-instantiate", "-E", `let p = import `+file+` (import `+nixpkgs+` { system = "x86_64-linux"; });
	  in [ p.hostagent p.controllerImage p.demo p.checks.lib ]`).CombinedOutput()
	for _, want := range []string{"winvm-0.1.0.drv", "winvm-controller-image.drv", "winvm-demo.drv", "winvm-lib-evaluates.drv"} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v: %s", want, err, out)
		}
	}
}

// The builder of the controller's image is given all it checks for.
func TestControllerImageAttributes(t *testing.T) {
	var got map[string]string
	packages(t, `builtins.mapAttrs (_: toString) p.controllerImage.drvAttrs`, &got)
	script, err := os.ReadFile("../controller-image.sh")
	must(t, err)
	_, line, _ := strings.Cut(string(script), "\n: ")
	line, _, _ = strings.Cut(line, "\n")
	for _, word := range strings.Fields(line) {
		name := strings.TrimSuffix(strings.TrimPrefix(word, `"${`), `:?}"`)
		if got[name] == "" && name != "out" { // that is Nix's
			t.Errorf("controller-image.nix doesn't set %s: %v", name, got)
		}
	}
	if !strings.HasSuffix(got["script"], "-controller-image.sh") || !strings.HasSuffix(got["recipe"], "-controller") {
		t.Errorf("%v", got)
	}
}

// What the package makes has to be what the Makefile makes.
func TestPackage(t *testing.T) {
	var got struct{ CGO, AMD64, Script string }
	packages(t, `{ CGO = p.hostagent.CGO_ENABLED; AMD64 = p.hostagent.GOAMD64; Script = p.hostagent.postInstall; }`, &got)
	makefile, err := os.ReadFile("../../Makefile")
	must(t, err)
	for _, want := range []string{"CGO_ENABLED=" + got.CGO, "GOAMD64=" + got.AMD64} {
		if !strings.Contains(string(makefile), want) {
			t.Errorf("the Makefile doesn't set %s", want)
		}
	}
	// The flags of winvm-run.exe, but for the checkout's path.
	_, flags, _ := strings.Cut(string(makefile), "MINGW_FLAGS := ")
	flags, _, _ = strings.Cut(flags, "\n\n")
	for _, f := range strings.Fields(strings.ReplaceAll(flags, "\\\n", " ")) {
		if !strings.HasPrefix(f, "-ffile-prefix-map=") && !strings.Contains(got.Script, f) {
			t.Errorf("package.nix makes winvm-run.exe without %s", f)
		}
	}
}

// The hash of the modules is of what go.mod names.
func TestVendorHash(t *testing.T) {
	needs.Tool(t, "nix-hash")
	dir := filepath.Join(t.TempDir(), "vendor")
	cmd := exec.Command("go", "mod", "vendor", "-o", dir)
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		needs.Missing(t, "go mod vendor: %v: %s", err, out)
	}
	out, err := exec.Command("nix-hash", "--type", "sha256", dir).Output()
	must(t, err)
	hash, err := hex.DecodeString(strings.TrimSpace(string(out)))
	must(t, err)
	var got string
	packages(t, `p.hostagent.vendorHash`, &got)
	if want := "sha256-" + base64.StdEncoding.EncodeToString(hash); got != want {
		t.Errorf("vendorHash of nixos/package.nix is %s; it should be %s", got, want)
	}
}
