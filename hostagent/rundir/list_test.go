package rundir

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Runs that live are listed, where they run and where they are kept; those of killed
// processes are not.
func TestList(t *testing.T) {
	state := t.TempDir()
	if runs, err := List(state); err != nil || len(runs) != 0 {
		t.Errorf("in an empty directory: %v, %v", runs, err)
	}
	dead, _, _ := startRun(t, state, filepath.Join(t.TempDir(), "out"))
	if runs, err := List(state); err != nil || len(runs) != 1 || runs[0].Kept {
		t.Fatalf("got %v, %v", runs, err)
	}
	kill(dead)
	if runs, err := List(state); err != nil || len(runs) != 0 {
		t.Errorf("killed, and listed: %v, %v", runs, err)
	}

	a, b := mustNew(t, state), mustNew(t, state)
	if to := b.Keep(); to != filepath.Join(state, "kept", b.ID) || b.Path(".") != to {
		t.Errorf("kept in %s, %s", to, b.Path("."))
	}
	runs, err := List(state)
	if err != nil || len(runs) != 2 {
		t.Fatalf("got %v, %v", runs, err)
	}
	for _, r := range runs {
		if want := r.ID == b.ID; r.Kept != want || !exists(t, filepath.Join(r.Dir, "lock")) {
			t.Errorf("%+v", r)
		}
	}
	for _, id := range []string{b.ID, b.ID[len(b.ID)-6:]} {
		if r, err := Find(state, id); err != nil || r.ID != b.ID {
			t.Errorf("%s: got %+v, %v", id, r, err)
		}
	}
	for id, says := range map[string]string{"": "no such run", "x/../" + a.ID: "no such run", "..": "no such run", a.ID[:4]: "ambiguous"} {
		if _, err := Find(state, id); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", id, err)
		}
	}
	must(t, b.Close())
	must(t, a.Remove())
	if runs, err := List(state); err != nil || len(runs) != 0 {
		t.Errorf("after their end: %v, %v", runs, err)
	}
	if !exists(t, filepath.Join(state, "kept", b.ID)) {
		t.Error("what was kept is gone")
	}
}

// The oldest is first, of those that began in one second, too.
func TestListOrder(t *testing.T) {
	state := t.TempDir()
	var want []string
	for range 20 {
		d := mustNew(t, state)
		want = append(want, d.ID)
		defer func() { must(t, d.Remove()) }()
	}
	runs, err := List(state)
	must(t, err)
	var got []string
	for _, r := range runs {
		got = append(got, r.ID)
		if r.Since.IsZero() || time.Since(r.Since) > time.Minute {
			t.Errorf("%+v", r)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestFindLogs(t *testing.T) {
	state := t.TempDir()
	running, over := mustNew(t, state), mustNew(t, state)
	over.KeepLogs()
	must(t, over.Remove())
	ids, err := Logs(state)
	if err != nil || len(ids) != 2 {
		t.Errorf("got %v, %v", ids, err)
	}
	for id, want := range map[string]string{running.ID: running.Path("log"), over.ID: filepath.Join(state, "logs", over.ID)} {
		if full, dir, err := FindLogs(state, id[9:]); err != nil || dir != want || full != id {
			t.Errorf("%s: %s, %s, %v", id, full, dir, err)
		}
	}
	if _, _, err := FindLogs(state, "nosuch"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	must(t, running.Remove())
}
