package storefs_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"winvm/fuse/storefs"
	"winvm/transport/fsrpc"
)

// One session follows the other while the root is a working directory and an open
// listing, and directories and files below are open.
func TestSessionReplaced(t *testing.T) {
	a := makeTree(t, "both/f", "same", "changed/f", "one", "only-a/d/f", "a")
	b := makeTree(t, "both/f", "same", "changed/f", "two two", "only-b/f", "b")
	for _, ro := range []bool{false, true} {
		one, two := newStore(t, a, "both", "changed", "only-a"), newStore(t, b, "both", "changed", "only-b")
		m := newMount(t, storefs.Config{ReadOnly: ro})
		setSession(t, m, one, nil)
		p := func(name string) string { return filepath.Join(m.Dir(), name) }
		list, err := os.Open(m.Dir())
		if err != nil {
			t.Fatal(err)
		}
		defer list.Close()
		wantList(t, list, "both changed only-a")
		wantRead(t, p("both/f"), "same")
		wantRead(t, p("changed/f"), "one")
		wantRead(t, p("only-a/d/f"), "a")
		cwd, err := unix.Open(p("only-a/d"), unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(cwd)
		var before, after unix.Stat_t
		_ = unix.Stat(p("both/f"), &before)

		m.ClearSession()
		setSession(t, m, two, nil)
		if n, want := two.fetched.Load(), int64(len(two.metas[1])+len(two.metas[2])); n != want || two.fetches.Load() != 1 {
			t.Errorf("%d bytes fetched in %d requests, want %d in one: the first of three sections is held", n, two.fetches.Load(), want)
		}
		wantList(t, list, "both changed only-b")
		wantRead(t, p("both/f"), "same")
		wantRead(t, p("changed/f"), "two two")
		wantRead(t, p("only-b/f"), "b")
		for _, name := range []string{"only-a", "only-a/d", "only-a/d/f"} {
			_, err := os.Lstat(p(name))
			wantErr(t, err, name, unix.ENOENT)
		}
		if err := unix.Stat(p("both/f"), &after); err != nil || after.Ino != before.Ino {
			t.Errorf("inode of what both have: %d, then %d, %v", before.Ino, after.Ino, err)
		}
		wantErr(t, unix.Fstatat(cwd, "none", &after, 0), "in a directory that isn't there any more", unix.ESTALE)

		setSession(t, m, one, nil)
		wantRead(t, p("only-a/d/f"), "a")
		wantList(t, list, "both changed only-a")
		_, err = os.Lstat(p("only-b"))
		wantErr(t, err, "only-b", unix.ENOENT)
	}
}

// Outputs of one build are gone in the next.
func TestOutputsReplaced(t *testing.T) {
	dir := makeTree(t, "input", "x")
	store := newStore(t, dir, "input")
	first, _ := newOutputs(t, "out")
	second, _ := newOutputs(t, "out")
	m := newMount(t, storefs.Config{})
	out := filepath.Join(m.Dir(), "out")
	root, err := os.Open(m.Dir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for i, tree := range []fsrpc.Tree{first, second, nil} {
		setSession(t, m, store, tree)
		wantList(t, root, "input")
		_, err := os.Lstat(out)
		wantErr(t, err, "out before it is made", unix.ENOENT)
		if tree == nil {
			wantErr(t, os.Mkdir(out, 0o755), "mkdir without outputs", unix.EROFS)
			continue
		}
		if err := os.WriteFile(out, []byte{byte(i)}, 0o644); err != nil {
			t.Fatal(err)
		}
		wantRead(t, out, string([]byte{byte(i)}))
		m.ClearSession()
	}
}

// A file whose bytes changed but not its size is read anew in the next session, and
// only then; what didn't change stays in the kernel's cache from session to session.
func TestContentsKept(t *testing.T) {
	dir := makeTree(t, "p/f", "old", "q/g", "same")
	m := newMount(t, storefs.Config{})
	first := newStore(t, dir, "p", "q")
	setSession(t, m, first, nil)
	f, g := filepath.Join(m.Dir(), "p/f"), filepath.Join(m.Dir(), "q/g")
	wantRead(t, f, "old")
	wantRead(t, g, "same")
	if err := os.WriteFile(filepath.Join(dir, "p/f"), []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	wantRead(t, f, "old") // within a session it is frozen
	second := newStore(t, dir, "p", "q")
	setSession(t, m, second, nil)
	wantRead(t, g, "same")
	if n := second.reads.Load(); n != 0 {
		t.Errorf("%d reads of what was read before", n)
	}
	wantRead(t, f, "new")
	setSession(t, m, first, nil)
	wantRead(t, g, "same")
	if n := first.reads.Load(); n != 2 {
		t.Errorf("%d reads in the sessions of the first store, want 2", n)
	}
}

// Two store paths with equal metadata are two, though it is fetched once.
func TestEqualMetadata(t *testing.T) {
	dir := makeTree(t, "a", "1", "b", "1")
	store := newStore(t, dir, "a", "b")
	if store.sections[0].Hash != store.sections[1].Hash {
		t.Fatal("hashes differ")
	}
	m := newMount(t, storefs.Config{})
	setSession(t, m, store, nil)
	if n := store.fetches.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
	wantRead(t, filepath.Join(m.Dir(), "a"), "1")
	wantRead(t, filepath.Join(m.Dir(), "b"), "1")
	if n := store.reads.Load(); n != 2 {
		t.Errorf("%d reads of two files", n)
	}
}

// Old sections go when they take too much memory; nothing stale is left of them.
func TestCacheBound(t *testing.T) {
	dir := makeTree(t, "a/f", "1", "b/f", "2", "c/f", "3")
	stores := []*dirStore{newStore(t, dir, "a"), newStore(t, dir, "b"), newStore(t, dir, "c")}
	m := newMount(t, storefs.Config{MaxCachedBytes: stores[0].sections[0].Size})
	for i := range 9 {
		s := stores[i%3]
		setSession(t, m, s, nil)
		name := s.sections[0].Name
		wantRead(t, filepath.Join(m.Dir(), name, "f"), string(rune('1'+i%3)))
		_, err := os.Lstat(filepath.Join(m.Dir(), stores[(i+2)%3].sections[0].Name))
		wantErr(t, err, "the former one", unix.ENOENT)
	}
}

func TestNoSession(t *testing.T) {
	dir := makeTree(t, "p/f", "content")
	store := newStore(t, dir, "p")
	m := newMount(t, storefs.Config{Grace: 200 * time.Millisecond})
	_, err := os.Lstat(filepath.Join(m.Dir(), "p"))
	wantErr(t, err, "without a session", unix.EIO)
	if st, err := os.Stat(m.Dir()); err != nil || !st.IsDir() {
		t.Errorf("the root without a session: %v, %v", st, err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(filepath.Join(m.Dir(), "p/f"))
		waited <- err
	}()
	setSession(t, m, store, nil)
	if err := <-waited; err != nil {
		t.Errorf("read that waited: %v", err)
	}
}

func TestCloseWithHungStore(t *testing.T) {
	dir := makeTree(t, "p/f", "content")
	store := newStore(t, dir, "p")
	store.hang.Store(true)
	m := newMount(t, storefs.Config{})
	setSession(t, m, store, nil)
	failed := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(filepath.Join(m.Dir(), "p/f"))
		failed <- err
	}()
	for store.reads.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	closeFS(t, m)
	if err := <-failed; err == nil {
		t.Error("a read from a hung store succeeded")
	}
}

// bad is a Store that lies in one way.
type bad struct {
	*dirStore
	lie func(*fsrpc.Section)
	cut bool
}

func (b *bad) Sections(ctx context.Context, first uint32, limit int) ([]fsrpc.Section, error) {
	list, err := b.dirStore.Sections(ctx, first, limit)
	for i := range list {
		b.lie(&list[i])
	}
	return list, err
}

func (b *bad) Metadata(ctx context.Context, section uint32, off uint64, buf []byte) (int, error) {
	if b.cut {
		return len(buf) / 2, nil
	}
	return b.dirStore.Metadata(ctx, section, off, buf)
}

func TestBadSections(t *testing.T) {
	dir := makeTree(t, "a/f", "1", "b/g", "22")
	m := newMount(t, storefs.Config{MaxSessionBytes: 1000})
	setSession(t, m, newStore(t, dir, "a"), nil)
	for what, b := range map[string]*bad{
		"hash":        {lie: func(s *fsrpc.Section) { s.Hash[3]++ }},
		"size":        {lie: func(s *fsrpc.Section) { s.Size-- }},
		"huge":        {lie: func(s *fsrpc.Section) { s.Size = 1 << 40 }},
		"over limit":  {lie: func(s *fsrpc.Section) { s.Size = 900 }},
		"entries":     {lie: func(s *fsrpc.Section) { s.Entries-- }},
		"no entries":  {lie: func(s *fsrpc.Section) { s.Entries = 0 }},
		"many":        {lie: func(s *fsrpc.Section) { s.Entries = 1 << 31 }},
		"order":       {lie: func(s *fsrpc.Section) { s.Name = "same" }},
		"name":        {lie: func(s *fsrpc.Section) { s.Name = "../x" }},
		"short piece": {lie: func(*fsrpc.Section) {}, cut: true},
	} {
		b.dirStore = newStore(t, dir, "b")
		b.add(t, "c", filepath.Join(dir, "b/g"))
		err := m.SetSession(t.Context(), b, nil)
		if err == nil {
			t.Errorf("%s: taken", what)
		} else if !errors.Is(err, storefs.ErrBadSection) && what != "over limit" && what != "short piece" {
			t.Errorf("%s: %v", what, err)
		}
		wantRead(t, filepath.Join(m.Dir(), "a/f"), "1") // the former session goes on
	}
	ro := newMount(t, storefs.Config{ReadOnly: true})
	outputs, _ := newOutputs(t)
	if err := ro.SetSession(t.Context(), newStore(t, dir, "a"), outputs); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("outputs on a read-only mount: %v", err)
	}
}
