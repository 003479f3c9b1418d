package rundir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"winvm/hostagent/garbage"
)

// paths are the Items' paths below dir, by kind.
func paths(t *testing.T, dir string, items []garbage.Item) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, i := range items {
		rel, err := filepath.Rel(dir, i.Path)
		must(t, err)
		if i.Why == "" || i.Kind == "" {
			t.Errorf("%+v", i)
		}
		out[rel] = i.Kind
	}
	return out
}

func TestGarbage(t *testing.T) {
	state := t.TempDir()
	if items, err := Garbage(state, 0); err != nil || len(items) != 0 {
		t.Errorf("of nothing: %v, %v", items, err)
	}
	dead, deadDir, deadBeside := startRun(t, state, filepath.Join(t.TempDir(), "out"))
	live := mustNew(t, state)
	live.KeepLogs()
	kept := mustNew(t, state)
	kept.Keep()
	over := mustNew(t, state)
	over.KeepLogs()
	must(t, over.Remove())
	ended := mustNew(t, state)
	ended.Keep()
	must(t, ended.Close())
	kill(dead)
	old := time.Now().Add(-48 * time.Hour)
	for _, dir := range []string{"logs/" + over.ID, "logs/" + live.ID, "kept/" + kept.ID, "kept/" + ended.ID} {
		must(t, os.Chtimes(filepath.Join(state, dir), old, old))
	}
	must(t, os.MkdirAll(filepath.Join(state, "run", newPrefix+"young"), 0o700))

	deadRel := "run/" + filepath.Base(deadDir)
	for age, want := range map[time.Duration]map[string]string{
		24 * time.Hour: {deadRel: garbage.KindRun, "logs/" + over.ID: garbage.KindLogs, "kept/" + ended.ID: garbage.KindKept},
		72 * time.Hour: {deadRel: garbage.KindRun},
	} {
		items, err := Garbage(state, age)
		got := paths(t, state, items)
		if err != nil || len(got) != len(want) {
			t.Errorf("older than %v: got %v, %v; want %v", age, got, err, want)
		}
		for p, kind := range want {
			if got[p] != kind {
				t.Errorf("older than %v: %s is %q, want %q", age, p, got[p], kind)
			}
		}
	}
	items, err := Garbage(state, time.Hour)
	must(t, err)
	// Somebody takes one of them before it is removed.
	unlock, err := garbage.TryLock(filepath.Join(state, "kept", ended.ID, "lock"))
	must(t, err)
	for _, i := range items {
		if err := i.Remove(); err != nil && !errors.Is(err, garbage.ErrInUse) {
			t.Error(err)
		}
	}
	unlock()
	for p, want := range map[string]bool{
		deadDir: false, deadBeside: false, filepath.Join(state, "logs", over.ID): false, filepath.Join(state, "kept", ended.ID): true,
		live.Path("lock"): true, kept.Path("lock"): true, filepath.Join(state, "logs", live.ID): true, filepath.Join(state, "run", newPrefix+"young"): true,
	} {
		if exists(t, p) != want {
			t.Errorf("%s exists: %v", p, !want)
		}
	}
	must(t, errors.Join(live.Remove(), kept.Close()))
}
