package nixtest

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"winvm/hostagent/guest"
	"winvm/transport/needs"
)

// evaluate evaluates an expression to JSON, without a store of its own.
func evaluate(t *testing.T, expr string, into any) {
	t.Helper()
	out, err := instantiate(t, "--eval", "--strict", "--json", "-E", expr)
	if err != nil {
		t.Fatalf("%s: %v: %s", expr, err, out)
	}
	must(t, json.Unmarshal(out, into))
}

func instantiate(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	needs.Tool(t, "nix-instantiate")
	cmd := exec.Command("nix-instantiate", args...)
	cmd.Env = append(os.Environ(), "NIX_REMOTE=dummy://", "HOME="+t.TempDir())
	out, err := cmd.Output()
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		out = append(out, e.Stderr...)
	}
	return out, err
}

func TestParse(t *testing.T) {
	files, err := filepath.Glob("../*.nix")
	must(t, err)
	more, err := filepath.Glob("../nixtest/testdata/*.nix")
	must(t, err)
	pkgs, err := filepath.Glob("../nixtest/testdata/*/*.nix")
	must(t, err)
	files = append(append(append(files, more...), pkgs...), "../../flake.nix")
	if len(files) < 8 {
		t.Fatalf("only %q", files)
	}
	for _, f := range files {
		if out, err := instantiate(t, "--parse", f); err != nil {
			t.Errorf("%s: %v: %s", f, err, out)
		}
	}
}

// moduleEval is the module in the stand-in of nixpkgs' lib, or in a real nixpkgs.
func moduleEval(module string) string {
	return `(import ./testdata/eval.nix { module = ../module.nix; config = ` + module + `; })`
}

func TestModule(t *testing.T) {
	var got map[string]any
	evaluate(t, moduleEval(`{ }`)+`.config`, &got)
	if len(got) != 0 {
		t.Errorf("a module that is not enabled configures %v", got)
	}
	evaluate(t, moduleEval(`{ virtualisation.winvm.host = { enable = true; package = "/pkg"; imageDir = "/images"; pool.enable = true; }; }`)+`.config`, &got)
	b, _ := json.Marshal(got)
	for _, want := range []string{`"windows-vm","kvm"`, `"extra-sandbox-paths":["/images"]`, `"sandbox-fallback":false`, "/pkg/bin/hostagent --state-dir /var/lib/winvm", "image create wine"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the configuration lacks %s: %s", want, b)
		}
	}
	var options []struct {
		Name, Type, Description string
		Default                 any
	}
	evaluate(t, moduleEval(`{ }`)+`.options`, &options)
	if len(options) != 14 {
		t.Errorf("%d options", len(options))
	}
	for _, o := range options {
		if o.Type == "" || o.Description == "" {
			t.Errorf("option %s has type %q, description %q", o.Name, o.Type, o.Description)
		}
	}
	for _, bad := range []string{
		`{ virtualisation.winvm.host.kvm = "yes"; }`,
		`{ virtualisation.winvm.host.imageDir = 3; }`,
		`{ virtualisation.winvm.host.nothing = 3; }`,
		`{ services.winvm-controller.ipv4 = 3; }`,
		`{ services.winvm-controller = { enable = true; package = "/pkg"; }; }`, // no image
	} {
		if out, err := instantiate(t, "--eval", "--strict", "--json", "-E", moduleEval(bad)+`.config`); err == nil {
			t.Errorf("%s is taken: %s", bad, out)
		}
	}
}

func TestModuleController(t *testing.T) {
	var got map[string]any
	evaluate(t, moduleEval(`{ services.winvm-controller = { enable = true; package = "/pkg"; image = "/image"; interface = "eth7"; }; }`)+`.config`, &got)
	if len(got) != 4 {
		t.Errorf("it configures %v", got)
	}
	b, _ := json.Marshal(got)
	for _, want := range []string{
		`"RootImage":"/image/root.squashfs"`, "/pkg/libexec/winvm/controlleragent:/winvm/controlleragent", "/winvm/config.json:/winvm/config.json",
		`"eth7":{"ipv4":{"addresses":[{"address":"` + guest.ControllerIPv4 + `","prefixLength":24}]`, guest.ControllerIPv6,
	} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the configuration lacks %s: %s", want, b)
		}
	}
}

// With NIXPKGS=/path the module is evaluated by NixOS itself.
func TestModuleInNixpkgs(t *testing.T) {
	nixpkgs := os.Getenv("NIXPKGS")
	if nixpkgs == "" {
		t.Skip("NIXPKGS is not set; the other tests evaluate it with a stand-in")
	}
	w := newWorld(t)
	module, err := filepath.Abs("../module.nix")
	must(t, err)
	out, err := w.command(nil, "nix-instantiate", "-E", `(import (`+nixpkgs+` + "/nixos") { configuration = { pkgs, ... }: {
	  imports = [ `+module+` ];
	  boot.isContainer = true;
	  virtualisation.winvm.host = { enable = true; package = pkgs.hello; pool.enable = true; };
	  services.winvm-controller = { enable = true; package = pkgs.hello; image = pkgs.hello; };
	}; }).system`).CombinedOutput()
	if err != nil || !strings.Contains(string(out), ".drv") {
		t.Errorf("%v: %s", err, out)
	}
}
