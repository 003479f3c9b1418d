package work

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"
)

func read(j Job) (Result, error) {
	if j.Block == 0 {
		return Result{}, errors.New("no block size")
	}
	buf := make([]byte, j.Block)
	touch(buf)
	begin := time.Now()
	f, err := os.Open(j.Path)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = f.Close() }()
	r := Result{}
	for {
		n, err := f.Read(buf)
		if e := checkStamps(buf[:n], r.Bytes); e != nil {
			return r, e
		}
		r.Bytes += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return r, err
		}
	}
	r.Seconds = seconds(begin)
	return r, nil
}

// touch makes the buffer's pages before the clock runs: under emulation the first touch
// of fresh memory is slower than any share.
func touch(b []byte) {
	for i := 0; i < len(b); i += page {
		b[i] = 1
	}
}

func write(j Job) (Result, error) {
	if j.Block == 0 || patternLen%j.Block != 0 || j.Block%page != 0 || j.Bytes%int64(j.Block) != 0 {
		return Result{}, fmt.Errorf("%d bytes in blocks of %d", j.Bytes, j.Block)
	}
	p := NewPattern(j.Seed)
	begin := time.Now()
	f, err := os.OpenFile(j.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return Result{}, err
	}
	r := Result{}
	for r.Bytes < j.Bytes && err == nil {
		var n int
		n, err = f.Write(p.At(r.Bytes, j.Block))
		r.Bytes += int64(n)
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	r.Seconds = seconds(begin)
	return r, err
}

func randomly(j Job) (Result, error) {
	f, err := os.Open(j.Path)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return Result{}, err
	}
	pages := uint64(st.Size() / page)
	if pages == 0 || j.Block == 0 {
		return Result{}, fmt.Errorf("%d bytes, read in blocks of %d", st.Size(), j.Block)
	}
	buf := make([]byte, j.Block)
	touch(buf)
	r, x := Result{Entries: j.Count}, j.Seed
	begin := time.Now()
	for range j.Count {
		at := int64(mix(&x)%pages) * page
		n, err := f.ReadAt(buf, at)
		if err != nil && err != io.EOF {
			return r, err
		}
		if e := checkStamps(buf[:n], at); e != nil {
			return r, e
		}
		r.Bytes += int64(n)
	}
	r.Seconds = seconds(begin)
	return r, nil
}

// sum is the checksum of a file, or of a tree as the job Files has it.
func sum(j Job) (Result, error) {
	st, err := os.Stat(j.Path)
	if err != nil {
		return Result{}, err
	}
	if st.IsDir() {
		return files(j)
	}
	f, err := os.Open(j.Path)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = f.Close() }()
	h := crc32.NewIEEE()
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	return Result{Bytes: n, Sum: h.Sum32(), Entries: 1}, err
}

// flush is what makes a side that writes late do it now.
func flush(j Job) (Result, error) {
	f, err := os.OpenFile(j.Path, os.O_RDWR, 0)
	if err != nil {
		return Result{}, err
	}
	return Result{}, errors.Join(f.Sync(), f.Close())
}
