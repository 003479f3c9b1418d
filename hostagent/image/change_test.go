package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestCreate(t *testing.T) {
	s := NewStore(t.TempDir())
	made := create(t, s, "wine")
	loaded, err := s.Load("wine")
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range []*Image{made, loaded} {
		if i.Dir != s.Dir("wine") || i.Format != Format || i.Name != "wine" || i.Guest != "wine" || !i.Created.Equal(created) || i.State != nil {
			t.Errorf("got %+v", i)
		}
		if len(i.Files) != 3 || i.Files["controller/vmlinuz"].Size != int64(len("controller/vmlinuz")) {
			t.Errorf("files %+v", i.Files)
		}
	}
	if err := loaded.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	wantNames(t, "store", ls(t, filepath.Dir(made.Dir)), "wine")
	wantNames(t, "image", ls(t, made.Dir), "controller", "guest", "image.json", "secrets.json")
}

func TestCreateAgain(t *testing.T) {
	s := NewStore(t.TempDir())
	create(t, s, "wine")
	i, err := s.Create(t.Context(), "wine", func(string) (Meta, error) {
		t.Error("made although it exists")
		return Meta{}, nil
	})
	wantError(t, "create", err, ErrExists, `"wine"`)
	if i == nil || i.Guest != "wine" {
		t.Errorf("got %+v, want the image that exists", i)
	}
}

func TestCreateFails(t *testing.T) {
	s := NewStore(t.TempDir())
	cause := errors.New("disk full")
	_, err := s.Create(t.Context(), "wine", func(dir string) (Meta, error) {
		write(t, dir, "half")
		names, err := s.List()
		if err != nil || len(names) > 0 {
			t.Errorf("seen while it is made: %v, %v", names, err)
		}
		return Meta{}, cause
	})
	wantError(t, "create", err, cause)
	wantNames(t, "store", ls(t, filepath.Dir(s.Dir("wine"))))
	create(t, s, "wine")
}

func TestCreateKilled(t *testing.T) {
	state := t.TempDir()
	s := NewStore(state)
	kill := startHelper(t, "create", state)
	create(t, s, "other") // must leave alone what is in the making
	wantNames(t, "store while it is made", ls(t, s.dir), ".new-wine", "other")
	kill()
	names, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	wantNames(t, "list after the kill", names, "other")
	_, err = s.Load("wine")
	wantError(t, "load after the kill", err, ErrNotFound)
	if err := os.Mkdir(filepath.Join(s.dir, removedPrefix+"x-1"), 0o700); err != nil { // of a killed remove
		t.Fatal(err)
	}
	create(t, s, "third")
	wantNames(t, "store after the next create", ls(t, s.dir), "other", "third")
	create(t, s, "wine")
	wantNames(t, "store", ls(t, s.dir), "other", "third", "wine")
}

func TestCreateTwiceAtOnce(t *testing.T) {
	s := NewStore(t.TempDir())
	var wg sync.WaitGroup
	var mu sync.Mutex // guards made and errs
	made, errs := 0, 0
	for range 4 {
		wg.Go(func() {
			i, err := s.Create(t.Context(), "wine", func(dir string) (Meta, error) {
				write(t, dir, "file")
				mu.Lock()
				made++
				mu.Unlock()
				return Meta{Guest: "wine"}, nil
			})
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, ErrExists) {
				errs++
			} else if err != nil {
				t.Error(err)
			}
			if i == nil || i.Guest != "wine" {
				t.Errorf("got %+v", i)
			}
		})
	}
	wg.Wait()
	if made != 1 || errs != 3 {
		t.Errorf("made %d times, %d were told that it exists", made, errs)
	}
}

func TestReplace(t *testing.T) {
	s := NewStore(t.TempDir())
	i := create(t, s, "wine")
	suspend(t, s, i, "1")
	first := i.State.Dir
	if err := i.Check("1"); err != nil {
		t.Fatal(err)
	}
	err := s.Replace(t.Context(), i, func(dir string) (State, error) {
		write(t, dir, "guest.memory")
		// The old state counts, and is whole, until the new one is.
		now, err := s.Load("wine")
		if err != nil || now.State.Dir != first {
			t.Errorf("meanwhile: %+v, %v", now, err)
		} else if err := now.Verify(t.Context()); err != nil {
			t.Errorf("meanwhile: %v", err)
		}
		return State{QEMU: "2"}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	now, err := s.Load("wine")
	if err != nil || now.State.Dir == first || now.State.Dir != i.State.Dir || now.State.QEMU != "2" || len(now.State.Files) != 1 {
		t.Fatalf("got %+v, %v", now.State, err)
	}
	if err := now.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	wantNames(t, "image", ls(t, i.Dir), "controller", "guest", "image.json", "secrets.json", i.State.Dir)
}

func TestReplaceFails(t *testing.T) {
	s := NewStore(t.TempDir())
	i := create(t, s, "wine")
	suspend(t, s, i, "1")
	before := ls(t, i.Dir)
	cause := errors.New("the guest died")
	err := s.Replace(t.Context(), i, func(dir string) (State, error) {
		write(t, dir, "half")
		return State{}, cause
	})
	wantError(t, "replace", err, cause)
	wantNames(t, "image", ls(t, i.Dir), before...)
	if i, err = s.Load("wine"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(i.Check("1"), i.Verify(t.Context())); err != nil {
		t.Error(err)
	}
}

func TestReplaceKilled(t *testing.T) {
	state := t.TempDir()
	s := NewStore(state)
	i := create(t, s, "wine")
	suspend(t, s, i, "1")
	before := ls(t, i.Dir)
	startHelper(t, "replace", state)()
	if len(ls(t, i.Dir)) != len(before)+1 {
		t.Error("the killed suspend left nothing, so this test shows nothing")
	}
	i, err := s.Load("wine")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(i.Check("1"), i.Verify(t.Context())); err != nil {
		t.Errorf("after the kill: %v", err)
	}
	err = s.Replace(t.Context(), i, func(dir string) (State, error) {
		want := append(before, filepath.Base(dir))
		slices.Sort(want)
		wantNames(t, "image, before the disk is filled", ls(t, i.Dir), want...)
		return State{QEMU: "2"}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantNames(t, "image", ls(t, i.Dir), "controller", "guest", "image.json", "secrets.json", i.State.Dir)
}

// A suspend that waits for another takes note of what that did.
func TestReplaceWaits(t *testing.T) {
	state := t.TempDir()
	s := NewStore(state)
	i := create(t, s, "wine")
	stale, err := s.Load("wine")
	if err != nil {
		t.Fatal(err)
	}
	kill := startHelper(t, "replace", state)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err = s.Replace(ctx, i, func(string) (State, error) { return State{}, errors.New("begun") })
	wantError(t, "suspend beside a suspend", err, context.DeadlineExceeded, "in use")
	kill()
	suspend(t, s, i, "1")
	suspend(t, s, stale, "2") // knows of no state
	wantNames(t, "image", ls(t, i.Dir), "controller", "guest", "image.json", "secrets.json", stale.State.Dir)
}

func TestReplaceOfAnotherImage(t *testing.T) {
	s := NewStore(t.TempDir())
	i := create(t, s, "wine")
	never := func(string) (State, error) { return State{}, errors.New("begun") }
	if err := s.Remove(t.Context(), "wine"); err != nil {
		t.Fatal(err)
	}
	wantError(t, "removed", s.Replace(t.Context(), i, never), ErrNotFound)
	if _, err := s.Create(t.Context(), "wine", func(string) (Meta, error) {
		return Meta{Created: created.Add(time.Hour)}, nil
	}); err != nil {
		t.Fatal(err)
	}
	wantError(t, "made anew", s.Replace(t.Context(), i, never), ErrNotFound, "made anew")
}
