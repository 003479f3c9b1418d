package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// A child is a server of another side: a process that ends with this one.
type child struct {
	cmd    *exec.Cmd
	said   *bytes.Buffer
	exited chan struct{}
}

// startChild starts a program with these files as its descriptors from 3 on.
func startChild(stdio *os.File, extra []*os.File, name string, args ...string) (*child, error) {
	c := &child{cmd: exec.Command(name, args...), said: &bytes.Buffer{}, exited: make(chan struct{})}
	if stdio != nil {
		c.cmd.Stdin, c.cmd.Stdout = stdio, stdio
	} else {
		c.cmd.Stdout = c.said
	}
	c.cmd.Stderr = c.said
	c.cmd.ExtraFiles = extra
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	go func() {
		// PDEATHSIG comes when the thread that forked ends: it waits here.
		runtime.LockOSThread()
		defer close(c.exited)
		err := c.cmd.Start()
		started <- err
		if err == nil {
			_ = c.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		<-c.exited
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return c, nil
}

// end ends the child with the signal that it takes for an end in order.
func (c *child) end(signal syscall.Signal) {
	if c == nil {
		return
	}
	_ = c.cmd.Process.Signal(signal)
	<-c.exited
}
