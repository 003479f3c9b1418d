// Package controlleragent is the one service of the controller VM. It holds what
// lives on through a suspend - the two FUSE mounts, smbd with the guest's
// connections, the SSH connection to the guest - and serves one session with a host
// agent after the other: the one that suspends the pair, then, in each revived
// copy, the one of the build.
//
// # A session
//
// The host agent dials over the virtio-serial port. It opens the stream "agent" for
// requests (package agentrpc) and a stream "exec" for each command; the controller
// agent opens a stream for each share when it is asked to attach them. When the
// session ends, the shares are detached: requests to the mounts then wait a while
// for the next session, and fail.
//
// # What is not in here
//
// Nothing knows what kind of guest there is: it is SSH and SMB for all of them.
package controlleragent
