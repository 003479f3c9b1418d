// Package work is what a benchmark does to a directory, whatever is mounted there: the
// same code measures every side, in the controller VM and in the guest (it is built
// for Linux and for Windows). A Job says what to do, a Result what came of it.
//
// # What is measured, and what is checked
//
// Time is taken around the work alone. What is read is checked as it comes, at little
// cost: files that [Pattern] made carry their position at the head of every page. That
// all bytes are right is a job of its own, [Sum], that nobody times; its checksums are
// compared between the sides and with the host.
//
// Jobs that walk trees or read whole small files have their checksum in the result,
// since there the cost of it is small against the rest.
package work
