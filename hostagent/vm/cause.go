package vm

import (
	"fmt"
	"strings"
)

// Cause is why a VM ended or can't go on. It is an error, so that
// errors.Is(err, vm.Panicked) works on what [VM.Err] returns.
type Cause int

// The causes.
const (
	Killed        Cause = iota + 1 // by [VM.Kill]
	PoweredOff                     // the guest shut itself down
	Rebooted                       // the guest reset itself, and Machine.AllowReboot wasn't set
	Panicked                       // the guest said so by pvpanic, or crashed its firmware; it is paused
	DiskError                      // a drive's file can't be written (its disk is full, mostly); the guest is paused
	InternalError                  // QEMU or KVM can't execute the guest further; it is paused
	Exited                         // QEMU ended by itself: see Status and Stderr
	Signalled                      // a signal ended QEMU: SIGKILL is often the kernel, out of memory; others are a crash
	MonitorLost                    // QEMU's monitor failed; QEMU was killed
	Silent                         // QEMU did not answer its monitor; it was killed
	Halted                         // a signal stopped QEMU's process, and nobody let it go on; it was killed
	Stopped                        // the guest was paused, and not by [VM.Pause]
	Asleep                         // the guest went to sleep (ACPI S3 or S4), and nobody would wake it
)

var causeTexts = map[Cause]string{
	Killed: "it was killed", PoweredOff: "the guest powered off", Rebooted: "the guest rebooted",
	Panicked: "the guest panicked", DiskError: "a disk can't be written",
	InternalError: "QEMU can't execute the guest any further", Exited: "QEMU ended by itself",
	Silent: "QEMU does not answer its monitor", Halted: "QEMU's process was stopped by a signal (SIGSTOP)", Stopped: "somebody else has paused it", Asleep: "the guest went to sleep",
	Signalled: "a signal ended QEMU", MonitorLost: "QEMU's monitor failed",
}

func (c Cause) Error() string { return causeTexts[c] }

// EndError says why a VM ended or can't go on.
type EndError struct {
	Name    string // the machine's
	Cause   Cause
	Detail  string // more about the cause; may be empty
	Status  string // how QEMU's process ended, "" while it has not
	Stderr  string // the last that QEMU wrote to its standard error
	Console string // the last lines on the guest's console
}

func (e *EndError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "VM %s: %v", e.Name, e.Cause)
	for _, part := range []struct{ before, text string }{
		{": ", e.Detail},
		{"; QEMU: ", e.Status},
		{"; QEMU said: ", e.Stderr},
		{"; the console said last: ", lastLine(e.Console)},
	} {
		// What a killed VM has to say doesn't matter.
		if text := strings.TrimSpace(part.text); text != "" && e.Cause != Killed {
			b.WriteString(part.before + text)
		}
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *EndError) Unwrap() error { return e.Cause }

// lastLine is the last line that isn't empty, without what could confuse a terminal.
func lastLine(console string) string {
	lines := strings.FieldsFunc(console, func(r rune) bool { return r == '\n' || r == '\r' })
	for i := len(lines) - 1; i >= 0; i-- {
		line := strings.TrimSpace(strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return -1
			}
			return r
		}, lines[i]))
		if line != "" {
			return fmt.Sprintf("%.200q", line)
		}
	}
	return ""
}
