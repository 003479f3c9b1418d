// Command freezer has threads of a process stand still as in a deadlock, for tests:
//
//	freezer PID all|main|others
//
// It says "ok" when they do, and lets them go when its standard input ends. It is a
// process of its own because a parent that traces its child sees each stop of it as
// its end.
package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	// ptrace(2) and wait4(2) are for the thread that has seized the others.
	runtime.LockOSThread()
	tids, err := seize(os.Args[1], os.Args[2])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ok")
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	for {
		select {
		case <-ended:
			return // the kernel lets them go
		case <-tick.C:
		}
		// What is traced and killed is gone when its tracer has waited for it.
		for _, tid := range tids {
			var status unix.WaitStatus
			_, _ = unix.Wait4(tid, &status, unix.WALL|unix.WNOHANG, nil)
		}
	}
}

func seize(pid, which string) (tids []int, err error) {
	entries, err := os.ReadDir("/proc/" + pid + "/task")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		main := e.Name() == pid
		if which == "main" && !main || which == "others" && main {
			continue
		}
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			return nil, err
		}
		if err := unix.PtraceSeize(tid); err != nil {
			return nil, fmt.Errorf("seize thread %d: %w", tid, err)
		}
		tids = append(tids, tid)
		if err := unix.PtraceInterrupt(tid); err != nil {
			return nil, fmt.Errorf("stop thread %d: %w", tid, err)
		}
	}
	return tids, nil
}
