package vm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"winvm/hostagent/qemu"
	"winvm/hostagent/qmp"
)

// Config is what [Start] needs.
type Config struct {
	// Machine is what to run. Start fills in every descriptor.
	Machine qemu.Machine
	// Link is one end of a [LinkPair]; needed if and only if the machine has a NIC.
	// Start takes it over, also if it fails.
	Link *os.File
	// Lane is the memory that the guest shares with this process; needed if and only
	// if the machine has a Lane. It stays the caller's.
	Lane *os.File
	// ConsoleLog is the file that the console is appended to, "" for none, and
	// ConsoleLogLimit how many bytes at most; 0 = 4 MiB.
	ConsoleLog      string
	ConsoleLogLimit int64
	Logger          *slog.Logger // required
	// SilenceLimit is how long QEMU may not answer its monitor, while it has something
	// else to do or waits for the host; 0 = a minute. If it does nothing it is a second.
	SilenceLimit time.Duration
}

// VM is one running QEMU.
type VM struct {
	name    string
	command string
	log     *slog.Logger
	proc    *process
	mon     *qmp.Monitor
	ports   map[string]*net.UnixConn
	tail    *ring

	memoryFile bool // the machine's memory is a file

	failed chan struct{} // closed by fail
	done   chan struct{} // closed by supervise, last
	wg     sync.WaitGroup

	mu       sync.Mutex // guards the rest
	end      *EndError  // nil while the VM can go on
	killed   bool       // Kill was called
	lost     bool       // the monitor failed, and QEMU was killed for it
	shutdown string     // the reason of the event SHUTDOWN
	ioError  string     // what the event BLOCK_IO_ERROR said
	stage    stage
	pausing  bool            // Pause has asked QEMU to stop the guest
	open     map[string]bool // ports that the guest has open
	changed  chan struct{}   // closed and replaced when open changes
}

// stage is what may be done with a VM.
type stage int

const (
	running stage = iota
	paused
	waiting // for Load
	saved   // only to be killed
	broken  // a Load failed: only to be killed
)

var stageTexts = map[stage]string{
	running: "it is running", paused: "it is paused", waiting: "it waits for its state to be loaded",
	saved: "its state has been saved: it can only be killed", broken: "its state could not be loaded: it can only be killed",
}

// Start starts a VM. ctx bounds the start alone.
func Start(ctx context.Context, cfg Config) (*VM, error) {
	// The descriptors are written into slices and pointers: not into the caller's.
	cfg.Machine = cfg.Machine.WithDefaults()
	cfg.Machine.Ports = append([]qemu.Port(nil), cfg.Machine.Ports...)
	if cfg.Machine.Lane != nil {
		lane := *cfg.Machine.Lane
		cfg.Machine.Lane = &lane
	}
	if err := cfg.check(); err != nil {
		if cfg.Link != nil {
			_ = cfg.Link.Close()
		}
		return nil, err
	}
	s, err := makeSockets(&cfg)
	if err != nil {
		return nil, err
	}
	v, err := launch(ctx, cfg, s)
	if err != nil {
		s.closeAll()
		return nil, fmt.Errorf("start VM %s: %w", cfg.Machine.Name, err)
	}
	return v, nil
}

func (cfg *Config) check() error {
	m := cfg.Machine
	if err := m.Validate(); err != nil {
		return err
	}
	if (m.NIC != nil) != (cfg.Link != nil) {
		return fmt.Errorf("machine %q: a NIC needs a link, and a link a NIC", m.Name)
	}
	if (m.Lane != nil) != (cfg.Lane != nil) {
		return fmt.Errorf("machine %q: shared memory needs a file, and a file a machine with shared memory", m.Name)
	}
	if !m.Incoming {
		return nil
	}
	if m.Memory.Shared {
		return fmt.Errorf("machine %q: a revive must map its memory privately, or it would change what others revive from", m.Name)
	}
	if m.Memory.File == "" {
		return nil
	}
	info, err := os.Stat(m.Memory.File)
	if err != nil {
		return fmt.Errorf("machine %q: memory file: %w (suspend it again)", m.Name, err)
	}
	if !info.Mode().IsRegular() || info.Size() != m.Memory.Bytes() {
		return fmt.Errorf("machine %q: memory file %s is not a file of %d bytes: it is damaged or another machine's (suspend it again)",
			m.Name, m.Memory.File, m.Memory.Bytes())
	}
	return nil
}

// launch starts the process and greets it. On failure the sockets are the caller's to
// close, and everything else is gone.
func launch(ctx context.Context, cfg Config, s *sockets) (*VM, error) {
	m := cfg.Machine
	log := cfg.Logger.With("vm", m.Name)
	logFile, err := openLog(cfg.ConsoleLog, cfg.ConsoleLogLimit)
	if err != nil {
		return nil, err
	}
	v := &VM{
		name: m.Name, command: m.Command(), log: log, memoryFile: m.Memory.File != "",
		ports: s.ports, tail: &ring{size: consoleRing},
		failed: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{}),
		open: map[string]bool{}, stage: paused,
	}
	if m.Incoming {
		v.stage = waiting
	}
	log.Debug("starting QEMU", "command", v.command)
	begun := time.Now()
	if v.proc, err = startProcess(m.Binary, m.Args(), s.children); err != nil {
		logFile.close()
		return nil, err
	}
	s.closeChildren()
	v.wg.Go(v.watchStops)
	v.wg.Go(func() { drain(s.console, v.tail, logFile) })
	if v.mon, err = qmp.New(ctx, s.qmp, log); err != nil {
		return nil, v.abandon(ctx, err)
	}
	events := v.mon.Subscribe("STOP", "SHUTDOWN", "GUEST_PANICKED", "BLOCK_IO_ERROR", "RESET", "VSERPORT_CHANGE", "SUSPEND", "SUSPEND_DISK")
	v.wg.Go(func() { v.watch(events) })
	if cfg.SilenceLimit <= 0 {
		cfg.SilenceLimit = defaultSilence
	}
	v.wg.Go(func() { v.pulse(context.WithoutCancel(ctx), cfg.SilenceLimit) })
	go v.supervise()
	if !m.Incoming {
		if err := v.Resume(ctx); err != nil {
			_ = v.Kill()
			return nil, err
		}
	}
	log.Debug("QEMU is up", "pid", v.proc.pid(), "took", time.Since(begun))
	return v, nil
}

// abandon ends a QEMU that didn't greet, and says why if QEMU did.
func (v *VM) abandon(ctx context.Context, cause error) error {
	// A QEMU that refuses its command line is about to end by itself: its own words
	// are better than "the connection has ended".
	grace := time.NewTimer(2 * time.Second)
	defer grace.Stop()
	select {
	case <-v.proc.exited:
	case <-ctx.Done():
	case <-grace.C:
	}
	select {
	case <-v.proc.exited:
		if ctx.Err() == nil && errors.Is(cause, qmp.ErrClosed) {
			cause = nil
		}
	default:
	}
	v.proc.kill()
	<-v.proc.exited
	v.wg.Wait()
	if cause != nil {
		return fmt.Errorf("%w%s\ncommand: %s", cause, prefixed("; QEMU said: ", v.proc.stderr.String()), v.command)
	}
	v.fail(v.endCause(nil))
	v.end.Status = v.proc.state().String()
	return fmt.Errorf("%w\ncommand: %s", v.end, v.command)
}

// Name is the machine's name.
func (v *VM) Name() string { return v.name }

// Command is QEMU's command line, to be shown to a person.
func (v *VM) Command() string { return v.command }

// Pid is QEMU's process.
func (v *VM) Pid() int { return v.proc.pid() }

// Version is QEMU's version as its monitor tells it, for example "7.2.22".
func (v *VM) Version() string { return v.mon.Version() }

// Port is the host's end of a port, nil if there is none of that name. It is the
// caller's to use and to close.
func (v *VM) Port(name string) *net.UnixConn { return v.ports[name] }

// ConsoleTail is the last that the guest wrote to its console, up to 64 KiB.
func (v *VM) ConsoleTail() string { return v.tail.String() }

// Stderr is the last that QEMU wrote to its standard error, up to 8 KiB.
func (v *VM) Stderr() string { return v.proc.stderr.String() }

// Events subscribes to QEMU's events; see [qmp.Monitor.Subscribe].
func (v *VM) Events(names ...string) *qmp.Subscription { return v.mon.Subscribe(names...) }

// Failed is closed when the VM can't go on; see [VM.Err].
func (v *VM) Failed() <-chan struct{} { return v.failed }

// Done is closed when QEMU has ended and everything of it has been cleaned up.
func (v *VM) Done() <-chan struct{} { return v.done }

// Err is why the VM can't go on, an *[EndError]; nil while it can.
func (v *VM) Err() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.end == nil {
		return nil
	}
	return v.end
}

// killPatience bounds how long the kernel may take to end a killed process.
const killPatience = 10 * time.Second

// Kill ends QEMU with SIGKILL and waits until nothing is left. It can be called at any
// time and more than once. It fails only if the kernel doesn't end the process.
func (v *VM) Kill() error {
	v.mu.Lock()
	v.killed = true
	v.mu.Unlock()
	v.proc.kill()
	patience := time.NewTimer(killPatience)
	defer patience.Stop()
	select {
	case <-v.done:
		return nil
	case <-patience.C:
		return fmt.Errorf("kill VM %s: QEMU (process %d) still runs %v after SIGKILL: is its disk stuck?",
			v.name, v.proc.pid(), killPatience)
	}
}
