// Package soak tests the data integrity of the shares for as long as one likes:
// random operations on real mounts, checked against a model, while the channel is cut.
//
//	go test ./controlleragent/soak -v -soak.for 1h -soak.seed 7
//
// The test process is the host agent's side: it serves directories and compares what
// lies in them. Two other processes are controller agents: each mounts the shares, loses its
// host agent again and again, and goes on with the next. Between them stands a link that
// closes, stalls, ends in the middle of a record, loses, repeats and invents bytes.
//
// # What is checked
//
//   - Every worker owns a directory, in xchg or in the outputs, and a model of it. What
//     it reads, lists and stats must be the model's. But what was written to xchg and not
//     confirmed can be lost with its session: then a reader may miss it, and the writer must
//     be told when it closes the file.
//   - After an fsync or a close that succeeded, the host has every byte.
//   - An operation that failed has happened or not; a write that nothing confirmed has
//     happened at any part of it or not. Nothing else may lie on the host.
//   - No operation fails but for a fault of the link: errors come from cuts alone.
//   - Appenders in both processes add lines to one file. A line that was confirmed is there
//     once, any other at most once, and none is torn.
//   - What the host writes is seen in the mount within the time docs/semantics.md says.
//   - Files of the store read as they are.
//
// The operations follow from the seed, the moments of the cuts don't.
package soak
