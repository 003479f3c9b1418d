package nixstore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

// Files are written, truncated, replaced and removed while they are read, alone and in
// batches: what comes is what was there at the beginning, or an error.
func TestRacingChanges(t *testing.T) {
	const files, size = 150, 200_000
	dir := t.TempDir()
	name := func(i int) string { return filepath.Join(dir, "p", fmt.Sprintf("f%04d", i)) }
	before := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, size) }
	for i := range files {
		write(t, name(i), string(before(i)))
	}
	s := open(t, dir, []string{"p"}, nil)
	stop := make(chan struct{})
	var now atomic.Uint32 // the one that is being changed
	var readers sync.WaitGroup
	good, bad := make([]int, 4), make([]int, 4)
	check := func(r int, e uint32, got []byte, err error) {
		switch {
		case err != nil && !errors.Is(err, unix.EIO):
			t.Errorf("file %d: %v", e, err)
		case err != nil:
			bad[r]++
		case !bytes.Equal(got, before(int(e)-1)):
			t.Errorf("file %d: other bytes than it had", e)
		default:
			good[r]++
		}
	}
	for r := range 4 {
		readers.Go(func() {
			buf := make([]byte, fsrpc.MaxData)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if r%2 == 0 {
					e := 1 + rand.Uint32N(files)
					if e%4 != 0 {
						e = 1 + now.Load()
					}
					n, err := s.Read(t.Context(), 0, e, 0, buf[:size])
					check(r, e, buf[:n], err)
					continue
				}
				ids := make([]fsrpc.FileID, 5)
				for i := range ids {
					ids[i].Entry = 1 + rand.Uint32N(files)
				}
				list, err := s.ReadBatch(t.Context(), ids, buf)
				if err != nil {
					t.Error(err)
					return
				}
				rest := buf
				for i, f := range list {
					check(r, ids[i].Entry, rest[:f.N], f.Err)
					rest = rest[f.N:]
				}
			}
		})
	}
	for i, f := range rand.Perm(files) {
		now.Store(uint32(f))
		var err error
		switch i % 5 {
		case 0: // same size, in place, a piece at a time
			var w *os.File
			if w, err = os.OpenFile(name(f), os.O_WRONLY, 0); err == nil {
				for off := 0; off < size && err == nil; off += 1000 {
					_, err = w.WriteAt(bytes.Repeat([]byte{0xee}, 1000), int64(off))
				}
				err = errors.Join(err, w.Close())
			}
		case 1:
			err = os.Truncate(name(f), size/2)
		case 2:
			if err = os.WriteFile(name(f)+".new", bytes.Repeat([]byte{0xdd}, size), 0o644); err == nil {
				err = os.Rename(name(f)+".new", name(f))
			}
		case 3:
			err = os.Remove(name(f))
		case 4: // truncated and written anew, times set back
			var st unix.Stat_t
			err = errors.Join(unix.Stat(name(f), &st), os.WriteFile(name(f), bytes.Repeat([]byte{0xcc}, size), 0o644),
				unix.UtimesNanoAt(unix.AT_FDCWD, name(f), []unix.Timespec{st.Atim, st.Mtim}, 0))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	readers.Wait()
	for r := range good {
		if good[r] == 0 || bad[r] == 0 {
			t.Errorf("reader %d: %d good, %d bad: nothing raced", r, good[r], bad[r])
		}
	}
}
