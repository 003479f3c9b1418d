// Command inside is the benchmark's program in the VMs. Told over a port of the
// controller VM, or over standard input in the guest, it does the jobs of package work
// and answers with lines of JSON. In the controller VM it also mounts the sides: ours,
// and what a user would mount instead.
//
// It is built for Linux and, with the jobs alone, for Windows.
package main

import (
	"fmt"
	"os"

	"winvm/bench/work"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == work.LoadArg:
		err = work.ReadForever(os.Args[2], os.Stdout)
	case len(os.Args) > 1:
		err = special(os.Args[1:])
	default:
		err = work.Serve(os.Stdin, os.Stdout, nil)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}
