package nixbuild

import (
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"winvm/hostagent/build"
	"winvm/hostagent/guest"
)

// hostPaths are variables that are of the host as long as they are Linux paths.
var hostPaths = []string{"HOME", "PATH", "TMPDIR", "TEMPDIR", "TMP", "TEMP", "SHELL"}

// hostOnly are variables that mean nothing in a guest, or that its shell doesn't let
// anybody set.
var hostOnly = []string{
	"NIX_LOG_FD", "TERM", "PWD", "OLDPWD", "SHLVL", "_",
	"UID", "EUID", "PPID", "SHELLOPTS", "BASHOPTS", "BASH_VERSINFO",
	attribute, attributePat,
	"WINVM_STATE_DIR", "WINVM_CACHE_DIR", "WINVM_LIBEXEC_DIR", "WINVM_QEMU", "WINVM_IMAGE", "WINVM_ACCEL", "WINVM_JOBS", "WINVM_NO_LANE", "WINVM_DEBUG",
}

// Env is the environment of the command in a guest with that profile and so many CPUs.
func (b *Build) Env(p guest.Profile, cpus int) []string {
	var out []string
	for name, value := range b.env {
		if value, ok := b.variable(name, value, p, cpus); ok {
			out = append(out, name+"="+value)
		}
	}
	slices.Sort(out)
	return out
}

func (b *Build) variable(name, value string, p guest.Profile, cpus int) (string, bool) {
	if slices.Contains(hostOnly, name) || slices.Contains(hostPaths, name) && strings.HasPrefix(value, "/") {
		return "", false
	}
	if slices.ContainsFunc(b.Outputs, func(o build.Output) bool { return o.Var == name }) {
		return "", false // the build says where
	}
	switch name {
	case "NIX_STORE":
		return strings.TrimSuffix(p.StorePath(""), `\`), true
	case "NIX_BUILD_CORES":
		return cores(value, cpus), true
	case "builder", "system":
		if original := map[string]string{"builder": b.Builder, "system": b.System}[name]; b.Wrapped {
			return original, true
		}
	case "passAsFile", "exportReferencesGraph":
		if b.Wrapped {
			return b.asBefore(name, value)
		}
	}
	if rel, ok := inside(b.Top, value); ok {
		return p.XchgPath(rel), true
	}
	return value, true
}

// asBefore takes what lib.nix has added off a list; an empty one was not there.
func (b *Build) asBefore(name, value string) (string, bool) {
	added := map[string]string{
		"passAsFile":            attribute,
		"exportReferencesGraph": closureFile + " " + b.Inputs,
	}[name]
	value = strings.TrimSuffix(strings.TrimSuffix(value, added), " ")
	return value, value != ""
}

// cores caps NIX_BUILD_CORES, of which 0 means all there are.
func cores(value string, cpus int) string {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > cpus {
		n = cpus
	}
	return strconv.Itoa(n)
}

// inside returns what a path below dir, or dir itself, is called from there.
func inside(dir, path string) (string, bool) {
	if path == dir {
		return "", true
	}
	rest, ok := strings.CutPrefix(path, dir+"/")
	if !ok || rest == "" || strings.ContainsAny(rest, "\n:") || !filepath.IsLocal(rest) {
		return "", false
	}
	return rest, true
}

// storeArg is an argument that is a store path, or a path in one, and nothing more.
var storeArg = regexp.MustCompile(`^/[0-9a-df-np-sv-z]{32}-[0-9a-zA-Z+._?=-]+(/[^\n]*)?$`)

// guestPath is what a path in the store is called in the guest; other text stays.
func (b *Build) guestPath(s string, p guest.Profile) string {
	rest, ok := strings.CutPrefix(s, b.Store)
	if !ok || !storeArg.MatchString(rest) {
		return s
	}
	return p.StorePath(rest[1:])
}

// linuxShells are builders that cmd.exe, which every guest has, stands in for.
var linuxShells = []string{"sh", "bash", "dash", "ash", "busybox"}

// Command is the original derivation's builder with its arguments, as the guest has to
// run it. Arguments that are store paths are given as the guest calls them.
func (b *Build) Command(p guest.Profile) ([]string, error) {
	args := make([]string, 0, len(b.Args)+1)
	for _, a := range b.Args {
		args = append(args, b.guestPath(a, p))
	}
	if !strings.HasPrefix(b.Builder, "/") || !slices.Contains(linuxShells, path.Base(b.Builder)) {
		return append([]string{b.guestPath(b.Builder, p)}, args...), nil
	}
	return cmdFor(b.Builder, args)
}

// cmdFor runs by cmd.exe what was for a Linux shell: `-c TEXT`, or a batch file.
func cmdFor(builder string, args []string) ([]string, error) {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && args[0] != "-c" {
		args = args[1:] // -e, -u, ... : cmd.exe has nothing like them
	}
	switch {
	case len(args) == 2 && args[0] == "-c" && !strings.ContainsAny(args[1], "\n"):
		return []string{"cmd.exe", "/d", "/c", args[1]}, nil
	case len(args) > 0 && isBatch(args[0]):
		return args, nil
	default:
		return nil, fmt.Errorf("the builder is %s with the arguments %q, and the guest's own shell is cmd.exe, which can't run that: "+
			"give it `-c` and a line for cmd.exe, a .bat or .cmd file, or have another builder (docs/nix.md)", builder, args)
	}
}

func isBatch(name string) bool {
	name = strings.ToLower(name)
	return strings.HasSuffix(name, ".bat") || strings.HasSuffix(name, ".cmd")
}
