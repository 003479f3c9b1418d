package pair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"winvm/hostagent/event"
	"winvm/hostagent/qemu"
	"winvm/hostagent/vm"
	"winvm/transport/shm"
)

// drainPause is how long the controller runs on when the guest is paused for a
// suspend. See the package documentation; measured, 50 ms are enough under TCG.
const drainPause = 50 * time.Millisecond

// Config is what Boot and Revive need.
type Config struct {
	Controller, Guest qemu.Machine
	StateDir          string // of the state files
	LogDir            string // for the consoles' logs
	Timeline          *event.Timeline
	Log               *slog.Logger
}

// A Pair is two running VMs.
type Pair struct {
	Controller, Guest *vm.VM

	// Lane is the memory shared with the controller, nil if its machine has none. It is
	// unmapped by Kill: nothing may be in use of it then.
	Lane *shm.Region

	failed chan struct{}
	once   sync.Once
	wg     sync.WaitGroup
	stop   chan struct{}

	stopOnce sync.Once
	err      error // set before failed is closed
}

// start starts both QEMUs side by side.
func start(ctx context.Context, c Config) (*Pair, error) {
	a, b, err := vm.LinkPair()
	if err != nil {
		return nil, err
	}
	p := &Pair{failed: make(chan struct{}), stop: make(chan struct{})}
	var lane *os.File
	if l := c.Controller.Lane; l != nil {
		if p.Lane, err = shm.Create(l.MiB << 20); err != nil {
			return nil, errors.Join(err, a.Close(), b.Close())
		}
		lane = p.Lane.File()
	}
	var g errgroup.Group
	launch := func(out **vm.VM, m qemu.Machine, link, lane *os.File) {
		g.Go(func() (err error) {
			defer c.Timeline.Begin(m.Name + ": QEMU starts")()
			*out, err = vm.Start(ctx, vm.Config{
				Machine: m, Link: link, Lane: lane, Logger: c.Log,
				ConsoleLog: filepath.Join(c.LogDir, m.Name+".console"),
			})
			return err
		})
	}
	launch(&p.Controller, c.Controller, a, lane)
	launch(&p.Guest, c.Guest, b, nil)
	if err := g.Wait(); err != nil {
		p.Kill()
		return nil, err
	}
	p.wg.Go(func() { p.watch(p.Controller) })
	p.wg.Go(func() { p.watch(p.Guest) })
	return p, nil
}

// Boot starts both VMs from their disks.
func Boot(ctx context.Context, c Config) (*Pair, error) { return start(ctx, c) }

// Revive starts both VMs from their saved states and lets them run.
func Revive(ctx context.Context, c Config) (*Pair, error) {
	p, err := start(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := p.load(ctx, c); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

func (p *Pair) load(ctx context.Context, c Config) error {
	var g errgroup.Group
	for _, v := range []*vm.VM{p.Controller, p.Guest} {
		g.Go(func() error {
			defer c.Timeline.Begin(v.Name() + ": state loads")()
			f, err := os.Open(filepath.Join(c.StateDir, v.Name()+".state"))
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			return v.Load(ctx, f)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return p.Resume(ctx)
}

// Save suspends both VMs into StateDir: their device states beside the memory
// files, which they share already. Afterwards the pair can only be killed.
func (p *Pair) Save(ctx context.Context, c Config) error {
	if err := p.Guest.Pause(ctx); err != nil {
		return err
	}
	drain := time.NewTimer(drainPause)
	defer drain.Stop()
	select {
	case <-drain.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := p.Controller.Pause(ctx); err != nil {
		return err
	}
	var g errgroup.Group
	for _, v := range []*vm.VM{p.Controller, p.Guest} {
		g.Go(func() error {
			f, err := os.OpenFile(filepath.Join(c.StateDir, v.Name()+".state"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			return errors.Join(v.Save(ctx, f), f.Sync(), f.Close())
		})
	}
	return g.Wait()
}

// Pause has both VMs stand still: the guest first, as in Save. It does nothing if
// they do already.
func (p *Pair) Pause(ctx context.Context) error {
	if err := p.Guest.Pause(ctx); err != nil {
		return err
	}
	return p.Controller.Pause(ctx)
}

// Resume lets both VMs run, the controller first, as in Revive.
func (p *Pair) Resume(ctx context.Context) error {
	if err := p.Controller.Resume(ctx); err != nil {
		return err
	}
	return p.Guest.Resume(ctx)
}

// Pids are QEMU's processes by VM.
func (p *Pair) Pids() map[string]int {
	return map[string]int{p.Controller.Name(): p.Controller.Pid(), p.Guest.Name(): p.Guest.Pid()}
}

// Link is the host's end of the controller's port.
func (p *Pair) Link() *net.UnixConn { return p.Controller.Port(Port) }

func (p *Pair) watch(v *vm.VM) {
	select {
	case <-v.Failed():
		p.once.Do(func() {
			p.err = v.Err()
			close(p.failed)
		})
	case <-p.stop:
	}
}

// Failed is closed when either VM can't go on.
func (p *Pair) Failed() <-chan struct{} { return p.failed }

// Err tells why, after Failed is closed.
func (p *Pair) Err() error {
	select {
	case <-p.failed:
		return p.err
	default:
		return nil
	}
}

// Kill ends both VMs and waits for them. It may be called again.
func (p *Pair) Kill() {
	p.stopOnce.Do(func() { close(p.stop) })
	var g errgroup.Group
	for _, v := range []*vm.VM{p.Controller, p.Guest} {
		if v != nil {
			g.Go(v.Kill)
		}
	}
	_ = g.Wait() // a process that can't be killed is the kernel's to end
	p.wg.Wait()
	if p.Lane != nil {
		_ = p.Lane.Close()
	}
}

// Describe writes what was last seen of both VMs to dir - the screens as PNG;
// the consoles' logs are there already - and returns a text for people.
func (p *Pair) Describe(ctx context.Context, dir string) string {
	text := ""
	for _, v := range []*vm.VM{p.Controller, p.Guest} {
		if tail := lastLines(v.ConsoleTail(), 5); tail != "" {
			text += fmt.Sprintf("\nlast on the %s's console:\n%s", v.Name(), tail)
		}
	}
	shot := filepath.Join(dir, "guest.png")
	if err := p.Guest.Screenshot(ctx, shot); err == nil {
		text += "\nthe guest's screen: " + shot
	}
	return text + "\nthe consoles' logs: " + dir
}
