package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"winvm/bench/work"
	"winvm/transport/virtioserial"
)

// portPatience is how long a port may take to appear.
const portPatience = time.Minute

// special is what the program does beside jobs over standard input.
func special(args []string) error {
	switch args[0] {
	case "controller":
		return serveController()
	case serveOursArg:
		return serveOurs(context.Background(), args[len(args)-1])
	case relayArg:
		return relay(context.Background())
	case rawLoadArg:
		return loadRaw()
	}
	return fmt.Errorf("%q can't be done here", args)
}

// openPort opens the device of a port as a plain file: reads and writes that block.
func openPort(name string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(context.Background(), portPatience)
	defer cancel()
	path, err := virtioserial.Wait(ctx, "", name)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// serveController answers the host in the controller VM, for as long as that runs.
func serveController() error {
	port, err := openPort(work.PortControl)
	if err != nil {
		return err
	}
	c := &controller{}
	return work.Serve(port, port, c.do)
}

// A controller is what is mounted: one side at a time.
type controller struct {
	unmount func() error // nil: nothing is mounted
}

func (c *controller) do(r work.Request) (work.Result, error) {
	switch r.Op {
	case work.OpMount:
		if c.unmount != nil {
			return work.Result{}, errors.New("something is mounted already")
		}
		return c.mount(r)
	case work.OpUnmount:
		return work.Result{}, c.end()
	case work.OpRaw:
		return raw(r)
	}
	return work.Result{}, fmt.Errorf("no operation %q", r.Op)
}

// mounters mount a side below work.MountDir and say how to undo it.
var mounters = map[string]func(work.Request) (work.Result, func() error, error){
	work.SideOurs:     mountOurs,
	work.SideNinep:    mountNinep,
	work.SideVirtiofs: mountVirtiofs,
	work.SideSSHFS:    mountSSHFS,
}

func (c *controller) mount(r work.Request) (work.Result, error) {
	m := mounters[r.Arg]
	if m == nil {
		return work.Result{}, fmt.Errorf("no side %q", r.Arg)
	}
	if err := os.MkdirAll(work.MountDir, 0o755); err != nil {
		return work.Result{}, err
	}
	res, undo, err := m(r)
	if err != nil {
		return res, fmt.Errorf("mount %s: %w", r.Arg, err)
	}
	c.unmount = undo
	return res, nil
}

// end unmounts and forgets everything that the kernel has cached.
func (c *controller) end() error {
	if c.unmount == nil {
		return errors.New("nothing is mounted")
	}
	err := c.unmount()
	c.unmount = nil
	unix.Sync()
	return errors.Join(err, os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0))
}

// kernelMount mounts a file system of the kernel's, which is one system call.
func kernelMount(source, kind, options string) (work.Result, func() error, error) {
	begin := time.Now()
	if err := unix.Mount(source, work.MountDir, kind, 0, options); err != nil {
		return work.Result{}, nil, err
	}
	return work.Result{Seconds: time.Since(begin).Seconds()}, func() error { return unix.Unmount(work.MountDir, 0) }, nil
}

// mountNinep takes a message size of 500 kB, about the most that virtio carries: the
// default is smaller, and who cares for speed raises it.
func mountNinep(r work.Request) (work.Result, func() error, error) {
	return kernelMount(work.TagNinep, "9p", "trans=virtio,version=9p2000.L,msize=512000,cache="+r.Option)
}

func mountVirtiofs(r work.Request) (work.Result, func() error, error) {
	return kernelMount(work.TagVirtiofs+r.Option, "virtiofs", "")
}
