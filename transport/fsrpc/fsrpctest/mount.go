package fsrpctest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// settle is how long a change on the host may take until the mount shows it.
const settle = 3 * time.Second

// Limits says what differs between a mounted share and a local directory.
type Limits struct {
	// Plain is set if dir is an ordinary directory: nothing is refused there
	// and nothing stripped.
	Plain bool
	// NoMmap leaves out mappings: a process that faults in pages of a mount that it
	// serves itself can hang in a garbage collection.
	NoMmap bool
	// NoFlock skips flock(2).
	NoFlock bool
}

// A mnt is one test's own directory, seen from both sides.
type mnt struct {
	dir, host string
	lim       Limits
}

func (m mnt) p(name string) string { return filepath.Join(m.dir, name) }
func (m mnt) h(name string) string { return filepath.Join(m.host, name) }

// TestMount checks that dir, a mount of the host directory hostDir, is a POSIX
// file system. Both must be empty and are left empty.
func TestMount(t *testing.T, dir, hostDir string) {
	TestMountLimits(t, dir, hostDir, Limits{})
}

// TestMountLimits is TestMount for something that differs as lim says.
func TestMountLimits(t *testing.T, dir, hostDir string, lim Limits) {
	tests := []struct {
		name string
		f    func(*testing.T, mnt)
	}{
		{"CreateReadWrite", mountCreateReadWrite},
		{"CreateReadOnlyMode", mountCreateReadOnlyMode},
		{"RandomWrites", mountRandomWrites},
		{"Append", mountAppend},
		{"TwoAppenders", mountTwoAppenders},
		{"Truncate", mountTruncate},
		{"Exclusive", mountExclusive},
		{"Mmap", mountMmap},
		{"Copy", mountCopy},
		{"Fsync", mountFsync},
		{"Holes", mountHoles},
		{"Fallocate", mountFallocate},
		{"Rename", mountRename},
		{"RenameFlags", mountRenameFlags},
		{"RenameDirs", mountRenameDirs},
		{"RenameOverOpen", mountRenameOverOpen},
		{"UnlinkWhileOpen", mountUnlinkWhileOpen},
		{"Link", mountLink},
		{"Symlink", mountSymlink},
		{"Names", mountNames},
		{"NameTooLong", mountNameTooLong},
		{"DeepPath", mountDeepPath},
		{"Readdir", mountReaddir},
		{"ReaddirWhileChanging", mountReaddirWhileChanging},
		{"SeekDir", mountSeekDir},
		{"Times", mountTimes},
		{"Modes", mountModes},
		{"Errors", mountErrors},
		{"SpecialFiles", mountSpecialFiles},
		{"CrossDevice", mountCrossDevice},
		{"Statfs", mountStatfs},
		{"Flock", mountFlock},
		{"OpenFlags", mountOpenFlags},
		{"Locks", mountLocks},
		{"CopyFileRange", mountCopyFileRange},
		{"Xattrs", mountXattrs},
		{"Inotify", mountInotify},
		{"MmapAndWrite", mountMmapAndWrite},
		{"OnHostAfterClose", mountOnHostAfterClose},
		{"HostChanges", mountHostChanges},
		{"Parallel", mountParallel},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			exactModes(t)
			m := mnt{filepath.Join(dir, "t-"+tt.name), filepath.Join(hostDir, "t-"+tt.name), lim}
			ok(t, os.Mkdir(m.dir, 0o755), "make the test's directory")
			defer remove(t, dir)
			if _, err := os.Lstat(m.host); err != nil {
				t.Fatalf("%s isn't a mount of %s: %v", dir, hostDir, err)
			}
			tt.f(t, m)
		})
	}
	if left, err := os.ReadDir(hostDir); err != nil || len(left) > 0 {
		t.Errorf("left on the host: %v (%v)", left, err)
	}
}

// TestMountFull checks that a full disk on the host reaches the program that
// writes, and that room that was made can be used. hostDir must be on a
// SmallTmpfs of at most 64 MiB.
func TestMountFull(t *testing.T, dir, hostDir string) {
	var sf unix.Statfs_t
	ok(t, unix.Statfs(hostDir, &sf), "statfs")
	total := int64(sf.Blocks) * sf.Bsize
	if total > 64<<20 {
		t.Fatalf("%s has %d bytes, too many to fill", hostDir, total)
	}
	path := filepath.Join(dir, "full")
	f, err := os.Create(path)
	ok(t, err, "create")
	chunk := randBytes(64<<10, 1)
	var wrote int64
	for wrote < 2*total && err == nil {
		var n int
		n, err = f.Write(chunk)
		wrote += int64(n)
	}
	// With a writeback cache the write may pass and the fsync or close fails.
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	wantErr(t, err, "write to a full disk", unix.ENOSPC)
	ok(t, os.Remove(path), "remove from a full disk")
	eventually(t, settle, func() string { // the room comes back when the node is forgotten
		if err := os.WriteFile(path, chunk, 0o644); err != nil {
			return fmt.Sprintf("write again: %v", err)
		}
		return ""
	})
	wantFile(t, filepath.Join(hostDir, "full"), chunk)
	ok(t, os.Remove(path), "remove")
}
