// Command bench measures winvm's shares side by side with what a user would mount
// instead, in one run: `make bench`. docs/performance.md says what the workloads are
// and what came out.
//
// # Rules
//
//   - The same code measures every side (package work), in the same VM, over the same
//     files of the host, in turns: all sides once, then all again beginning with another.
//     So what the machine does meanwhile happens to all of them.
//   - Equal work: what a side has read is compared with what the host has, and what it
//     has written is read on the host. A side that did something else fails the run.
//   - Caches are cold in the VM, each time by a new mount, and warm on the host.
//   - What fails ends the run. There is no figure for something that didn't work.
//
// Packages: lab has the VM and the sides, work the jobs, inside the program that does
// them in a VM, report what is made of the samples. This package has the workloads,
// the order of things, and the targets.
package main
