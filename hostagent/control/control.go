package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// SocketName is the socket's name in a run's directory.
const SocketName = "control"

// Limits of a message.
const (
	maxRequest    = 4 << 10
	maxReply      = 1 << 20
	maxScreenshot = 16 << 20
	requestLimit  = 2 * time.Second
)

// Operations.
const (
	opStatus     = "status"
	opKill       = "kill"
	opScreenshot = "screenshot"
	opAttach     = "attach"
	opWait       = "wait"
)

// Status is what a run is at.
type Status struct {
	ID      string         `json:"id"`
	Image   string         `json:"image"`
	Command []string       `json:"command"`
	Stage   string         `json:"stage"`
	Started time.Time      `json:"started"`
	Pid     int            `json:"pid"`            // of the host agent
	QEMU    map[string]int `json:"qemu,omitempty"` // pids by VM
	PSS     int64          `json:"pss_bytes"`      // memory of all of these
	// Until is when a pair that was kept is ended.
	Until *time.Time `json:"until,omitempty"`
}

type request struct {
	Op string `json:"op"`
}

// A Reply answers a request.
type Reply struct {
	Error  string  `json:"error,omitempty"`
	Status *Status `json:"status,omitempty"`
	Size   int64   `json:"size,omitempty"`
}

// Errors that callers tell apart.
var (
	// ErrGone is a run that has ended, or whose host agent was killed.
	ErrGone = errors.New("its host agent does not answer: it has ended")
	// ErrNotOurs is a socket of another user.
	ErrNotOurs = errors.New("it belongs to another user")
)

// throughFD opens dir and returns a name for its socket that is short enough.
func throughFD(dir string) (f *os.File, path string, err error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", &os.PathError{Op: "open", Path: dir, Err: err}
	}
	f = os.NewFile(uintptr(fd), dir)
	return f, filepath.Join("/proc/self/fd", fmt.Sprint(fd), SocketName), nil
}

// checkPeer refuses the other end of a connection that is of another user than uid;
// of root, if that may be.
func checkPeer(c *net.UnixConn, uid int, orRoot bool) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	if int(cred.Uid) != uid && (!orRoot || cred.Uid != 0) {
		return fmt.Errorf("%w (%d)", ErrNotOurs, cred.Uid)
	}
	return nil
}

// readLine reads a JSON line of at most limit bytes. Bytes that follow stay in r.
func readLine(r *bufio.Reader, limit int, v any) error {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if line = append(line, part...); len(line) > limit {
			return fmt.Errorf("a message of more than %d bytes", limit)
		}
		if err == nil {
			break
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if err := json.Unmarshal(bytes.TrimSpace(line), v); err != nil {
		return fmt.Errorf("not a message: %w", err)
	}
	return nil
}

func writeLine(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}
