package soak

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A mapper writes through mappings in a process of its own: a page fault that waits
// for the host agent, in the process that the host agent runs in, would stop a
// garbage collection and with that the host agent.
type mapper struct {
	out *gob.Encoder
	in  *gob.Decoder
}

// A mapRequest asks to compare a mapped file with Want, and if it is that to write Data at Off.
type mapRequest struct {
	Path string
	Want []byte
	Off  int
	Data []byte
}

// A mapAnswer has an errno, or what differed.
type mapAnswer struct {
	Errno syscall.Errno
	Wrote bool // the file may have been changed
	Text  string

	Differs bool
	Got     []byte // if it does
}

const mapperArg = "mapper"

func startMapper(t testing.TB) *mapper {
	cmd := exec.Command(os.Args[0], mapperArg)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the process that maps: %v", err)
		}
	})
	return &mapper{gob.NewEncoder(in), gob.NewDecoder(out)}
}

func (m *mapper) do(r mapRequest) (a mapAnswer, err error) {
	if err := m.out.Encode(r); err != nil {
		return a, err
	}
	return a, m.in.Decode(&a)
}

// runMapper serves requests until its standard input ends.
func runMapper() error {
	debug.SetPanicOnFault(true)
	in, out := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	for {
		var r mapRequest
		if in.Decode(&r) != nil {
			return nil //nolint:nilerr // the end
		}
		var a mapAnswer
		if err := a.do(r); err != nil && !errors.As(err, &a.Errno) {
			a.Text = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

func (a *mapAnswer) do(r mapRequest) (err error) {
	f, err := os.OpenFile(r.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	m, err := unix.Mmap(int(f.Fd()), 0, len(r.Want), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer func() {
		_ = unix.Munmap(m)
		if p := recover(); p != nil { // SIGBUS
			err = fmt.Errorf("%v: %w", p, unix.EIO)
		}
	}()
	if !bytes.Equal(m, r.Want) {
		a.Got = append([]byte(nil), m...)
		a.Differs = true
		return nil
	}
	a.Wrote = true
	copy(m[r.Off:], r.Data)
	return unix.Msync(m, unix.MS_SYNC)
}
