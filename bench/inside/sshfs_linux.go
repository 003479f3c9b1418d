package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"winvm/bench/work"
)

// sshfsPatience is how long sshfs may take to mount.
const sshfsPatience = 20 * time.Second

// mountSSHFS mounts the directory r.Option of the host. sshfs speaks SFTP over the
// port, with an sftp-server at its other end: no SSH, so no encryption either. Its
// program and libraries were put into the initrd.
func mountSSHFS(r work.Request) (work.Result, func() error, error) {
	port, err := openPort(work.PortSFTP)
	if err != nil {
		return work.Result{}, nil, err
	}
	defer func() { _ = port.Close() }()
	cmd := exec.Command(work.SSHFSDir+"/ld.so", "--library-path", work.SSHFSDir, work.SSHFSDir+"/sshfs",
		"host:"+r.Option, work.MountDir, "-f", "-o", "passive")
	said := &bytes.Buffer{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = port, port, said
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return work.Result{}, nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	undo := func() error {
		err := unix.Unmount(work.MountDir, 0)
		if err != nil {
			_ = cmd.Process.Kill()
		}
		return errors.Join(err, ignoreExit(<-ended))
	}
	if err := awaitFUSE(ended); err != nil {
		_ = unix.Unmount(work.MountDir, unix.MNT_DETACH)
		_ = cmd.Process.Kill()
		return work.Result{}, nil, fmt.Errorf("%w: %s", err, said)
	}
	// The first request is answered when the two have greeted each other.
	if _, err := os.Stat(work.MountDir); err != nil {
		return work.Result{}, nil, errors.Join(fmt.Errorf("%w: %s", err, said), undo())
	}
	return work.Result{Seconds: time.Since(begin).Seconds()}, undo, nil
}

// ignoreExit drops the status of a program that ended because of the unmount.
func ignoreExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil
	}
	return err
}

// awaitFUSE waits until a FUSE file system is on the mount directory.
func awaitFUSE(ended <-chan error) error {
	const fuseMagic = 0x65735546 // FUSE_SUPER_MAGIC, fs/fuse/inode.c
	late := time.After(sshfsPatience)
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for {
		var st unix.Statfs_t
		if err := unix.Statfs(work.MountDir, &st); err == nil && st.Type == fuseMagic {
			return nil
		}
		select {
		case <-look.C:
		case err := <-ended:
			return fmt.Errorf("sshfs ended: %w", err)
		case <-late:
			return errors.New("sshfs did not mount in time")
		}
	}
}
