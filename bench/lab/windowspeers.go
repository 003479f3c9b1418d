package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"winvm/bench/work"
	"winvm/hostagent/guest"
	"winvm/hostagent/image/recipe"
	"winvm/hostagent/pair"
	"winvm/hostagent/qemu"
	"winvm/hostagent/vm"
)

// ninepAgent stands in the controller agent's place where the controller re-exports what
// it has mounted by virtio-9p: what was done in 2014. Its smb.conf is what one would
// write without measuring: Samba's defaults.
const ninepAgent = `#!/bin/sh
mkdir -p /host /run/smb
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose ` + work.TagNinep + ` /host
for d in private lock state cache pid ncalrpc; do mkdir -p /run/smb/$d; done
cat >/run/smb/smb.conf <<'END'
[global]
	security = user
	server role = standalone server
	log file = /run/smb/log
	load printers = no
	disable spoolss = yes
	private dir = /run/smb/private
	lock directory = /run/smb/lock
	state directory = /run/smb/state
	cache directory = /run/smb/cache
	pid directory = /run/smb/pid
	ncalrpc dir = /run/smb/ncalrpc
	passdb backend = tdbsam:/run/smb/private/passdb.tdb
[nixstore]
	path = /host/store
	force user = root
	acl allow execute always = yes
[xchg]
	path = /host/xchg
	force user = root
	read only = no
END
printf '%s\n%s\n' 'PASSWORD' 'PASSWORD' | smbpasswd -c /run/smb/smb.conf -s -a 'USER'
smbd --foreground --no-process-group --configfile=/run/smb/smb.conf &
exec /winvm/inside relay
`

// startNinep boots the pair with another controller: the same root file system with a
// kernel that has 9p, and ninepAgent in it.
func (w *Windows) startNinep(ctx context.Context, cfg WindowsConfig, i *Image, dir string) (commander, error) {
	c, err := i.machines(cfg, dir)
	if err != nil {
		return nil, err
	}
	modules, has, err := kernelModules(cfg.Kernel)
	if err != nil {
		return nil, err
	}
	if !has[work.SideNinep] {
		return nil, fmt.Errorf("the kernel %s has no 9p", cfg.Kernel)
	}
	agent := strings.NewReplacer("PASSWORD", i.secrets.SMBPassword, "USER", i.secrets.SMBUser).Replace(ninepAgent)
	c.Controller.Kernel, c.Controller.Initrd = cfg.Kernel, filepath.Join(dir, "controller9p.initrd")
	err = writeInitrd(i.image.Path(pair.Controller, recipe.Initrd), c.Controller.Initrd, modules, map[string]file{
		"winvm/controlleragent": {0o755, []byte(agent)}, "winvm/inside": {0o755, cfg.Inside},
	})
	if err != nil {
		return nil, err
	}
	c.Controller.Lane = nil // nobody would use it
	p := peers{}
	p.add9p(cfg.Dir)
	if c.Controller.Binary, err = p.qemuIn(dir); err != nil {
		return nil, err
	}
	running, err := pair.Boot(ctx, c)
	if err != nil {
		return nil, err
	}
	w.atEnd(running.Kill)
	w.vms = append(w.vms, running.Guest, running.Controller)
	// The controller's one port carries the SSH connection: see ninepAgent's relay.
	// There is one attempt, since there is one port: it begins when the relay does.
	return w.ssh(ctx, i, windowsBoot, func(context.Context) (net.Conn, error) { return running.Link(), nil })
}

// qemuIn writes the script that runs QEMU, and returns its path.
func (p *peers) qemuIn(dir string) (string, error) {
	binary, err := exec.LookPath(qemu.DefaultBinary)
	if err != nil {
		return "", err
	}
	script := filepath.Join(dir, "qemu")
	return script, p.writeQEMU(script, binary)
}

// startSlirp boots the guest alone, behind QEMU's user network: QEMU runs an smbd of
// the host, at the address that our controller has.
func (w *Windows) startSlirp(ctx context.Context, cfg WindowsConfig, i *Image, dir string) (commander, error) {
	c, err := i.machines(cfg, dir)
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p := peers{tmpdir: dir, args: []string{
		"-netdev", fmt.Sprintf("user,id=slirp,net=192.168.0.0/24,host=192.168.0.3,dns=192.168.0.4,dhcpstart=192.168.0.100,"+
			"restrict=on,smb=%s,smbserver=%s,hostfwd=tcp:127.0.0.1:%d-%s:%d", cfg.Dir, guest.ControllerIPv4, port, guest.GuestIPv4, i.profile.SSH.Port),
		"-device", "virtio-net-pci,netdev=slirp,romfile=,mac=" + guest.GuestMAC,
	}}
	m := c.Guest
	if m.Binary, err = p.qemuIn(dir); err != nil {
		return nil, err
	}
	m.NIC = nil
	m.NoSandbox = true // QEMU starts smbd
	v, err := vm.Start(ctx, vm.Config{Machine: m, Logger: cfg.Log})
	if err != nil {
		return nil, err
	}
	w.vms = append(w.vms, v)
	if err := addAccount(ctx, dir, i.secrets.SMBPassword); err != nil {
		return nil, err
	}
	w.store, w.xchg = `S:\store\`, `S:\xchg\`
	address := fmt.Sprintf("127.0.0.1:%d", port)
	return w.ssh(ctx, i, handshakeLimit, func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address)
	})
}

// slirpUser is the account that the guest uses there.
const slirpUser = "root"

// addAccount gives the smbd of QEMU's an account. Without one it lets everybody in as
// its guest, who can't sign, and the guest's SMB client insists on that as Windows does.
func addAccount(ctx context.Context, dir, password string) error {
	found, _ := filepath.Glob(filepath.Join(dir, "qemu-smb.*", "smb.conf"))
	if len(found) != 1 {
		return fmt.Errorf("QEMU has made %d configurations for its smbd in %s: is it built with smb=?", len(found), dir)
	}
	cmd := exec.CommandContext(ctx, "smbpasswd", "-c", found[0], "-s", "-a", slirpUser)
	cmd.Stdin = strings.NewReader(password + "\n" + password + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("account of QEMU's smbd: %w: %s", err, out)
	}
	return nil
}

// freePort finds a port of the loopback device that nobody uses.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// retry is the pause between attempts to reach a guest that is booting.
const retry = 500 * time.Millisecond

// pause waits for it, or for ctx.
func pause(ctx context.Context) error {
	t := time.NewTimer(retry)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return errors.New("the guest's SSH server does not answer")
	case <-t.C:
		return nil
	}
}
