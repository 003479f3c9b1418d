//go:build vmsuite

package inside_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// small measures what a program in the controller sees of small files, with caches
// dropped before ("cold") and once more ("warm"), in us an entry or a file.
func small() (map[string]float64, error) {
	figures := map[string]float64{}
	for _, state := range []string{"cold", "warm"} {
		note := func(what string, begin time.Time, n int) {
			figures[what+"-"+state] = float64(time.Since(begin).Nanoseconds()) / 1e3 / float64(n)
		}
		begin, entries := time.Now(), 0
		var files []string
		err := filepath.WalkDir(store+"/small-1", func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			entries++
			if d.Type().IsRegular() {
				files = append(files, p)
			}
			var st unix.Stat_t
			return unix.Lstat(p, &st)
		})
		if err != nil {
			return nil, err
		}
		note("walk-us/entry", begin, entries)
		begin = time.Now()
		for _, p := range files {
			if err := readSmall(p); err != nil {
				return nil, err
			}
		}
		note("read-us/file", begin, len(files))
		// What reading ahead must not slow down: one file of each directory.
		dirs, err := os.ReadDir(store + "/single-1")
		if err != nil {
			return nil, err
		}
		begin = time.Now()
		for _, d := range dirs {
			if err := readSmall(filepath.Join(store, "single-1", d.Name(), "f")); err != nil {
				return nil, err
			}
		}
		note("single-us/file", begin, len(dirs))
	}
	return figures, nil
}

var smallBuf = make([]byte, 64<<10)

func readSmall(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	for {
		n, err := unix.Read(fd, smallBuf)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if n == 0 {
			return nil
		}
	}
}
