package lab

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cavaliergopher/cpio"
)

// productModules are the controller's, in the order of its recipe; peerModules what the
// other sides need beyond them.
var (
	productModules = []string{"virtio_pci", "virtio_rng", "virtio_blk", "squashfs", "overlay", "virtio_console", "virtio_net", "fuse"}
	peerModules    = map[string][]string{"9p": {"9pnet_virtio", "9p"}, "virtiofs": {"virtiofs"}}
)

// agentScript stands in the controller agent's place.
const agentScript = "#!/bin/sh\nexec /winvm/inside controller\n"

// A file of the initrd.
type file struct {
	mode cpio.FileMode
	data []byte
}

// writeInitrd makes the product's initrd into the lab's: modules of the kernel in the
// place of its own, and the files below /winvm.
func writeInitrd(base, path string, modules [][]byte, files map[string]file) error {
	in, err := os.Open(base)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	w := cpio.NewWriter(out)
	err = copyArchive(w, cpio.NewReader(in))
	for i, m := range modules {
		err = errors.Join(err, add(w, fmt.Sprintf("modules/%02d.ko", i), file{0o644, m}))
	}
	dirs := map[string]bool{}
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		for d := filepath.Dir(n); d != "."; d = filepath.Dir(d) {
			if !dirs[d] {
				dirs[d] = true
				err = errors.Join(err, w.WriteHeader(&cpio.Header{Name: d, Mode: cpio.TypeDir | 0o755, Links: 2}))
			}
		}
		err = errors.Join(err, add(w, n, files[n]))
	}
	return errors.Join(err, w.Close(), out.Close())
}

func add(w *cpio.Writer, name string, f file) error {
	if err := w.WriteHeader(&cpio.Header{Name: name, Mode: cpio.TypeReg | f.mode, Size: int64(len(f.data)), Links: 1}); err != nil {
		return err
	}
	_, err := w.Write(f.data)
	return err
}

// copyArchive copies everything but modules.
func copyArchive(w *cpio.Writer, r *cpio.Reader) error {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the controller's initrd: %w", err)
		}
		if strings.HasPrefix(h.Name, "modules/") || strings.HasPrefix(h.Name, "./modules/") {
			continue
		}
		content := io.Reader(r)
		if h.Linkname != "" { // the reader has taken it out of the content, where it belongs
			h.Size, content = int64(len(h.Linkname)), strings.NewReader(h.Linkname)
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(w, content); err != nil {
			return err
		}
	}
}

// kernelModules reads the product's modules and those of the peers, each after what
// it depends on. It also returns which peers the kernel has.
func kernelModules(kernel string) (modules [][]byte, peers map[string]bool, err error) {
	version := strings.TrimPrefix(filepath.Base(kernel), "vmlinuz-")
	dir := filepath.Join(filepath.Dir(kernel), "..", "lib", "modules", version)
	deps, err := readDeps(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, nil, fmt.Errorf("modules of the kernel %s: %w", kernel, err)
	}
	var paths []string
	take := func(name string) {
		for _, p := range deps[name] {
			if !slices.Contains(paths, p) {
				paths = append(paths, p)
			}
		}
	}
	for _, m := range productModules {
		take(m) // one that isn't there is built in
	}
	peers = map[string]bool{}
	for peer, names := range peerModules {
		peers[peer] = !slices.ContainsFunc(names, func(n string) bool { return deps[n] == nil })
		for _, n := range names {
			take(n)
		}
	}
	for _, p := range paths {
		b, err := os.ReadFile(filepath.Join(dir, p))
		if err != nil {
			return nil, nil, err
		}
		modules = append(modules, b)
	}
	return modules, peers, nil
}

// readDeps maps a module's name to the files to load, in order.
func readDeps(path string) (map[string][]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	deps := map[string][]string{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		module, needs, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			continue
		}
		files := strings.Fields(needs)
		slices.Reverse(files) // modules.dep names the first to load last
		name := strings.ReplaceAll(strings.TrimSuffix(filepath.Base(module), ".ko"), "-", "_")
		deps[name] = append(files, module)
	}
	return deps, lines.Err()
}

// sshfsFiles are sshfs, its libraries and ld.so, of the machine: the controller's root
// has neither.
func sshfsFiles() (map[string]file, error) {
	program, err := exec.LookPath("sshfs")
	if err != nil {
		return nil, err
	}
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("libraries of %s: %w", program, err)
	}
	files := map[string]file{}
	put := func(name, path string) error {
		b, err := os.ReadFile(path)
		files["winvm/sshfs/"+name] = file{0o755, b}
		return err
	}
	err = put("sshfs", program)
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 3 && f[1] == "=>":
			err = errors.Join(err, put(f[0], f[2]))
		case len(f) > 0 && strings.Contains(f[0], "/ld-linux"):
			err = errors.Join(err, put("ld.so", f[0]))
		}
	}
	return files, err
}
