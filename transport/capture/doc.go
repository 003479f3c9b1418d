// Package capture keeps what passes over a link between the two agents: the format of
// the files, specified in docs/protocol.md, section "Captures", and the tap that the
// host agent has for its debug socket.
//
// A capture is a stream of [Packet]s, each the bytes of one read or write of the link, in
// a pcapng file with the link type [LinkType]. What the bytes mean is not this package's:
// see package inspect.
//
// # Tap
//
// A [Tap] stands between an endpoint and its link ([Tap.Wrap]) and gives whoever connects
// to its socket ([Tap.Serve]) a capture of what passes from then on, and before that the
// first bytes of either direction, in which are the session's nonces and the names of most
// streams. It never makes the link wait: what a reader is too slow for is left out, and
// the next packet says so. Without a tap nothing of this exists: the endpoint has the
// link itself.
//
// The socket can be connected to by its owner and root, and everything that passes - file
// contents, command lines, environments - can be read there. So it is off by default.
package capture
