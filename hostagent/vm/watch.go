package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"winvm/hostagent/qemu"
	"winvm/hostagent/qmp"
)

// watch follows the VM's events until the monitor ends.
func (v *VM) watch(events *qmp.Subscription) {
	for e := range events.C {
		switch e.Name {
		case "VSERPORT_CHANGE":
			v.portChanged(strings.TrimPrefix(e.String("id"), qemu.PortDeviceID("")), e.Bool("open"))
		case "GUEST_PANICKED":
			v.fail(Panicked, "")
		case "SUSPEND", "SUSPEND_DISK":
			v.fail(Asleep, "")
		case "RESET":
			v.log.Info("the guest was reset", "by_guest", e.Bool("guest"))
		case "SHUTDOWN":
			v.mu.Lock()
			v.shutdown = e.String("reason")
			v.mu.Unlock()
		case "BLOCK_IO_ERROR":
			v.mu.Lock()
			v.ioError = fmt.Sprintf("%s of drive %s: %s", e.String("operation"),
				strings.TrimPrefix(e.String("node-name"), "drive-"), e.String("reason"))
			v.mu.Unlock()
		case "STOP":
			v.stopped()
		}
	}
}

// stopped finds out why the guest stands still. The event doesn't tell.
func (v *VM) stopped() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var status struct {
		Status string `json:"status"`
	}
	if err := v.mon.Run(ctx, "query-status", nil, &status); err != nil {
		return // QEMU is ending, and supervise will say why
	}
	v.mu.Lock()
	ioError, unasked := v.ioError, v.stage == running && !v.pausing
	v.mu.Unlock()
	switch status.Status {
	case "io-error":
		v.fail(DiskError, ioError)
	case "internal-error":
		v.fail(InternalError, "")
	case "paused":
		if unasked {
			v.fail(Stopped, "")
		}
	case "guest-panicked", "watchdog":
		v.fail(Panicked, "")
	}
}

// fail notes why the VM can't go on. The first cause stays.
func (v *VM) fail(cause Cause, detail string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.end != nil {
		return
	}
	v.end = &EndError{
		Name: v.name, Cause: cause, Detail: detail,
		Stderr: strings.TrimSpace(v.proc.stderr.String()), Console: v.tail.String(),
	}
	close(v.failed)
	level := v.log.Warn
	if cause == Killed {
		level = v.log.Debug
	}
	level("the VM can't go on", "cause", cause, "detail", detail)
}

// supervise waits for QEMU's end, works out the cause, and waits for all goroutines.
func (v *VM) supervise() {
	select {
	case <-v.proc.exited:
	case <-v.mon.Done():
		// QEMU closes its monitor just before it ends. If it lives on, it can't be
		// controlled any more.
		grace := time.NewTimer(2 * time.Second)
		defer grace.Stop()
		wait := grace.C
		if errors.Is(v.mon.Err(), qmp.ErrProtocol) {
			wait = closedTime
		}
		select {
		case <-v.proc.exited:
		case <-wait:
			v.mu.Lock()
			v.lost = true
			v.mu.Unlock()
			v.proc.kill()
			<-v.proc.exited
		}
	}
	// The process is gone, so both sockets are at EOF: the last events and console
	// lines come, and then the end.
	<-v.mon.Done()
	lost := v.mon.Err()
	_ = v.mon.Close()
	v.wg.Wait()
	v.fail(v.endCause(lost))
	state := v.proc.state().String()
	v.mu.Lock()
	// A copy: Err may have handed out the other one.
	end := *v.end
	end.Status = state
	v.end = &end
	v.mu.Unlock()
	v.wakePorts()
	close(v.done)
}

// closedTime makes a select go on at once.
var closedTime = func() <-chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}()

// endCause works out why the process ended.
func (v *VM) endCause(monitor error) (Cause, string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	status, _ := v.proc.state().Sys().(syscall.WaitStatus)
	switch {
	case v.killed:
		return Killed, ""
	case v.lost:
		return MonitorLost, monitor.Error()
	case status.Signaled():
		return Signalled, status.Signal().String()
	case v.shutdown == "guest-shutdown":
		return PoweredOff, ""
	case v.shutdown == "guest-reset":
		return Rebooted, ""
	case v.shutdown == "guest-panic":
		return Panicked, ""
	}
	return Exited, v.shutdown
}

// ended waits, for a short time, for the cause of an operation's failure: when QEMU
// ends in the middle of one, its own words are better than "connection closed".
func (v *VM) ended(err error) error {
	if err == nil || !errors.Is(err, qmp.ErrClosed) && !errors.Is(err, qmp.ErrProtocol) {
		return err
	}
	grace := time.NewTimer(3 * time.Second)
	defer grace.Stop()
	select {
	case <-v.done:
		return v.Err()
	case <-grace.C:
		return err
	}
}

// portChanged notes whether the guest has a port open.
func (v *VM) portChanged(name string, open bool) {
	if _, known := v.ports[name]; !known {
		return
	}
	v.mu.Lock()
	v.open[name] = open
	v.mu.Unlock()
	v.wakePorts()
}

func (v *VM) wakePorts() {
	v.mu.Lock()
	defer v.mu.Unlock()
	close(v.changed)
	v.changed = make(chan struct{})
}

// PortOpen reports whether a process in the guest has the port open, as far as QEMU has
// told: it tells of changes at most once a second.
func (v *VM) PortOpen(name string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.open[name]
}

// WaitPort waits until a process in the guest has opened the port, or, with open false,
// closed it.
func (v *VM) WaitPort(ctx context.Context, name string, open bool) error {
	if _, known := v.ports[name]; !known {
		return fmt.Errorf("VM %s has no port %q: %w", v.name, name, os.ErrNotExist)
	}
	for {
		v.mu.Lock()
		is, changed := v.open[name], v.changed
		v.mu.Unlock()
		if is == open {
			return nil
		}
		select {
		case <-changed:
		case <-v.failed:
			return v.Err()
		case <-ctx.Done():
			return fmt.Errorf("wait for the port %s of VM %s: %w%s", name, v.name, context.Cause(ctx),
				prefixed("; the console said last: ", lastLine(v.ConsoleTail())))
		}
	}
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}
