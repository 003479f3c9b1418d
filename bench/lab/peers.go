package lab

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"winvm/bench/work"
)

// Programs of the other sides.
const (
	virtiofsdPath  = "/usr/lib/qemu/virtiofsd"
	sftpServerPath = "/usr/lib/openssh/sftp-server"
)

// peers are the servers of the other sides, and the words that they add to QEMU's
// command line.
type peers struct {
	children []*child
	args     []string
	tmpdir   string // where QEMU puts its smbd's files; "" as it likes
}

func (p *peers) add9p(dir string) {
	p.args = append(p.args,
		"-fsdev", "local,id=bench9p,security_model=none,multidevs=remap,path="+dir,
		"-device", "virtio-9p-pci,fsdev=bench9p,mount_tag="+work.TagNinep)
}

// addVirtiofsd starts a virtiofsd with a cache mode, listening on a socket in scratch.
func (p *peers) addVirtiofsd(dir, scratch, mode string) error {
	socket := filepath.Join(scratch, "virtiofs-"+mode)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	_ = l.Close()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	c, err := startChild(nil, []*os.File{f}, virtiofsdPath, "--fd=3", "-o", "source="+dir, "-o", "cache="+mode, "-o", "log_level=warn")
	if err != nil {
		return fmt.Errorf("%w; Debian: qemu-system-common", err)
	}
	p.children = append(p.children, c)
	p.args = append(p.args,
		"-chardev", "socket,id=vfs-"+mode+",path="+socket,
		"-device", "vhost-user-fs-pci,chardev=vfs-"+mode+",tag="+work.TagVirtiofs+mode)
	return nil
}

// writeQEMU writes the script that runs QEMU with the peers' devices.
func (p *peers) writeQEMU(path, binary string) error {
	text := "#!/bin/sh\n"
	if p.tmpdir != "" {
		text += "export TMPDIR=" + quote(p.tmpdir) + "\n"
	}
	text += "exec " + quote(binary) + " \"$@\""
	for _, a := range p.args {
		text += " " + quote(a)
	}
	return os.WriteFile(path, []byte(text+"\n"), 0o755)
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
