package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"winvm/hostagent/image"
)

// An input that was warmed is read in a build without the host being asked; one that
// changed since is read anew, and what isn't an input of the build is not there.
func TestWarm(t *testing.T) {
	e := newEnv(t)
	i := e.ownImage()
	content := func(c string) string { return strings.Repeat(c, 300) + "\n" }
	for n := range 20 {
		writeFile(t, e.path("store", "warm-1", "sub", fmt.Sprintf("f%02d", n)), content(string(rune('a'+n))))
		writeFile(t, e.path("store", "changes-1", fmt.Sprintf("f%02d", n)), content("o"))
	}
	writeFile(t, e.path("store", "warm-1", "big"), strings.Repeat("0123456789abcde\n", 100_000))
	writeFile(t, e.path("store", "warm-2", "secret"), "not for this build\n")
	r := e.start("suspend", "--store", e.store, "--warm", "warm-1", "--warm", e.path("store", "changes-1"), "--warm", "warm-2", "--warm", "tool", imageName)
	r.wait()
	r.wants(0, "reading the warm inputs")
	var m image.Meta
	r = e.start("image", "show", imageName)
	r.wait()
	must(t, json.Unmarshal([]byte(r.stdout.String()), &m))
	if w := m.State.Warmed; w == nil || w.StorePaths != 4 || w.Files != 43 || w.Bytes < 1_600_000 || len(m.Warm.Inputs) != 4 || m.Warm.Store != e.store {
		t.Errorf("shown: %+v, warmed %+v", m.Warm, m.State.Warmed)
	}

	writeFile(t, e.path("store", "changes-1", "f07"), content("N")) // of the same size
	build := func(cmd string) (*run, int64, int64) {
		t.Helper()
		result := filepath.Join(t.TempDir(), "result.json")
		r := e.build("--input", "warm-1", "--input", "changes-1", "--input", "tool", "--result", result, "--", "cmd", "/c", cmd)
		r.wants(0)
		res := readResult(t, result)
		return r, res.Store.Reads + res.Store.Batches, res.Store.Metadata
	}
	r, asked, metadata := build(`type S:\warm-1\sub\f03& fc /b S:\warm-1\big S:\warm-1\big >nul & ` + toolPath + ` exit 0 & type S:\warm-1\sub\f11& (if exist S:\warm-2 echo visible)& exit 0`)
	r.says(content("d") + content("l"))
	if asked != 0 {
		t.Errorf("the host was asked %d times for contents that are warm", asked)
	}
	// The one section that isn't in the snapshot: header, 21 records, 20 names of 3 bytes.
	if want := int64(16 + 21*32 + 20*3); metadata != want {
		t.Errorf("%d bytes of metadata asked for, want the %d of changes-1 alone", metadata, want)
	}
	r, asked, _ = build(`type S:\changes-1\f07& type S:\changes-1\f06`)
	r.says(content("N") + content("o"))
	if asked == 0 {
		t.Error("the host was not asked for what has changed")
	}

	// What the image remembers is warmed again, and has to be there.
	must(t, os.RemoveAll(e.path("store", "warm-2")))
	r = e.start("suspend", imageName)
	r.wait()
	r.wants(125, "warm-2", "does not exist", "--cold")
	big := e.path("store", "large-1")
	must(t, os.WriteFile(big, nil, 0o644))
	must(t, os.Truncate(big, 400<<20))
	r = e.start("suspend", "--store", e.store, "--warm", "large-1", imageName)
	r.wait()
	r.wants(125, "don't fit into the controller's memory", "--controller-memory 561")
	if !bytes.Contains([]byte(readFile(t, filepath.Join(i.dir, "image.json"))), []byte("warm-2")) {
		t.Error("a suspend that failed has changed what the image remembers")
	}
}
