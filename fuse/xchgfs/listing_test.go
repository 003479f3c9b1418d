package xchgfs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/fuse/xchgfs"
)

// A listing is fetched in pieces with attributes. What is changed through the mount
// between the fetch and the moment the kernel takes an entry must not be undone by it.
func TestListingKeepsNoOldAttributes(t *testing.T) {
	tree, host := newTree(t)
	const files = 400
	name := func(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("f%03d", i)) }
	for i := range files {
		if err := os.WriteFile(name(host, i), []byte("0123456789"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := newMount(t, xchgfs.Config{})
	m.SetTree(tree)
	dir, err := unix.Open(m.Dir(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	// The first entries only: the agent has many more then, the kernel has not.
	if _, err := unix.Getdents(dir, make([]byte, 256)); err != nil {
		t.Fatal(err)
	}
	open := make([]*os.File, files)
	for i := range open {
		f, err := os.OpenFile(name(m.Dir(), i), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		open[i] = f
		if _, err := f.WriteAt([]byte("abcdef"), 10); err != nil {
			t.Fatal(err)
		}
		if err := f.Chmod(0o600); err != nil {
			t.Fatal(err)
		}
	}
	for n := 1; n > 0; {
		if n, err = unix.Getdents(dir, make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
	}
	stale := 0
	for i, f := range open {
		st, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 32)
		n, _ := f.ReadAt(buf, 0)
		if st.Size() != 16 || st.Mode() != 0o600 || string(buf[:n]) != "0123456789abcdef" {
			stale++
			if stale == 1 {
				t.Errorf("%s: %d bytes, mode %v, reads %q", name("", i), st.Size(), st.Mode(), buf[:n])
			}
		}
	}
	if stale > 0 {
		t.Errorf("%d of %d files are as they were before", stale, files)
	}
}
