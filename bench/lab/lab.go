package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"winvm/bench/work"
	"winvm/hostagent/hostfs"
	"winvm/hostagent/image/recipe"
	"winvm/hostagent/pair"
	"winvm/hostagent/qemu"
	"winvm/hostagent/vm"
	"winvm/transport/mux"
	"winvm/transport/shm"
)

// A Side is one way to have the files of the host in the controller VM.
type Side struct {
	ID     string // "9p-loose"
	Name   string // "virtio-9p cache=loose"
	Kind   string // one of work's sides
	Option string
}

// Sides are all there are. The first is ours.
var Sides = []Side{
	{"ours", "winvm", work.SideOurs, ""},
	{"ours-wire", "winvm, wire alone", work.SideOurs, work.OptionWire},
	{"9p-loose", "virtio-9p cache=loose", work.SideNinep, "loose"},
	{"9p-none", "virtio-9p cache=none", work.SideNinep, "none"},
	{"virtiofs", "virtiofsd cache=auto", work.SideVirtiofs, "auto"},
	{"virtiofs-always", "virtiofsd cache=always", work.SideVirtiofs, "always"},
	{"sshfs", "sshfs", work.SideSSHFS, ""},
}

// Config says what lab to make.
type Config struct {
	Dir      string // on the host: has store and xchg, and is what the sides serve
	Scratch  string // a directory for the lab's own files
	CacheDir string
	Kernel   string // its modules are in ../lib/modules
	Accel    qemu.Accel
	Inside   []byte // the program of package inside for Linux
	Sides    []Side // those that will be mounted
	Profile  bool   // our side's process leaves work.ProfileFile in xchg
	Log      *slog.Logger
}

// A Lab is a running controller VM.
type Lab struct {
	cfg      Config
	vm       *vm.VM
	other    io.Closer // the end of the private link that leads nowhere
	peers    peers
	client   *work.Client
	endpoint *mux.Endpoint
	lane     *shm.Region   // of our side; unless it is asked to do without
	raw      chan struct{} // closed when both raw ports have ended

	mounted Side
	ours    *ours
	sftp    *child
}

// bootLimit is how long the VM may take to its first answer.
const bootLimit = 90 * time.Second

// memoryMiB is the product's controller's.
const memoryMiB = 512

// Start boots the VM. The caller ends with Close.
func Start(ctx context.Context, cfg Config) (_ *Lab, err error) {
	if _, err := hostfs.RaiseFileLimit(); err != nil {
		return nil, err
	}
	l := &Lab{cfg: cfg, raw: make(chan struct{})}
	defer func() {
		if err != nil {
			_ = l.Close()
		}
	}()
	m, err := l.machine(ctx)
	if err != nil {
		return nil, err
	}
	link, other, err := vm.LinkPair()
	if err != nil {
		return nil, err
	}
	l.other = other
	if l.lane, err = shm.Create(pair.LaneMiB << 20); err != nil {
		return nil, errors.Join(err, link.Close())
	}
	m.Lane = &qemu.Lane{MiB: pair.LaneMiB}
	l.vm, err = vm.Start(ctx, vm.Config{Machine: m, Link: link, Lane: l.lane.File(), Logger: cfg.Log})
	if err != nil {
		return nil, err
	}
	control := l.vm.Port(work.PortControl)
	l.client = work.NewClient(control, control)
	go l.serveRaw()
	if l.endpoint, err = mux.NewEndpoint(l.vm.Port(work.PortOurs), mux.Config{Logger: cfg.Log, Lane: l.lane}); err != nil {
		return nil, err
	}
	if _, err := l.do(ctx, bootLimit, work.Request{Job: work.Job{Kind: work.Walk, Path: "/winvm"}}); err != nil {
		return nil, fmt.Errorf("the controller VM: %w; console: %s", err, l.vm.ConsoleTail())
	}
	return l, nil
}

// machine is the product's controller, with the lab's initrd, kernel and ports, and
// the devices of the other sides.
func (l *Lab) machine(ctx context.Context) (qemu.Machine, error) {
	a, err := recipe.Get(ctx, "controller", l.cfg.CacheDir, false, func(line string) { l.cfg.Log.Info("controller image", "line", line) }, l.cfg.Log)
	if err != nil {
		return qemu.Machine{}, err
	}
	if err := l.addPeers(); err != nil {
		return qemu.Machine{}, err
	}
	if err := l.writeInitrd(a.Path(recipe.Initrd)); err != nil {
		return qemu.Machine{}, err
	}
	binary, err := exec.LookPath(qemu.DefaultBinary)
	if err != nil {
		return qemu.Machine{}, err
	}
	script := filepath.Join(l.cfg.Scratch, "qemu")
	if err := l.peers.writeQEMU(script, binary); err != nil {
		return qemu.Machine{}, err
	}
	m := qemu.Machine{
		Binary: script, Name: "bench", Accel: l.cfg.Accel,
		// virtiofsd reaches into the VM's memory, so that is a file of both.
		Memory: qemu.Memory{MiB: memoryMiB, File: filepath.Join(l.cfg.Scratch, "memory"), Shared: true},
		Kernel: l.cfg.Kernel, Initrd: filepath.Join(l.cfg.Scratch, "initrd"),
		Append: "console=ttyS0 quiet panic=-1 no_timer_check swiotlb=noforce",
		Drives: []qemu.Drive{{ID: "root", File: a.Path(recipe.Root), Format: "raw", ReadOnly: true}},
		NIC:    &qemu.NIC{MAC: "52:54:00:77:76:02"},
		Ports:  []qemu.Port{{Name: work.PortOurs}, {Name: work.PortControl}, {Name: work.PortRaw}, {Name: work.PortRawLoad}, {Name: work.PortSFTP}},
	}
	return m, nil
}

func (l *Lab) has(kind string) bool {
	return slices.ContainsFunc(l.cfg.Sides, func(s Side) bool { return s.Kind == kind })
}

func (l *Lab) addPeers() error {
	if l.has(work.SideNinep) {
		l.peers.add9p(l.cfg.Dir)
	}
	for _, s := range l.cfg.Sides {
		if s.Kind != work.SideVirtiofs {
			continue
		}
		if err := l.peers.addVirtiofsd(l.cfg.Dir, l.cfg.Scratch, s.Option); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) writeInitrd(base string) error {
	modules, has, err := kernelModules(l.cfg.Kernel)
	if err != nil {
		return err
	}
	for _, kind := range []string{work.SideNinep, work.SideVirtiofs} {
		if l.has(kind) && !has[kind] {
			return fmt.Errorf("the kernel %s has no module for %s: take another kernel (tools/setup/kernel.sh amd64), or leave that side out", l.cfg.Kernel, kind)
		}
	}
	files := map[string]file{
		"winvm/controlleragent": {0o755, []byte(agentScript)},
		"winvm/inside":          {0o755, l.cfg.Inside},
	}
	if l.has(work.SideSSHFS) {
		more, err := sshfsFiles()
		if err != nil {
			return err
		}
		for n, f := range more {
			files[n] = f
		}
	}
	return writeInitrd(base, filepath.Join(l.cfg.Scratch, "initrd"), modules, files)
}

func (l *Lab) serveRaw() {
	defer close(l.raw)
	var wg sync.WaitGroup
	for _, p := range []string{work.PortRaw, work.PortRawLoad} {
		wg.Go(func() { l.cfg.Log.Debug("raw port ended", "port", p, "err", serveRaw(l.vm.Port(p))) })
	}
	wg.Wait()
}

// Close ends the VM and everything that serves it.
func (l *Lab) Close() error {
	var err error
	if l.ours != nil {
		err = l.ours.close()
	}
	if l.endpoint != nil {
		_ = l.endpoint.Close()
	}
	l.sftp.end(syscall.SIGKILL)
	if l.vm != nil {
		for _, p := range []string{work.PortRaw, work.PortRawLoad, work.PortSFTP, work.PortControl} {
			_ = l.vm.Port(p).Close()
		}
		err = errors.Join(err, l.vm.Kill())
		<-l.raw
	}
	if l.other != nil {
		_ = l.other.Close()
	}
	for _, c := range l.peers.children {
		c.end(syscall.SIGTERM)
	}
	if l.lane != nil {
		err = errors.Join(err, l.lane.Close())
	}
	return err
}

// ConsoleTail is the last that the VM has said.
func (l *Lab) ConsoleTail() string { return l.vm.ConsoleTail() }

// PID is QEMU's.
func (l *Lab) PID() int { return l.vm.Pid() }

// do asks the program in the VM.
func (l *Lab) do(ctx context.Context, limit time.Duration, r work.Request) (work.Result, error) {
	port := l.vm.Port(work.PortControl)
	if err := port.SetDeadline(time.Now().Add(limit)); err != nil {
		return work.Result{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = port.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	res, err := l.client.Do(r)
	if err != nil && os.IsTimeout(err) {
		err = fmt.Errorf("%w (allowed were %v); console: %s", err, limit, l.vm.ConsoleTail())
	}
	return res, err
}
