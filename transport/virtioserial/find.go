package virtioserial

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// ErrNotFound is what [Find] returns if there is no port of that name (yet).
var ErrNotFound = errors.New("no such virtio-serial port")

const (
	waitFirst = 5 * time.Millisecond
	waitMax   = 250 * time.Millisecond
)

// Find returns the path of the device of the port called name. root is where
// the file system begins: "/" (or "") but for tests.
//
// The kernel lists each port in /sys/class/virtio-ports with its name in a file
// `name`; the device is in /dev under the entry's own name. The links in
// /dev/virtio-ports are udev's, so they are not relied on.
func Find(root, name string) (string, error) {
	if root == "" {
		root = "/"
	}
	class := filepath.Join(root, "sys/class/virtio-ports")
	entries, err := os.ReadDir(class)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("virtioserial: list the ports: %w", err)
	}
	var seen []string
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(class, e.Name(), "name"))
		if err != nil {
			// The name arrives by a message of its own after the port, and a port
			// may go away at any time.
			continue
		}
		got := strings.TrimSuffix(string(b), "\n")
		if got == name {
			return filepath.Join(root, "dev", e.Name()), nil
		}
		seen = append(seen, got)
	}
	sort.Strings(seen)
	return "", fmt.Errorf("virtioserial: find port %q: %w (ports here: %q): "+
		"start QEMU with -device virtserialport,name=%s and have virtio_console loaded in the guest",
		name, ErrNotFound, seen, name)
}

// Wait is [Find] until there is such a port and its device node, or ctx ends.
// sysfs has no notification for this that inotify could see, so it looks again
// at growing intervals of up to a quarter of a second.
func Wait(ctx context.Context, root, name string) (string, error) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for pause := waitFirst; ; pause = min(2*pause, waitMax) {
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		path, err := Find(root, name)
		if err == nil {
			// devtmpfs makes the node a moment after the port shows in sysfs.
			if _, err = os.Stat(path); err == nil {
				return path, nil
			}
			err = fmt.Errorf("virtioserial: port %q has no device node: %w", name, err)
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("%w: %w", err, ctx.Err())
		}
		timer.Reset(pause)
	}
}
