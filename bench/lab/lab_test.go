package lab

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"

	"winvm/bench/work"
)

func TestReadDeps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "modules.dep")
	text := "kernel/a/virtio-rng.ko: kernel/b/ring.ko kernel/b/rng-core.ko\nkernel/b/ring.ko:\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	deps, err := readDeps(path)
	if err != nil {
		t.Fatal(err)
	}
	// modules.dep names last what has to be loaded first.
	if want := []string{"kernel/b/rng-core.ko", "kernel/b/ring.ko", "kernel/a/virtio-rng.ko"}; !slices.Equal(deps["virtio_rng"], want) {
		t.Errorf("virtio_rng: %q, want %q", deps["virtio_rng"], want)
	}
	if want := []string{"kernel/b/ring.ko"}; !slices.Equal(deps["ring"], want) || deps["9p"] != nil {
		t.Errorf("ring: %q, 9p: %q", deps["ring"], deps["9p"])
	}
}

// An initrd keeps everything but its modules, links included.
func TestWriteInitrd(t *testing.T) {
	dir := t.TempDir()
	base, path := filepath.Join(dir, "base"), filepath.Join(dir, "made")
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	link := &cpio.Header{Name: "bin", Mode: cpio.TypeSymlink | 0o777, Size: 7}
	err := errors.Join(
		w.WriteHeader(&cpio.Header{Name: "modules", Mode: cpio.TypeDir | 0o755}),
		add(w, "modules/101-old.ko", file{0o644, []byte("old")}),
		add(w, "init", file{0o755, []byte("#!/bin/sh\n")}),
		w.WriteHeader(link),
	)
	_, e := w.Write([]byte("usr/bin"))
	if err := errors.Join(err, e, w.Close(), os.WriteFile(base, b.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
	files := map[string]file{"winvm/b": {0o755, []byte("B")}, "winvm/sshfs/a": {0o644, []byte("A")}}
	if err := writeInitrd(base, path, [][]byte{[]byte("one"), []byte("two")}, files); err != nil {
		t.Fatal(err)
	}
	made, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := cpio.NewReader(bytes.NewReader(made)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name+"="+h.Linkname+string(content))
	}
	want := []string{
		"modules=", "init=#!/bin/sh\n", "bin=usr/bin", "modules/00.ko=one", "modules/01.ko=two",
		"winvm=", "winvm/b=B", "winvm/sshfs=", "winvm/sshfs/a=A",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestGuestPath(t *testing.T) {
	w := &Windows{store: `S:\store\`, xchg: `X:\`}
	for in, want := range map[string]string{
		"store/a/b c": `S:\store\a\b c`,
		"xchg/new/x":  `X:\new\x`,
		"-Istore/inc": `-IS:\store\inc`,
		"-o":          "-o",
		"bookstore/x": "bookstore/x",
	} {
		if got := w.path(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// The bare port's server does what it is asked for, and no more.
func TestServeRaw(t *testing.T) {
	here, there := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- serveRaw(there) }()
	msg := work.RawCommand(work.RawEcho, 0)
	msg[20] = 7
	got := make([]byte, len(msg))
	if _, err := here.Write(msg); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(here, got); err != nil || !bytes.Equal(got, msg) {
		t.Errorf("echo: %v, %v", got, err)
	}
	const n = 3 << 20
	if _, err := here.Write(work.RawCommand(work.RawIn, n)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(here, make([]byte, n)); err != nil {
		t.Errorf("in: %v", err)
	}
	if _, err := here.Write(append(work.RawCommand(work.RawOut, n), make([]byte, n)...)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(here, got[:1]); err != nil {
		t.Errorf("out: %v", err)
	}
	if _, err := here.Write(work.RawCommand(work.RawIn, maxRaw+1)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "raw message for") {
		t.Errorf("too many bytes were asked for: %v", err)
	}
	_ = here.Close()
}

// QEMU's script passes on what it is given, and adds words with any characters.
func TestWriteQEMU(t *testing.T) {
	dir := t.TempDir()
	p := peers{args: []string{"-x", "it's a=b,c"}, tmpdir: dir}
	script := filepath.Join(dir, "qemu")
	if err := p.writeQEMU(script, "/bin/echo"); err != nil {
		t.Fatal(err)
	}
	c, err := startChild(nil, nil, script, "first", "two words")
	if err != nil {
		t.Fatal(err)
	}
	<-c.exited
	if got := c.said.String(); got != "first two words -x it's a=b,c\n" {
		t.Errorf("%q", got)
	}
}
