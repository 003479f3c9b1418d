// Package fsrpctest holds the suites that everything behind the interfaces of
// package fsrpc must pass, wherever in the chain it stands:
//
//   - TestTree: an fsrpc.Tree, called directly. Run on hostagent/hostfs, and on
//     the RPC client over every kind of link.
//   - TestStore: an fsrpc.Store likewise, on hostagent/nixstore and the client.
//   - TestMount: the POSIX calls of a program on a directory, which is a mount of
//     a Tree (or a plain directory: the suite must pass there too, but for what
//     a share forbids, see Limits).
//   - TestTreeFull and TestMountFull: a full disk. They want the host directory
//     on a SmallTmpfs.
//
// Each suite is given the host directory behind what it tests and compares both
// sides: a call that returns is not enough, the bytes must lie on the host.
// The suites leave the directory empty. They change the process's umask while
// they run, so no other test of the same process may make files in parallel.
package fsrpctest
