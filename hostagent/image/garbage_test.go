package image

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/hostagent/garbage"
)

// removeAllGarbage removes it and returns the names of what is gone.
func removeAllGarbage(t *testing.T, s *Store) (names []string) {
	t.Helper()
	items, err := s.Garbage()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range items {
		if err := i.Remove(); err == nil {
			names = append(names, filepath.Base(i.Path))
		} else if !errors.Is(err, garbage.ErrInUse) {
			t.Error(err)
		}
	}
	slices.Sort(names)
	return names
}

func TestGarbage(t *testing.T) {
	state := t.TempDir()
	s := NewStore(state)
	wantNames(t, "in an empty directory", removeAllGarbage(t, s))
	i := create(t, s, "wine")
	suspend(t, s, i, "7.2")
	other := create(t, s, "never-suspended")
	// Killed in the middle of a create and of a suspend; and a remove.
	startHelper(t, "replace", state)()
	kill := startHelper(t, "replace", state)
	write(t, s.dir, ".removed-x-1/f", ".new-half/f", "damaged/image.json", "damaged/state-1/f", ".new-busy/f", ".busy.lock")
	unlock, err := tryFlock(filepath.Join(s.dir, ".busy.lock"), unix.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	// One suspend is at work: its state and what lies beside it are not touched.
	wantNames(t, "while a suspend is at work", removeAllGarbage(t, s), ".new-half", ".removed-x-1")
	kill()
	if got := removeAllGarbage(t, s); len(got) != 1 || got[0] == i.State.Dir { // each suspend sweeps what the one before left
		t.Errorf("after it was killed: %q", got)
	}
	unlock()
	wantNames(t, "after the create", removeAllGarbage(t, s), ".new-busy")
	if i, err = s.Load("wine"); err != nil || i.Check("7.2") != nil {
		t.Errorf("the image: %v, %v", err, i.Check("7.2"))
	}
	if _, err := s.Load(other.Name); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "damaged", "state-1", "f")); err != nil {
		t.Error("what isn't understood is gone:", err)
	}
}

// A state that becomes the one that counts between the listing and the removal stays.
func TestGarbageThatIsFinished(t *testing.T) {
	s := NewStore(t.TempDir())
	i := create(t, s, "wine")
	suspend(t, s, i, "7.2")
	write(t, i.Dir, "state-new/guest.state")
	items, err := s.Garbage()
	if err != nil || len(items) != 1 {
		t.Fatalf("%v, %v", items, err)
	}
	m := i.Meta
	m.State.Dir = "state-new"
	if err := writeMeta(i.Dir, m); err != nil {
		t.Fatal(err)
	}
	if err := items[0].Remove(); !errors.Is(err, garbage.ErrInUse) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(i.Path("state-new", "guest.state")); err != nil {
		t.Error(err)
	}
}
