// Package qmp speaks the QEMU Machine Protocol, over a socket that the caller made
// and whose other end it gave to QEMU.
//
// It is the only importer of go-qemu, whose SocketMonitor has defects that can't be
// lived with:
//
//   - it dials by itself, takes no context, and a read can't be ended from outside;
//   - a reply is a slice of a scanner's buffer, which the next line overwrites while
//     the reply is still being parsed;
//   - what arrives together with the answer to the handshake is lost;
//   - an event that nobody takes blocks every reply;
//   - the class of an error is dropped, and the end of the connection is reported as
//     a JSON error.
//
// So a relay stands between it and QEMU. The two are joined by an abstract socket
// that lives for the time of one connect and is proved to lead from this process to
// itself: there is no path, no private directory, and nothing to leave behind. The
// relay passes lines on one at a time, bounded, and holds back what follows a reply
// until that reply has been parsed; it keeps a copy of the reply, class and all; and
// closing it ends everything.
//
// # Life cycle
//
// [New] takes over the socket, greets and negotiates. [Monitor.Run] sends one
// command and waits for its reply; commands are carried out one after the other. A
// command whose context ends keeps its place: later commands wait for its reply,
// which is thrown away. [Monitor.Done] is closed when the connection has ended, from
// either side; [Monitor.Close] ends it and waits for every goroutine.
//
// # Events
//
// Events are always taken from QEMU at once. The last ones are kept
// ([Monitor.Recent]); a [Subscription] gets those it asked for by name, in order. A
// subscriber that doesn't keep up loses the newest, and can see how many
// ([Subscription.Dropped]). So subscribe by name, before the command that causes the
// event: a guest can cause VSERPORT_CHANGE at will. Each channel is closed when the
// connection ends.
//
// QEMU itself holds back some events: VSERPORT_CHANGE and others come at most once a
// second and port, the first at once and then the last state.
package qmp
