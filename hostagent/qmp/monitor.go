package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	goqemu "github.com/digitalocean/go-qemu/qmp"
	"golang.org/x/sys/unix"
)

// Monitor is a connection to one QEMU's monitor. All methods can be called from
// several goroutines at once.
type Monitor struct {
	log   *slog.Logger
	mon   *goqemu.SocketMonitor
	relay *relay
	hub   *hub

	turn chan struct{}  // holds one token; who has it may send a command
	wg   sync.WaitGroup // commands in flight, and the reader of events
	done chan struct{}  // closed when the connection and the events have ended

	mu      sync.Mutex // guards closing
	closing bool       // no new command may start
}

// New greets QEMU on conn and negotiates its capabilities. It takes over conn, also
// if it fails. QEMU must not have sent any event before: start it with -S.
//
// A context that ends while QEMU has not answered ends the attempt.
func New(ctx context.Context, conn *net.UnixConn, log *slog.Logger) (*Monitor, error) {
	m := &Monitor{
		log: log, hub: &hub{}, turn: make(chan struct{}, 1), done: make(chan struct{}),
	}
	near, err := selfConnect(ctx, func(addr string) (err error) {
		m.mon, err = goqemu.NewSocketMonitor("unix", addr, 10*time.Second)
		return err
	})
	if err != nil {
		_ = conn.Close()
		if m.mon != nil {
			_ = m.mon.Disconnect()
		}
		return nil, err
	}
	m.relay = newRelay(near, conn)
	if err := m.connect(ctx); err != nil {
		m.relay.end(err)
		_ = m.mon.Disconnect() // there is no reader: its channel is still nil
		m.relay.wg.Wait()
		return nil, fmt.Errorf("greet QEMU's monitor: %w", err)
	}
	events, _ := m.mon.Events(ctx) // never fails; the context isn't looked at
	m.wg.Add(2)
	go func() { defer m.wg.Done(); m.readEvents(events) }()
	go func() {
		defer m.wg.Done()
		<-m.relay.done
		// It takes a last error off go-qemu's channel, on which its reader, and so
		// the end of the events, would wait for ever.
		_ = m.mon.Disconnect()
	}()
	m.turn <- struct{}{}
	return m, nil
}

// connect runs the handshake, which the end of the context interrupts.
func (m *Monitor) connect(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { m.relay.end(context.Cause(ctx)) })
	m.relay.expecting.Store(true)
	err := m.mon.Connect()
	if !stop() {
		return context.Cause(ctx)
	}
	select {
	case <-m.relay.done:
		return m.relay.err()
	default:
	}
	if err != nil {
		return err
	}
	<-m.relay.replies // made before go-qemu saw it
	return m.goOn()
}

// goOn tells the relay that the reply has been parsed.
func (m *Monitor) goOn() error {
	select {
	case m.relay.parsed <- struct{}{}:
		return nil
	case <-m.relay.done:
		return m.relay.err()
	}
}

// readEvents hands on events until the connection ends. It must always read:
// go-qemu has one goroutine for events and replies.
func (m *Monitor) readEvents(events <-chan goqemu.Event) {
	for e := range events {
		m.log.Debug("qmp event", "event", e.Event, "data", e.Data)
		at := time.Unix(e.Timestamp.Seconds, e.Timestamp.Microseconds*1000)
		m.hub.publish(Event{Name: e.Event, Data: e.Data, Time: at})
	}
	m.hub.close()
	m.relay.end(ErrClosed)
	close(m.done)
}

// Version is QEMU's version as its monitor tells it, for example "7.2.22".
func (m *Monitor) Version() string { return m.mon.Version.String() }

// Subscribe gets the events of these names, or all if there are none.
func (m *Monitor) Subscribe(names ...string) *Subscription { return m.hub.add(names) }

// Recent is the last events, oldest first.
func (m *Monitor) Recent() []Event { return m.hub.last() }

// Done is closed when the connection has ended and every event has been handed on.
func (m *Monitor) Done() <-chan struct{} { return m.done }

// Err is why the connection has ended, nil while it has not.
func (m *Monitor) Err() error {
	select {
	case <-m.relay.done:
		return m.relay.err()
	default:
		return nil
	}
}

// Close ends the connection and waits until nothing of it is left. QEMU goes on.
func (m *Monitor) Close() error {
	m.mu.Lock()
	m.closing = true
	m.mu.Unlock()
	m.relay.end(ErrClosed)
	m.relay.wg.Wait()
	m.wg.Wait() // with the relay ended, go-qemu's reader and each command end too
	return nil
}

// Run carries out one command. args is marshalled to the command's arguments, nil
// for none; result, unless nil, gets what QEMU returned.
//
// A refusal is an *[Error]. When ctx ends before QEMU has answered, Run returns its
// cause, and the command may or may not be carried out.
func (m *Monitor) Run(ctx context.Context, command string, args, result any) error {
	return m.RunWithFile(ctx, command, args, nil, result)
}

// RunWithFile is [Monitor.Run] with an open file that QEMU gets a duplicate of: for
// "getfd" and "add-fd". The file can be closed when RunWithFile has returned. (A pipe
// may be put into blocking mode; go-qemu does that.)
func (m *Monitor) RunWithFile(ctx context.Context, command string, args any, file *os.File, result any) error {
	text, err := json.Marshal(goqemu.Command{Execute: command, Args: args})
	if err != nil {
		return fmt.Errorf("QMP command %s: %w", command, err)
	}
	// The newline makes every QEMU parse the command at once, and the relay's log readable.
	text = append(text, '\n')
	if file != nil {
		// The command can outlive this call, and the caller's file.
		if file, err = duplicate(file); err != nil {
			return fmt.Errorf("QMP command %s: %w", command, err)
		}
	}
	if err := m.takeTurn(ctx, command); err != nil {
		_ = file.Close() // of a nil file it only returns an error
		return err
	}
	type answer struct {
		reply []byte
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		defer m.wg.Done()
		reply, err := m.exchange(text, file)
		_ = file.Close()
		answers <- answer{reply, err}
		m.turn <- struct{}{}
	}()
	select {
	case <-ctx.Done():
		return fmt.Errorf("QMP command %s: %w", command, context.Cause(ctx))
	case a := <-answers:
		if a.err != nil {
			return fmt.Errorf("QMP command %s: %w", command, a.err)
		}
		m.log.Debug("qmp", "command", command, "reply", string(a.reply[:min(len(a.reply), 200)]))
		return parseReply(command, a.reply, result)
	}
}

// takeTurn waits until no other command is in flight, and counts this one.
func (m *Monitor) takeTurn(ctx context.Context, command string) error {
	select {
	case <-m.turn:
	case <-ctx.Done():
		return fmt.Errorf("QMP command %s: waiting for an earlier one: %w", command, context.Cause(ctx))
	case <-m.relay.done:
		return fmt.Errorf("QMP command %s: %w", command, m.relay.err())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closing {
		m.turn <- struct{}{}
		return fmt.Errorf("QMP command %s: %w", command, ErrClosed)
	}
	m.wg.Add(1)
	return nil
}

// exchange sends one command through go-qemu and returns the relay's copy of the
// reply: go-qemu's own is in a buffer that is about to be overwritten, and its error
// lacks the class.
func (m *Monitor) exchange(command []byte, file *os.File) ([]byte, error) {
	m.relay.expecting.Store(true)
	_, err := m.mon.RunWithFile(command, file)
	select {
	case reply := <-m.relay.replies:
		_ = m.goOn() // fails if this was the last reply; the next command will tell
		return reply, nil
	default:
	}
	select {
	case <-m.relay.done:
		return nil, m.relay.err()
	default:
	}
	// Nothing was sent: go-qemu refused. It and QEMU still agree on what is in flight.
	m.relay.expecting.Store(false)
	if err == nil {
		err = errors.New("no reply")
	}
	return nil, err
}

func duplicate(file *os.File) (*os.File, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var dupErr error
	if err := raw.Control(func(old uintptr) {
		fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, fmt.Errorf("duplicate %s: %w", file.Name(), dupErr)
	}
	return os.NewFile(uintptr(fd), file.Name()), nil
}

// parseReply takes a reply apart.
func parseReply(command string, reply []byte, result any) error {
	var r struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Class string `json:"class"`
			Desc  string `json:"desc"`
		} `json:"error"`
	}
	if err := json.Unmarshal(reply, &r); err != nil {
		return fmt.Errorf("QMP command %s: %w: %w", command, ErrProtocol, err)
	}
	if r.Error != nil {
		return &Error{Command: command, Class: r.Error.Class, Desc: r.Error.Desc}
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(r.Return, result); err != nil {
		return fmt.Errorf("QMP command %s: unexpected result: %w", command, err)
	}
	return nil
}
