package nixtest

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// enterEnv makes this program enter a mount namespace and become another program. Its
// value is a list of files to put over others there, FROM:TO, separated by blanks.
const enterEnv = "WINVM_NIXTEST_ENTER"

// enter is that: a mount namespace of its own, whose root is what is the root now, also
// in a chroot.
func enter(binds string, args []string) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	ns, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if err := unix.Setns(ns, unix.CLONE_NEWNS); err != nil { // out of the chroot, if there is one
		return fmt.Errorf("setns: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	if !isRoot(root) {
		if err := unix.PivotRoot(".", "."); err != nil {
			return fmt.Errorf("pivot_root (the chroot has to be a mount point): %w", err)
		}
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount what was outside: %w", err)
		}
	}
	if err := unix.Chdir(cwd); err != nil {
		return err
	}
	for b := range strings.FieldsSeq(binds) {
		from, to, _ := strings.Cut(b, ":")
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("put %s over %s: %w", from, to, err)
		}
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	_ = os.Unsetenv(enterEnv)
	return syscall.Exec(path, args, os.Environ())
}

// isRoot tells whether fd is the root directory, and of the same mount.
func isRoot(fd int) bool {
	var a, b unix.Statx_t
	const what = unix.STATX_INO | unix.STATX_MNT_ID
	return unix.Statx(fd, "", unix.AT_EMPTY_PATH, what, &a) == nil && unix.Statx(unix.AT_FDCWD, "/", 0, what, &b) == nil &&
		a.Ino == b.Ino && a.Mnt_id == b.Mnt_id
}

// userNamespaces tells whether they can be made from here.
func userNamespaces() bool {
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
	}
	return cmd.Run() == nil
}
