package nixbuild

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"winvm/hostagent/build"
	"winvm/hostagent/guest"
)

const digest = "0123456789abcdfghijklmnpqrsvwxyz"

// environment is one like Nix makes, in a directory of the test's.
func environment(t *testing.T, more ...string) (top string, env []string) {
	t.Helper()
	top = t.TempDir()
	write(t, filepath.Join(top, ".attr-winvm"), settings(t, "/nix/store/"+digest+"-bash/bin/bash"))
	write(t, filepath.Join(top, closureFile), graph("/nix/store/"+digest+"-inputs", "/nix/store/"+digest+"-src"))
	return top, append([]string{
		"NIX_BUILD_TOP=" + top, "NIX_STORE=/nix/store", "NIX_BUILD_CORES=8", "NIX_LOG_FD=2", "TERM=xterm",
		"HOME=/homeless-shelter", "PATH=/path-not-set", "TMPDIR=" + top, "TEMP=" + top, "PWD=" + top,
		"outputs=out dev", "out=/nix/store/" + digest + "-a", "dev=/nix/store/" + digest + "-a-dev",
		"winvmPath=" + top + "/.attr-winvm", "builder=/agent", "system=x86_64-linux",
		"passAsFile=text winvm", "textPath=" + top + "/.attr-text",
		"exportReferencesGraph=winvm-closure /nix/store/" + digest + "-inputs",
	}, more...)
}

func settings(t *testing.T, builder string, args ...string) string {
	t.Helper()
	b, err := json.Marshal(Settings{
		Builder: builder, Args: args, System: "x86_64-windows", Image: "/image",
		Inputs: "/nix/store/" + digest + "-inputs",
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func graph(paths ...string) string {
	var b strings.Builder
	for _, p := range paths {
		b.WriteString(p + "\n\n1\n" + p + "\n")
	}
	return b.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func wine(t *testing.T) guest.Profile {
	t.Helper()
	p, err := guest.Find("wine")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEnv(t *testing.T) {
	_, env := environment(t, "src=/nix/store/"+digest+"-src", "lines=a\nb\n\nc", "empty=", "SHELLOPTS=errexit", "UID=1000", "TMP=T:\\tmp", "doc=see /nix/store")
	b, err := Read(env)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"NIX_BUILD_CORES=2", `NIX_BUILD_TOP=X:\`, "NIX_STORE=S:", `TMP=T:\tmp`,
		"builder=/nix/store/" + digest + "-bash/bin/bash", "doc=see /nix/store", "empty=", "lines=a\nb\n\nc",
		"outputs=out dev", "passAsFile=text", "src=/nix/store/" + digest + "-src", "system=x86_64-windows", `textPath=X:\.attr-text`,
	}
	if got := b.Env(wine(t), 2); !slices.Equal(got, want) {
		t.Errorf("environment is\n%q, want\n%q", got, want)
	}
	outputs := []build.Output{{Var: "out", Path: "/nix/store/" + digest + "-a"}, {Var: "dev", Path: "/nix/store/" + digest + "-a-dev"}}
	if !slices.Equal(b.Outputs, outputs) {
		t.Errorf("outputs are %v", b.Outputs)
	}
	if want := []string{"/nix/store/" + digest + "-src"}; !slices.Equal(b.Closure, want) {
		t.Errorf("closure is %v, want %v", b.Closure, want)
	}
}

func TestHideHostFiles(t *testing.T) {
	top, env := environment(t)
	b, err := Read(env)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.HideHostFiles(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(top); len(left) != 0 {
		t.Errorf("left in the build's directory: %v", left)
	}
}

func TestStructured(t *testing.T) {
	top := t.TempDir()
	inner, err := json.Marshal(settings(t, "cmd.exe", "/c", "x"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(top, ".attrs.json"), `{"outputs":{"out":"/nix/store/`+digest+`-a","bin":"/nix/store/`+digest+`-a-bin"},
		"deep":{"a":[1,"x"]},"builder":"/agent","system":"x86_64-linux","exportReferencesGraph":{"winvmClosure":["/nix/store/x"]},
		"winvm":`+string(inner)+`,"winvmClosure":[{"path":"/nix/store/`+digest+`-inputs"},{"path":"/nix/store/`+digest+`-src"}]}`)
	b, err := Read([]string{"NIX_BUILD_TOP=" + top, "NIX_STORE=/nix/store", "NIX_ATTRS_JSON_FILE=/outside/of/the/sandbox/.attrs.json"})
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Outputs) != 2 || b.Outputs[0].Var != "bin" || b.Outputs[1].Var != "out" {
		t.Errorf("outputs are %v", b.Outputs)
	}
	if want := []string{"/nix/store/" + digest + "-src"}; !slices.Equal(b.Closure, want) {
		t.Errorf("closure is %v, want %v", b.Closure, want)
	}
	if got := b.Env(wine(t), 1); !slices.Contains(got, `NIX_ATTRS_JSON_FILE=X:\.attrs.json`) {
		t.Errorf("environment is %q", got)
	}
	if err := b.HideHostFiles(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadFile(filepath.Join(top, ".attrs.json"))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"builder":"cmd.exe","deep":{"a":[1,"x"]},"outputs":{"out":"/nix/store/` + digest + `-a","bin":"/nix/store/` + digest + `-a-bin"},"system":"x86_64-windows"}`
	if string(left) != want {
		t.Errorf("the attributes are\n%s, want\n%s", left, want)
	}
}

func TestCommand(t *testing.T) {
	store := "/nix/store/" + digest
	for _, c := range []struct {
		builder string
		args    []string
		want    []string // nil: an error
	}{
		{"cmd.exe", []string{"/c", "dir"}, []string{"cmd.exe", "/c", "dir"}},
		{store + "-t/bin/t.exe", []string{store + "-src", "x " + store + "-src", "/nix/store"}, []string{`S:\` + digest + `-t\bin\t.exe`, `S:\` + digest + `-src`, "x " + store + "-src", "/nix/store"}},
		{store + "-bash/bin/bash", []string{"-e", "-c", "echo hi"}, []string{"cmd.exe", "/d", "/c", "echo hi"}},
		{store + "-bash/bin/bash", []string{"-e", store + "-build.bat", "a"}, []string{`S:\` + digest + `-build.bat`, "a"}},
		{"/bin/sh", []string{"-e", store + "-builder.sh"}, nil},
		{"/bin/sh", []string{"-c", "a\nb"}, nil},
		{"/bin/sh", nil, nil},
	} {
		b := &Build{Store: "/nix/store", Settings: Settings{Builder: c.builder, Args: c.args}}
		got, err := b.Command(wine(t))
		if !slices.Equal(got, c.want) || (err != nil) != (c.want == nil) {
			t.Errorf("%s %q becomes %q, %v; want %q", c.builder, c.args, got, err, c.want)
		}
	}
}

func TestBadInput(t *testing.T) {
	top, env := environment(t)
	read := func() error { _, err := Read(env); return err }
	for _, text := range []string{"no path\n\n0\n", "/a\n\n5\n/b\n", "/a\n\nx\n", "/a\n\n0\n/b\n"} {
		write(t, filepath.Join(top, closureFile), text)
		if err := read(); !errors.Is(err, errGraph) {
			t.Errorf("graph %q: %v", text, err)
		}
	}
	write(t, filepath.Join(top, ".attr-winvm"), `{"builder":"x"}`)
	if err := read(); err == nil || !strings.Contains(err.Error(), "lib.nix") {
		t.Errorf("settings without an image: %v", err)
	}
	if _, err := Read([]string{"NIX_BUILD_TOP=/b", "NIX_STORE=/nix/store", "out=/etc/passwd"}); err == nil {
		t.Error("an output outside of the store is taken")
	}
}

func TestDetect(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want bool
	}{
		{map[string]string{}, false},
		{map[string]string{"NIX_BUILD_TOP": "/build", "NIX_STORE": "/nix/store", "out": "/nix/store/x"}, true},
		{map[string]string{"NIX_BUILD_TOP": "/build", "NIX_STORE": "/nix/store", "NIX_ATTRS_JSON_FILE": "/build/.attrs.json"}, true},
		{map[string]string{"NIX_BUILD_TOP": "/build", "NIX_STORE": "/nix/store", "out": "/nix/store/x", "IN_NIX_SHELL": "impure"}, false},
		{map[string]string{"out": "/nix/store/x"}, false},
	} {
		if got := Detect(func(k string) string { return c.env[k] }); got != c.want {
			t.Errorf("%v: %v", c.env, got)
		}
	}
}

func TestCores(t *testing.T) {
	for value, want := range map[string]string{"0": "4", "1": "1", "4": "4", "64": "4", "": "4", "x": "4"} {
		if got := cores(value, 4); got != want {
			t.Errorf("NIX_BUILD_CORES=%q becomes %q, want %q", value, got, want)
		}
	}
}
