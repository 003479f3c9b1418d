package nixtest

import (
	"regexp"
	"testing"
)

// preVM runs before the VMs start, and a build that it fails has none. What Nix has told the
// host agent is there to be seen: the closure of the original's inputs, and no more.
func TestPreVM(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct{ attrs, file string }{
		"plain":      {`outputs = [ "out" "dev" ]; passAsFile = [ "text" ]; text = "a";`, "winvm-closure"},
		"structured": {`__structuredAttrs = true; deep.list = [ 1 2 ];`, ".attrs.json"},
	} {
		r := w.build(t, `let src = builtins.toFile "source.txt" "x"; in
		  w.runInWindowsVM { inherit image; preVM = "pwd; /bin/cat `+c.file+`; exit 9"; } (drv "hook-`+name+`" "" { inherit src; `+c.attrs+` })`)
		r.fails("/build\n", "preVM, run by /bin/sh: exit status 9", "exit code 125")
		graph := r.stderr.String()
		if name == "structured" { // the paths of the graph alone
			graph = regexp.MustCompile(`"winvmClosure":\[.*?\}\]`).FindString(graph)
		}
		if !regexp.MustCompile(`/nix/store/[a-z0-9]{32}-source\.txt\b`).MatchString(graph) {
			t.Errorf("%s: the closure lacks the input:\n%s", name, graph)
		}
		if regexp.MustCompile(`(?m)(^|")/nix/store/[a-z0-9]{32}-(hostagent|qemu)("|$)`).MatchString(graph) {
			t.Errorf("%s: the closure has what runs the VMs:\n%s", name, graph)
		}
	}
}
