// Package control lets other processes of the same user ask a running build what it
// is at, look at its guest's screen, end it, or get into a pair that was kept: through
// a socket in the run's directory, which the host agent of that run serves. There is
// no daemon; the socket lives as long as the run.
//
// # Protocol
//
// One connection carries one request: a line of JSON {"op": NAME}, and the answer, a
// line of JSON [Reply]. What follows the answer depends on the operation:
//
//	status      nothing; the reply has the Status
//	kill        nothing; the run is ending when the answer comes
//	screenshot  Size bytes of a PNG
//	attach      the frames of an agentrpc exec stream, both ways, until either side closes
//	wait        nothing, and then EOF when the run has ended
//
// # Who may
//
// The socket has mode 0600 in a directory of mode 0700. The server refuses a peer of
// another user (SO_PEERCRED), root excepted; the client refuses a socket or a server
// that is not its own user's, unless it is root.
//
// A path longer than sun_path takes (108 bytes) is no obstacle: the directory is
// opened, and the socket named through /proc/self/fd.
//
// # Bounds
//
// A request has 4 KiB and two seconds, a reply 1 MiB, a screenshot 16 MiB, and a
// server 16 connections at a time. A client gives up a server that doesn't answer
// with its context, and one whose queue is full at once; a socket that nobody serves
// is refused by the kernel.
package control
