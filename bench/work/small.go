package work

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"
)

// stormContent is what a file of a storm holds.
const stormContent = "a small file, as build tools leave them by the hundred\n"

// storm makes files, renames all, removes all. Each of the three is timed.
func storm(j Job) (Result, error) {
	r := Result{Entries: j.Count}
	if err := os.MkdirAll(j.Path, 0o755); err != nil {
		return r, err
	}
	name := func(kind string, i int) string { return filepath.Join(j.Path, fmt.Sprintf("%s-%05d", kind, i)) }
	begin := time.Now()
	steps := []func(i int) error{
		func(i int) error { return os.WriteFile(name("new", i), []byte(stormContent), 0o644) },
		func(i int) error { return os.Rename(name("new", i), name("old", i)) },
		func(i int) error { return os.Remove(name("old", i)) },
	}
	for n, step := range steps {
		last := time.Now()
		for i := range j.Count {
			if err := step(i); err != nil {
				return r, err
			}
		}
		r.Each = append(r.Each, seconds(last))
		if n == 1 {
			if err := sawAll(j); err != nil {
				return r, err
			}
		}
	}
	r.Seconds = seconds(begin)
	return r, os.Remove(j.Path)
}

// sawAll checks in the middle of a storm that the files are there.
func sawAll(j Job) error {
	entries, err := os.ReadDir(j.Path)
	if err != nil {
		return err
	}
	if len(entries) != j.Count {
		return fmt.Errorf("%d files instead of %d after the renames", len(entries), j.Count)
	}
	b, err := os.ReadFile(filepath.Join(j.Path, entries[len(entries)-1].Name()))
	if err == nil && string(b) != stormContent {
		err = errors.New("a file of the storm has another content")
	}
	return err
}

// TinyName is the name of the i-th file for the job Tiny.
func TinyName(i int) string { return fmt.Sprintf("tiny-%05d", i) }

// tiny reads small files, and times each.
func tiny(j Job) (r Result, err error) {
	if j.Load != "" {
		stop, err := startLoad(j.Load)
		if err != nil {
			return r, err
		}
		defer stop()
	}
	h := crc32.NewIEEE()
	buf := make([]byte, page)
	touch(buf)
	r.Each = make([]float64, 0, j.Count)
	begin := time.Now()
	for i := range j.Count {
		last := time.Now()
		f, err := os.Open(filepath.Join(j.Path, TinyName(i)))
		if err != nil {
			return r, err
		}
		n, err := f.Read(buf)
		if err = errors.Join(err, f.Close()); err != nil {
			return r, err
		}
		r.Each = append(r.Each, seconds(last))
		r.Bytes += int64(n)
		_, _ = h.Write(buf[:n])
	}
	r.Seconds, r.Entries, r.Sum = seconds(begin), j.Count, h.Sum32()
	return r, nil
}
