package samba

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stopTimeout is how long smbd may take to end in order.
const stopTimeout = 3 * time.Second

// ErrEnded is wrapped by the error of an smbd that ended by itself.
var ErrEnded = errors.New("smbd ended")

// A Server is a running smbd.
type Server struct {
	conf string
	cmd  *exec.Cmd
	out  *tail
	done chan struct{}

	mu      sync.Mutex // guards what follows
	err     error
	stopped bool
}

// Start writes smb.conf and the account and starts smbd. It returns when smbd
// runs; that it listens is for the guest's connection to find out.
func Start(ctx context.Context, c Config, log *slog.Logger) (*Server, error) {
	if err := makeDirs(c.Dir); err != nil {
		return nil, err
	}
	conf := filepath.Join(c.Dir, "smb.conf")
	if err := os.WriteFile(conf, []byte(Render(c)), 0o600); err != nil {
		return nil, err
	}
	if err := setPassword(ctx, conf, c.User, c.Password); err != nil {
		return nil, err
	}
	s := &Server{conf: conf, out: &tail{max: 8 << 10}, done: make(chan struct{})}
	// Not bound to ctx: a server is ended by Stop, in order.
	s.cmd = exec.Command("smbd", "--foreground", "--no-process-group", "--configfile="+conf, "--debug-stdout") //nolint:noctx // see above
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start smbd: %w", err)
	}
	log.Info("smbd started", "pid", s.cmd.Process.Pid)
	go s.wait()
	return s, nil
}

// makeDirs makes the directories that Render names.
func makeDirs(dir string) error {
	for _, d := range []string{"private", "lock", "state", "cache", "pid", "ncalrpc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	return os.Chmod(filepath.Join(dir, "private"), 0o700)
}

func setPassword(ctx context.Context, conf, user, password string) error {
	cmd := exec.CommandContext(ctx, "smbpasswd", "-c", conf, "-s", "-a", user)
	cmd.Stdin = strings.NewReader(password + "\n" + password + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("SMB account %s: %w: %s", user, err, bytes.TrimSpace(out))
	}
	return nil
}

func (s *Server) wait() {
	pid := s.cmd.Process.Pid
	// Until smbd is waited for its number can't be another's. Its connection
	// processes don't end with it, and hold its output open.
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	s.endHelpers()
	err := s.cmd.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopped {
		s.err = fmt.Errorf("%w: %w: %s", ErrEnded, exitError(err), s.out)
	}
	close(s.done)
}

// exitError makes an exit with status 0 an error, too.
func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// endHelpers ends samba-dcerpcd and what it started. smbd starts it for the first
// client that asks for more than files, in a session of its own, where it would
// outlive smbd by a minute.
func (s *Server) endHelpers() {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(s.conf), "pid", "samba-dcerpcd.pid"))
	if err != nil {
		return // there was no such client
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return
	}
	// The file may be older than the process that has the number now.
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err == nil && bytes.Contains(cmdline, []byte("--configfile="+s.conf+"\x00")) {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}

// Done is closed when smbd has ended.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err tells why smbd ended; nil while it runs and after Stop.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Pid is smbd's process.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Status returns what smbstatus prints.
func (s *Server) Status(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "smbstatus", "--configfile="+s.conf, "--json").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("smbstatus: %w: %s", err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// Stop ends smbd and its children and waits for them.
func (s *Server) Stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // its children end with it
	t := time.NewTimer(stopTimeout)
	defer t.Stop()
	select {
	case <-s.done:
	case <-t.C:
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// A tail keeps the last max bytes written to it.
type tail struct {
	max int
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.buf))
}
