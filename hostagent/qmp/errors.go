package qmp

import (
	"errors"
	"fmt"
)

// The classes of QMP errors; see "Error classes" in QEMU's qapi/error.json. They
// are to be compared with errors.Is.
var (
	ErrGeneric         = errors.New("GenericError")
	ErrCommandNotFound = errors.New("CommandNotFound")
	ErrDeviceNotActive = errors.New("DeviceNotActive")
	ErrDeviceNotFound  = errors.New("DeviceNotFound")
	ErrKVMMissingCap   = errors.New("KVMMissingCap")
)

var (
	// ErrClosed is returned for everything once the connection has ended.
	ErrClosed = errors.New("the connection to QEMU's monitor has ended")
	// ErrProtocol means that the other side sent something that isn't QMP, or a
	// line longer than [MaxLine]. It ends the connection.
	ErrProtocol = errors.New("QEMU's monitor broke the protocol")
)

var classes = map[string]error{
	"GenericError": ErrGeneric, "CommandNotFound": ErrCommandNotFound,
	"DeviceNotActive": ErrDeviceNotActive, "DeviceNotFound": ErrDeviceNotFound,
	"KVMMissingCap": ErrKVMMissingCap,
}

// Error is QEMU's refusal of a command.
type Error struct {
	Command string // the command that was refused
	Class   string // one of the classes above, or one of a newer QEMU
	Desc    string // for people; QEMU doesn't promise to keep it
}

func (e *Error) Error() string {
	return fmt.Sprintf("QEMU refused %s: %s (%s)", e.Command, e.Desc, e.Class)
}

// Unwrap makes errors.Is(err, ErrDeviceNotFound) work.
func (e *Error) Unwrap() error { return classes[e.Class] }
