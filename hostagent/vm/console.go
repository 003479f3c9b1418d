package vm

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

const (
	consoleRing      = 64 << 10 // bytes kept in memory
	stderrRing       = 8 << 10
	defaultConsoleMB = 4 << 20 // bytes written to the log file
)

// ring keeps the last bytes written to it.
type ring struct {
	mu   sync.Mutex
	size int
	buf  []byte // up to 2*size, so that it is copied rarely
}

var _ io.Writer = (*ring)(nil)

func (r *ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(p)
	if n > r.size {
		p = p[n-r.size:]
	}
	if len(r.buf)+len(p) > 2*r.size {
		keep := min(len(r.buf), r.size)
		r.buf = append(r.buf[:0], r.buf[len(r.buf)-keep:]...)
	}
	r.buf = append(r.buf, p...)
	return n, nil
}

func (r *ring) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.buf[max(0, len(r.buf)-r.size):])
}

// limitedFile is a log file that stops growing; what comes later is dropped.
type limitedFile struct {
	f    *os.File
	room int64
	full bool
}

func openLog(path string, limit int64) (*limitedFile, error) {
	if path == "" {
		return &limitedFile{}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the console's log: %w", err)
	}
	if limit <= 0 {
		limit = defaultConsoleMB
	}
	return &limitedFile{f: f, room: limit}, nil
}

// write never fails: a log that can't be written must not stop the guest.
func (l *limitedFile) write(p []byte) {
	if l.f == nil || l.full {
		return
	}
	n := min(int64(len(p)), l.room)
	if _, err := l.f.Write(p[:n]); err != nil {
		l.full = true
		return
	}
	l.room -= n
	if n < int64(len(p)) {
		l.full = true
		_, _ = l.f.WriteString("\n[the log's limit is reached: what follows was dropped]\n")
	}
}

func (l *limitedFile) close() {
	if l.f != nil {
		_ = l.f.Close()
	}
}

// drain reads the console until QEMU ends. A console that nobody reads would block the
// guest.
func drain(conn *net.UnixConn, tail *ring, log *limitedFile) {
	defer log.close()
	defer func() { _ = conn.Close() }()
	buf := make([]byte, 16<<10)
	for {
		n, err := conn.Read(buf)
		_, _ = tail.Write(buf[:n])
		log.write(buf[:n])
		if err != nil {
			return
		}
	}
}
