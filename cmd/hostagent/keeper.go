package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"winvm/hostagent"
	"winvm/hostagent/build"
)

// A build with --keep-failed runs in a child, the keeper, in a session of its own: the
// VMs die with the process that started them, so only it can keep them. The two are
// joined by a socket. When the keeper has said that it holds a pair, and what status
// the build ended with, hostagent ends with that and the keeper stays. If hostagent
// dies before, the keeper sees the end of the socket, and ends as if interrupted.
//
// Standard streams are the keeper's own all along; it lets go of them when it stays.

// keeperEnv names the keeper's end of the socket.
const keeperEnv = "WINVM_KEEPER_FD"

// heldMessage begins the one line that a keeper says.
const heldMessage = "held "

// superviseKeeper runs this command again as a keeper, and returns when that has ended
// or holds a pair.
func superviseKeeper(ctx context.Context) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "keeper"), os.NewFile(uintptr(fds[1]), "keeper")
	defer func() { _ = ours.Close() }()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), keeperEnv+"=3")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return fmt.Errorf("--keep-failed: %w", err)
	}
	held, ended := make(chan string, 1), make(chan error, 1)
	go func() { // ends with the keeper, or when it has spoken
		if line, err := bufio.NewReader(ours).ReadString('\n'); err == nil {
			held <- line
		}
	}()
	go func() { ended <- cmd.Wait() }() // the same
	interrupted := ctx.Done()
	for {
		select {
		case line := <-held:
			status, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(line, heldMessage)))
			if err != nil {
				return fmt.Errorf("--keep-failed: the keeper said %q", line)
			}
			return &statusError{status: status}
		case err := <-ended:
			// What there was to say it has said.
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return fmt.Errorf("--keep-failed: %w", err)
			}
			if status := cmd.ProcessState.ExitCode(); status > 0 {
				return &statusError{status: status}
			} else if status < 0 {
				return fmt.Errorf("--keep-failed: the process that runs the build ended: %v", cmd.ProcessState)
			}
			return nil
		case <-interrupted:
			interrupted = nil // and see what it makes of it
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
	}
}

// A keeper is this process as the child of superviseKeeper.
type keeper struct {
	conn net.Conn
	stay chan struct{} // closed when the other end may go away
}

// asKeeper is the keeper that this process is, nil if it is none. The context that it
// returns ends with the process that waits for it.
func asKeeper(ctx context.Context) (*keeper, context.Context, error) {
	value, ok := os.LookupEnv(keeperEnv)
	if !ok {
		return nil, ctx, nil
	}
	_ = os.Unsetenv(keeperEnv)
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		return nil, ctx, fmt.Errorf("%s is %q: it is hostagent's own", keeperEnv, value)
	}
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "keeper")
	conn, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return nil, ctx, fmt.Errorf("%s is %q: %w", keeperEnv, value, err)
	}
	k := &keeper{conn: conn, stay: make(chan struct{})}
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with the other process
		_, _ = conn.Read(make([]byte, 1))
		select {
		case <-k.stay:
		default:
			cancel()
		}
	}()
	return k, ctx, nil
}

// detach lets the other process go, which ends with status, and gives up the standard
// streams.
func (k *keeper) detach(status int) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()
	for fd := range 3 {
		if err := unix.Dup2(int(null.Fd()), fd); err != nil {
			return err
		}
	}
	close(k.stay)
	if _, err := fmt.Fprintf(k.conn, "%s%d\n", heldMessage, status); err != nil {
		return err // it is gone, and nobody was told of the pair
	}
	return nil
}

// printHeld says how to look into a pair that is kept.
func printHeld(c *cli.Context, r build.Result) {
	fmt.Fprintf(c.App.ErrWriter, `hostagent: its VMs are paused until %s:
    hostagent shell --attach %s          a shell in the guest
    hostagent screenshot %s -o FILE      its screen, as PNG
    hostagent kill %s                    end them now
drive X: is %s
`, r.Until.Format("15:04:05"), r.ID, r.ID, r.ID, r.Xchg)
}

// hold keeps a pair until it is ended, while the process that waits for this one ends
// with what came of the build, err.
func hold(ctx context.Context, c *cli.Context, h *hostagent.Host, k *keeper, r build.Result, err error) error {
	// The terminal that this was started from may go.
	signal.Ignore(syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(context.WithoutCancel(ctx), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	status := 0
	var s *statusError
	if errors.As(err, &s) {
		status = s.status
	}
	if s != nil && s.err != nil {
		sayError(c.App, err)
	}
	if err := k.detach(status); err != nil {
		stop() // ends at once
	}
	if err := r.Held.Wait(ctx); err != nil {
		h.Log.Warn("the end of a kept pair", "error", err)
	}
	return &statusError{status: status}
}
