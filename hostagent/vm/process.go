package vm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a child that dies with this process.
type process struct {
	cmd    *exec.Cmd
	stderr *ring
	exited chan struct{} // closed when the child has been reaped
	pidfd  int           // of the child, -1 if there is none; for stops
}

// startProcess starts argv with extra as its descriptors from 3 on.
func startProcess(binary string, args []string, extra []*os.File) (*process, error) {
	p := &process{stderr: &ring{size: stderrRing}, exited: make(chan struct{}), pidfd: -1}
	p.cmd = exec.Command(binary, args...)
	p.cmd.Dir = "/"
	p.cmd.Stdout, p.cmd.Stderr = p.stderr, p.stderr
	p.cmd.ExtraFiles = extra
	p.cmd.WaitDelay = time.Second // if something else holds its standard error
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // a terminal's Ctrl-C is for us, not for QEMU
	}
	started := make(chan error, 1)
	go func() {
		// PDEATHSIG is sent when the thread that forked ends, not the process. So
		// that thread is this goroutine's alone, and waits here for as long as the
		// child lives. It isn't unlocked: the thread then ends with the goroutine.
		runtime.LockOSThread()
		defer close(p.exited)
		err := p.cmd.Start()
		if err == nil {
			// Before it can be reaped: its number may be another's afterwards.
			p.pidfd, _ = unix.PidfdOpen(p.cmd.Process.Pid, 0)
		}
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // what there is to know is in ProcessState
		}
	}()
	if err := <-started; err != nil {
		<-p.exited
		return nil, fmt.Errorf("start %s: %w (is QEMU installed? Debian: qemu-system-x86)", binary, err)
	}
	// A core dump would hold what the guest has in memory.
	_ = unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
	return p, nil
}

// stops tells when a signal has stopped the child and when it goes on, until it ends.
func (p *process) stops(tell func(stopped bool)) {
	if p.pidfd < 0 {
		return
	}
	defer func() { _ = unix.Close(p.pidfd) }()
	for {
		var info unix.Siginfo
		// What is seen stays there: its end is for cmd.Wait.
		err := unix.Waitid(unix.P_PIDFD, p.pidfd, &info, unix.WSTOPPED|unix.WCONTINUED|unix.WEXITED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || info.Code != cldStopped && info.Code != cldContinued {
			return
		}
		tell(info.Code == cldStopped)
		_ = unix.Waitid(unix.P_PIDFD, p.pidfd, nil, unix.WSTOPPED|unix.WCONTINUED|unix.WNOHANG, nil)
	}
}

// Codes of what happened to a child: sigaction(2).
const (
	cldStopped   = 5
	cldContinued = 6
)

// isStopped reports whether a signal has stopped the child.
func (p *process) isStopped() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid()))
	_, after, _ := strings.Cut(string(stat), ") ")
	return err == nil && strings.HasPrefix(after, "T")
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill sends SIGKILL; it doesn't wait.
func (p *process) kill() { _ = p.cmd.Process.Kill() }

// state is how the child ended; only after exited is closed.
func (p *process) state() *os.ProcessState { return p.cmd.ProcessState }
