package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"winvm/bench/work"
)

// free is how many bytes there are left in a file system.
func free(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0
	}
	return int64(st.Bavail) * st.Bsize
}

func goBuild(ctx context.Context, out, goos string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "winvm/bench/inside")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH=amd64", "GOOS="+goos)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program for the VM: %w: %s", err, text)
	}
	return nil
}

// Paths of the test's files below the directory that the sides serve.
const (
	bigFile   = "store/big-1/file"
	treeDir   = "store/tree-1"
	toolDir   = "store/toolchain-1"
	tinyDir   = "xchg/tiny"
	loadFile  = "xchg/load"
	writeDir  = "xchg/new"
	treeBytes = 4000 // of each file of the tree
	tinyBytes = 64
)

// makeFiles makes all files in dir.
func makeFiles(ctx context.Context, dir string, s sizes) error {
	for _, d := range []string{filepath.Dir(bigFile), treeDir, tinyDir, writeDir} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for i, f := range []string{bigFile, loadFile} {
		if err := makeBig(filepath.Join(dir, f), uint64(i+1), s.bulk); err != nil {
			return err
		}
	}
	if err := makeTree(filepath.Join(dir, treeDir), s.dirs, s.perDir); err != nil {
		return err
	}
	content := work.NewPattern(99)
	for i := range s.tiny {
		b := content.At(int64(i)*4096, 4096)[:tinyBytes]
		if err := os.WriteFile(filepath.Join(dir, tinyDir, work.TinyName(i)), b, 0o644); err != nil {
			return err
		}
	}
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	src := filepath.Join(strings.TrimSpace(string(root)), "src", s.toolchain)
	return os.CopyFS(filepath.Join(dir, toolDir), os.DirFS(src))
}

func makeBig(path string, seed uint64, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := work.NewPattern(seed).WriteTo(f, size); err != nil {
		return err
	}
	return f.Close()
}

func makeTree(dir string, dirs, perDir int) error {
	content := work.NewPattern(7)
	for d := range dirs {
		sub := filepath.Join(dir, fmt.Sprintf("directory-%03d", d))
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return err
		}
		for f := range perDir {
			b := content.At(int64(d*perDir+f)*4096, 4096)[:treeBytes]
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file-%03d.h", f)), b, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// makeMany makes a closure of n empty files in ten store paths, if it isn't there.
func makeMany(dir string, n int) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	const paths, perDir = 10, 100
	for i := range n {
		sub := filepath.Join(dir, "store", fmt.Sprintf("path-%d", i%paths), fmt.Sprintf("directory-%04d", i/paths/perDir))
		if i/paths%perDir == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		f, err := os.Create(filepath.Join(sub, fmt.Sprintf("file-%06d.h", i)))
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return os.MkdirAll(filepath.Join(dir, "xchg"), 0o755)
}
