//go:build winvm_faults

package main

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
	"time"
)

// A controller agent built with this tag kills its smbd when somebody makes the
// file "kill smbd" in xchg: nobody outside the controller VM can, and hostagent/e2e
// has to see what a build makes of it.
func init() {
	go func() { // ends with the process
		for range time.Tick(100 * time.Millisecond) {
			if _, err := os.Stat("/xchg/kill smbd"); err == nil {
				killSMBD()
				return
			}
		}
	}()
}

func killSMBD() {
	b, err := os.ReadFile("/run/winvm-samba/pid/smbd.pid")
	if err != nil {
		panic(err)
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(b)))
	if err != nil {
		panic(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		panic(err)
	}
}
