package work

import (
	"fmt"
	"os/exec"
	"time"
)

// execute runs a program, and then, untimed, sums up what it has made.
func execute(j Job) (Result, error) {
	cmd := exec.Command(j.Path, j.Args...)
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	took := seconds(begin)
	if err != nil {
		return Result{}, fmt.Errorf("%w: %s", err, out)
	}
	r, err := sum(Job{Path: j.Out})
	r.Seconds = took
	return r, err
}
