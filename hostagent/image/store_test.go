package image

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCheckName(t *testing.T) {
	for _, n := range []string{"wine", "a", "0", "Windows-11_x64.2", strings.Repeat("x", 64)} {
		if err := CheckName(n); err != nil {
			t.Errorf("%q: %v", n, err)
		}
	}
	s := NewStore(t.TempDir())
	for _, n := range []string{"", ".", "..", ".hidden", "-x", "a/b", "../a", "a b", "a\n", "ä", "a\x00", strings.Repeat("x", 65)} {
		_, err := s.Load(n)
		wantError(t, "load", err, ErrBadName)
		wantError(t, "remove", s.Remove(t.Context(), n), ErrBadName)
		_, err = s.Create(t.Context(), n, func(string) (Meta, error) { return Meta{}, errors.New("begun") })
		wantError(t, "create", err, ErrBadName)
	}
}

func TestList(t *testing.T) {
	s := NewStore(t.TempDir())
	names, err := s.List()
	if err != nil {
		t.Errorf("a state directory without images: %v", err)
	}
	wantNames(t, "empty store", names)
	create(t, s, "b")
	create(t, s, "a")
	write(t, s.dir, "a-file")
	if names, err = s.List(); err != nil {
		t.Fatal(err)
	}
	wantNames(t, "list", names, "a", "b")
}

func TestLoadRefuses(t *testing.T) {
	whole, err := json.Marshal(Meta{Format: Format, Name: "wine"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text     string
		sentinel error
		says     string
	}{
		"empty":          {"", ErrDamaged, "hostagent image create wine"},
		"cut off":        {string(whole[:len(whole)-5]), ErrDamaged, "image.json"},
		"other JSON":     {`[1, 2]`, ErrDamaged, "image.json"},
		"wrong type":     {`{"format": 1, "name": "wine", "cpus": "two"}`, ErrDamaged, "cpus"},
		"zeros":          {strings.Repeat("\x00", 512), ErrDamaged, "hostagent image remove wine"},
		"too long":       {string(whole) + strings.Repeat(" ", maxMeta), ErrDamaged, "bytes"},
		"newer format":   {`{"format": 2, "name": "wine"}`, ErrMismatch, "has format 2, this hostagent knows 1"},
		"older format":   {`{"name": "wine"}`, ErrMismatch, "has format 0"},
		"another's name": {`{"format": 1, "name": "xp"}`, ErrDamaged, `"xp"`},
	} {
		s := NewStore(t.TempDir())
		write(t, s.Dir("wine"), "image.json")
		if err := os.WriteFile(filepath.Join(s.Dir("wine"), "image.json"), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := s.Load("wine")
		wantError(t, name, err, c.sentinel, c.says)
		// It can still be seen and got rid of.
		if names, err := s.List(); err != nil || len(names) != 1 {
			t.Errorf("%s: list %v, %v", name, names, err)
		}
		if err := s.Remove(t.Context(), "wine"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = NewStore(t.TempDir()).Load("wine")
	wantError(t, "none", err, ErrNotFound, `"wine"`, "hostagent image create wine")
}

func TestCheck(t *testing.T) {
	s := NewStore(t.TempDir())
	i := create(t, s, "wine")
	wantError(t, "not suspended", i.Check("7.2"), ErrNotSuspended, "hostagent suspend wine")
	suspend(t, s, i, "7.2")
	if err := i.Check("7.2"); err != nil {
		t.Fatal(err)
	}
	wantError(t, "other QEMU", i.Check("8.0"), ErrMismatch, "by QEMU 7.2, here is 8.0", "hostagent suspend wine")

	for name, c := range map[string]struct {
		path string
		does func(path string) error
		says []string
	}{
		"state cut off":  {i.StatePath("guest.state"), truncate, []string{"guest.state has 0 bytes instead of 11", "hostagent suspend wine"}},
		"state missing":  {i.StatePath("guest.memory"), os.Remove, []string{"no such file", "hostagent suspend wine"}},
		"kernel missing": {i.Path("controller", "vmlinuz"), os.Remove, []string{"no such file", "hostagent image remove wine", "hostagent image create wine"}},
		"root cut off":   {i.Path("guest", "root.squashfs"), truncate, []string{"instead of 19", "hostagent image create wine"}},
	} {
		whole, err := os.ReadFile(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.does(c.path); err != nil {
			t.Fatal(err)
		}
		wantError(t, name, i.Check("7.2"), ErrDamaged, append(c.says, `"wine"`)...)
		if err := i.Verify(t.Context()); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: verify: %v", name, err)
		}
		if err := os.WriteFile(c.path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func truncate(path string) error { return os.Truncate(path, 0) }

func TestVerifyFindsAFlippedBit(t *testing.T) {
	s := NewStore(t.TempDir())
	i := create(t, s, "wine")
	suspend(t, s, i, "7.2")
	if err := i.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{i.StatePath("guest.memory"), i.Path("guest", "root.squashfs")} {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		b[3] ^= 0x10
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := i.Check("7.2"); err != nil {
			t.Errorf("Check reads no files, but says %v", err)
		}
		wantError(t, p, i.Verify(t.Context()), ErrDamaged, filepath.Base(p)+" is not what was written")
		b[3] ^= 0x10
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantError(t, "interrupted", i.Verify(ctx), context.Canceled)
}

func TestCheckIdentity(t *testing.T) {
	long := strings.Repeat("flag ", 100)
	i := &Image{Meta: Meta{Name: "wine"}}
	if err := i.CheckIdentity("guest", "a\nb", "a\nb"); err != nil {
		t.Error(err)
	}
	for _, c := range []struct{ saved, now, says string }{
		{"machine=q35\ncpu=qemu64\nsmp=1", "machine=q35\ncpu=max\nsmp=2", `then "cpu=qemu64", now "cpu=max"`},
		{"a", "a\nb", `then "nothing", now "b"`},
		{"a\nb", "a", `then "b", now "nothing"`},
		{"host cpu X " + long + "avx512 fpu", "host cpu Y " + long + "fpu sse9", `then with "X avx512", now with "Y sse9"`},
	} {
		err := i.CheckIdentity("guest", c.saved, c.now)
		wantError(t, c.says, err, ErrMismatch, c.says, "the guest of image", "hostagent suspend wine")
	}
}

func TestRemove(t *testing.T) {
	s := NewStore(t.TempDir())
	wantError(t, "none", s.Remove(t.Context(), "wine"), ErrNotFound, `"wine"`)
	i := create(t, s, "wine")
	held, err := os.Open(i.Path("secrets.json")) // as a QEMU has its files open
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	if err := s.Remove(t.Context(), "wine"); err != nil {
		t.Fatal(err)
	}
	wantNames(t, "store", ls(t, s.dir))
	if n, err := held.Read(make([]byte, 64)); n == 0 || err != nil {
		t.Errorf("who has the file open reads %d bytes, %v", n, err)
	}
	_, err = s.LockShared(t.Context(), "wine")
	wantError(t, "lock", err, ErrNotFound)
}

func TestRemoveWaitsForBuildsThatStart(t *testing.T) {
	s := NewStore(t.TempDir())
	create(t, s, "wine")
	var builds []func()
	for range 2 {
		unlock, err := s.LockShared(t.Context(), "wine") // any number at once
		if err != nil {
			t.Fatal(err)
		}
		builds = append(builds, unlock)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*lockPoll)
	defer cancel()
	wantError(t, "remove", s.Remove(ctx, "wine"), context.DeadlineExceeded, "in use")
	if _, err := s.Load("wine"); err != nil {
		t.Error(err)
	}
	builds[0]()
	removed := make(chan error, 1)
	go func() { removed <- s.Remove(t.Context(), "wine") }()
	select {
	case err := <-removed:
		t.Fatalf("removed (%v) while a build starts from it", err)
	case <-time.After(3 * lockPoll):
	}
	builds[1]()
	if err := <-removed; err != nil {
		t.Error(err)
	}
}

// A build that waited for the lock while the image went must not get one.
func TestLockOfARemovedImage(t *testing.T) {
	s := NewStore(t.TempDir())
	create(t, s, "wine")
	unlock, err := s.Lock(t.Context(), "wine")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		_, err := s.LockShared(t.Context(), "wine")
		got <- err
	}()
	select {
	case err := <-got:
		t.Fatalf("shared beside an exclusive lock: %v", err)
	case <-time.After(2 * lockPoll):
	}
	if err := os.Rename(s.Dir("wine"), filepath.Join(s.dir, removedPrefix+"wine-1")); err != nil {
		t.Fatal(err)
	}
	unlock()
	wantError(t, "lock", <-got, ErrNotFound)
}
