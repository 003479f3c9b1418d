package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// drainTime is how long requests of an unmounted file system may take before
// they are cut short; nobody waits for their answers any more.
const drainTime = 2 * time.Second

// wait waits for the end of serving, and cuts the requests that are left short
// if that takes long.
func (m *Mount) wait(ctx context.Context) error {
	t := time.NewTimer(drainTime)
	defer t.Stop()
	select {
	case <-m.done:
		return nil
	case <-t.C:
	case <-ctx.Done():
	}
	m.opts.Cut()
	// A mount namespace that was made meanwhile may have a copy of the mount.
	if err := m.abortConnection(); err != nil {
		m.opts.Logger.Warn("mount: can't abort the connection to the kernel", "dir", m.dir, "err", err)
	}
	t.Reset(drainTime)
	select {
	case <-m.done:
		return nil
	case <-t.C:
		return fmt.Errorf("%s is unmounted, but still served: a request in progress did not end, or another mount namespace has a copy of the mount", m.dir)
	}
}

// unmount takes the mount off if nothing uses it.
func (m *Mount) unmount() error {
	if m.direct {
		return unix.Unmount(m.dir, unix.UMOUNT_NOFOLLOW)
	}
	return fusermount("-u", m.dir)
}

// abort ends the connection to the kernel and takes the mount off whatever uses it.
func (m *Mount) abort() error {
	if m.direct {
		err := unix.Unmount(m.dir, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) {
			return nil // not a mount any more
		}
		return err
	}
	if err := m.abortConnection(); err != nil {
		m.opts.Logger.Warn("mount: can't abort the connection to the kernel", "dir", m.dir, "err", err)
	}
	return fusermount("-u", "-z", m.dir)
}

// control is where the FUSE control file system belongs (Linux,
// Documentation/filesystems/fuse/fuse.rst).
const control = "/sys/fs/fuse/connections"

// abortConnection makes the kernel end the connection, wherever it is still
// mounted. Where the control file system isn't mounted root mounts it for that.
func (m *Mount) abortConnection() error {
	path := fmt.Sprintf("%s/%d/abort", control, unix.Minor(m.dev))
	err := os.WriteFile(path, []byte("1"), 0)
	if !errors.Is(err, unix.ENOENT) || !m.direct || isMounted() {
		return err
	}
	if err := unix.Mount("fusectl", control, "fusectl", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", control, err)
	}
	err = os.WriteFile(path, []byte("1"), 0)
	return errors.Join(err, unix.Unmount(control, unix.MNT_DETACH))
}

// isMounted reports whether the control file system is there.
func isMounted() bool {
	const fusectlMagic = 0x65735543
	var st unix.Statfs_t
	return unix.Statfs(control, &st) == nil && st.Type == fusectlMagic
}

func fusermount(args ...string) error {
	cmd := exec.Command("fusermount3", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("fusermount3 %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return nil
}
