package manifest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

// nixMtime is what Nix sets the time of every file of a valid path to.
const nixMtime = int64(time.Second)

// stampOf is a number that is another one if a file's inode, size, mtime or ctime is:
// the Content of a regular file that nobody vouches for. The device's number doesn't
// count: it can change when the host boots, and no two files of different file systems
// have all the rest in common unless one is a copy of the other.
func stampOf(st *unix.Stat_t) uint64 {
	var b [32]byte
	for i, v := range []uint64{st.Ino, uint64(st.Size), uint64(st.Mtim.Nano()), uint64(st.Ctim.Nano())} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	return digest(b[:])
}

// narContent is the Content of all files of a store path with that NAR hash.
func narContent(nar string) uint64 { return digest([]byte("nar " + nar)) }

func digest(b []byte) uint64 {
	sum := sha256.Sum256(b)
	return binary.LittleEndian.Uint64(sum[:])
}

// Unchanged tells whether an entry, which must be a regular file's, still has the
// bytes that its Content stands for, as far as its attributes tell.
func (m *Manifest) Unchanged(entry uint32, st *unix.Stat_t) bool {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || uint64(st.Size) != m.Section.Size(entry) {
		return false
	}
	if m.NAR != "" {
		return st.Mtim.Nano() == nixMtime
	}
	return stampOf(st) == m.Section.Content(entry)
}

// settleLimit is how long settle waits for a file that was changed just now. The
// kernel stamps files with a clock that moves on every 1 to 10 ms.
const settleLimit = 50 * time.Millisecond

// settle returns when the clock that files are stamped with has left newest, the
// latest ctime of a scan, behind: from then on every change of a file changes its
// stamp, so that nothing that is read later can be taken for something older. A time
// that lies ahead (of a file from a machine whose clock is wrong) isn't waited for.
func settle(ctx context.Context, newest int64) error {
	for {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
			return err
		}
		ahead := time.Duration(newest - now.Nano())
		if ahead < 0 || ahead > settleLimit {
			return ctx.Err()
		}
		t := time.NewTimer(ahead + time.Millisecond)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}
