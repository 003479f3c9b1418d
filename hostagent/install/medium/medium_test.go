package medium

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"winvm/transport/needs"
)

func files(t *testing.T) Files {
	t.Helper()
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, bytes.Repeat([]byte("x"), 100_000), 0o644); err != nil {
		t.Fatal(err)
	}
	return Files{
		"autounattend.xml":                        {Data: []byte("<unattend/>")},
		"winvm/first-logon.cmd":                   {Data: []byte("@echo off\r\n")},
		"winvm/OpenSSH/a-long-name-of-a-file.txt": {Data: []byte("long")},
		"winvm/drivers/big.sys":                   {From: big},
	}
}

// The same inputs give the same bytes, wherever and by whom it is made.
func TestISO(t *testing.T) {
	needs.Tool(t, "xorriso")
	needs.Tool(t, "7zz")
	var first []byte
	for i := range 3 {
		dir := t.TempDir()
		iso := filepath.Join(dir, "x.iso")
		if err := WriteISO(t.Context(), iso, "WINVM", dir, files(t)); err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(iso)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", st.Mode(), err)
		}
		b, err := os.ReadFile(iso)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = b
		} else if !bytes.Equal(b, first) {
			t.Error("another ISO of the same files")
		}
		if left, _ := os.ReadDir(dir); len(left) != 1 {
			t.Errorf("left %v", left)
		}
		if err := WriteISO(t.Context(), iso, "WINVM", dir, files(t)); !errors.Is(err, os.ErrExist) {
			t.Errorf("over another: got %v", err)
		}
	}
	iso := filepath.Join(t.TempDir(), "y.iso")
	if err := os.WriteFile(iso, first, 0o600); err != nil {
		t.Fatal(err)
	}
	for p, f := range files(t) {
		want := f.Data
		if f.From != "" {
			want = bytes.Repeat([]byte("x"), 100_000)
		}
		got, err := exec.Command("7zz", "x", "-so", iso, p).Output()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %.40q, %v", p, got, err)
		}
	}
}

func TestFloppy(t *testing.T) {
	needs.Tool(t, "mformat")
	var first []byte
	for i := range 2 {
		dir := t.TempDir()
		img := filepath.Join(dir, "x.img")
		in := map[string][]byte{"winnt.sif": []byte("[Data]\r\n"), "WINVM.CMD": []byte("rem\r\n")}
		if err := WriteFloppy(t.Context(), img, dir, in); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(img)
		if err != nil || len(b) != floppySize {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		if i == 0 {
			first = b
		} else if !bytes.Equal(b, first) {
			t.Error("another floppy of the same files")
		}
		for name, want := range in {
			got, err := exec.Command("mcopy", "-i", img, "::"+name, "-").Output()
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: got %q, %v", name, got, err)
			}
		}
	}
	for name, in := range map[string]map[string][]byte{
		"name": {"a b": nil}, "long name": {"autounattend.xml": nil}, "up": {"../x": nil}, "too much": {"x": make([]byte, 1_450_000)},
	} {
		dir := t.TempDir()
		if err := WriteFloppy(t.Context(), filepath.Join(dir, "x"), dir, in); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestFilesRefused(t *testing.T) {
	for name, f := range map[string]Files{
		"none":      {},
		"up":        {"../x": {}},
		"inside up": {"a/../x": {}},
		"absolute":  {"/x": {}},
		"blank":     {"a b": {}},
		"equals":    {"a=b": {}},
		"folded":    {"a": {}, "A": {}},
		"gone":      {"a": {From: "/nonexistent/x"}},
		"directory": {"a": {From: "/"}},
	} {
		dir := t.TempDir()
		if err := WriteISO(t.Context(), filepath.Join(dir, "x"), "X", dir, f); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	dir := t.TempDir()
	if err := WriteISO(t.Context(), filepath.Join(dir, "x"), "small", dir, files(t)); err == nil {
		t.Error("a label in small letters is taken")
	}
}

func TestNoTool(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	dir := t.TempDir()
	if err := WriteISO(t.Context(), filepath.Join(dir, "x"), "X", dir, files(t)); !errors.Is(err, ErrTool) || !strings.Contains(err.Error(), "Debian's package xorriso") {
		t.Errorf("got %v", err)
	}
}

// peFile is the least that debug/pe reads.
func peFile(machine uint16) []byte {
	b := make([]byte, 512)
	b[0], b[1] = 'M', 'Z'
	b[0x3c] = 0x80
	copy(b[0x80:], "PE\x00\x00")
	b[0x84], b[0x85] = byte(machine), byte(machine>>8)
	return b
}

func makeZip(t *testing.T, in map[string][]byte) (file, digest string) {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, data := range in {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "OpenSSH.zip")
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.Bytes())
	return file, hex.EncodeToString(sum[:])
}

func TestOpenSSH(t *testing.T) {
	good := map[string][]byte{"OpenSSH-Win64/": nil, "OpenSSH-Win64/sshd.exe": peFile(0x8664), "OpenSSH-Win64/install-sshd.ps1": []byte("x")}
	file, digest := makeZip(t, good)
	got, err := OpenSSH(file, digest, "x86_64")
	if err != nil || len(got) != 2 || string(got["install-sshd.ps1"].Data) != "x" {
		t.Errorf("got %v, %v", got, err)
	}
	other := strings.Repeat("0", 64)
	if _, err := OpenSSH(file, other, "x86_64"); !errors.Is(err, ErrDigest) || !strings.Contains(err.Error(), digest) || !strings.Contains(err.Error(), other) {
		t.Errorf("wrong digest: got %v", err)
	}
	if _, err := OpenSSH(file, digest, "i686"); !errors.Is(err, ErrOpenSSH) || !strings.Contains(err.Error(), "another architecture") {
		t.Errorf("architecture: got %v", err)
	}
	if _, err := OpenSSH(file, "abc", "x86_64"); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("no digest: got %v", err)
	}
	if _, err := OpenSSH(file+"x", digest, "x86_64"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("none: got %v", err)
	}
	for name, in := range map[string]map[string][]byte{
		"no sshd":   {"a/install-sshd.ps1": nil},
		"no script": {"a/sshd.exe": peFile(0x8664)},
		"no PE":     {"a/sshd.exe": []byte("x"), "a/install-sshd.ps1": nil},
		"up":        {"../../etc/x": nil, "a/sshd.exe": peFile(0x8664), "a/install-sshd.ps1": nil},
		"bomb":      {"a/sshd.exe": peFile(0x8664), "a/install-sshd.ps1": nil, "a/zeros": make([]byte, maxZipFile+1)},
		"root":      {"sshd.exe": peFile(0x8664), "install-sshd.ps1": nil},
	} {
		file, digest := makeZip(t, in)
		if got, err := OpenSSH(file, digest, "x86_64"); !errors.Is(err, ErrOpenSSH) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no zip"), 0o644); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("no zip"))
	if _, err := OpenSSH(text, hex.EncodeToString(sum[:]), "x86_64"); !errors.Is(err, ErrOpenSSH) {
		t.Errorf("no zip: got %v", err)
	}
}

func TestDrivers(t *testing.T) {
	needs.Tool(t, "xorriso")
	needs.Tool(t, "7zz")
	dir := t.TempDir()
	iso := filepath.Join(dir, "virtio-win.iso")
	in := Files{}
	for _, d := range driverNames {
		for _, f := range []string{d + "/w11/amd64/x.inf", d + "/w11/amd64/x.sys", d + "/w11/x86/x.sys", d + "/w10/amd64/y.inf"} {
			in[f] = File{Data: []byte(f)}
		}
	}
	if err := WriteISO(t.Context(), iso, "VIRTIO", dir, in); err != nil {
		t.Fatal(err)
	}
	got, err := Drivers(t.Context(), iso, "w11", "x86_64", t.TempDir())
	if err != nil || len(got) != 4 {
		t.Fatalf("got %v, %v", got, err)
	}
	b, err := os.ReadFile(got["viostor/x.inf"].From)
	if err != nil || string(b) != "viostor/w11/amd64/x.inf" {
		t.Errorf("got %q, %v", b, err)
	}
	for name, c := range map[string][3]string{
		"other Windows": {iso, "2k25", "x86_64"},
		"no inf":        {iso, "w11", "i686"},
		"no file":       {iso + "x", "w11", "x86_64"},
		"directory":     {dir, "w11", "x86_64"},
	} {
		if got, err := Drivers(t.Context(), c[0], c[1], c[2], t.TempDir()); !errors.Is(err, ErrDrivers) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Drivers(ended, iso, "w11", "x86_64", t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: got %v", err)
	}
}
