package work

import (
	"os"

	"golang.org/x/sys/unix"
)

// forget takes the file out of the page cache.
func forget(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }
