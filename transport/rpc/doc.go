// Package rpc carries requests and responses over one stream: many in flight,
// answered in any order, every length bounded before anything is allocated.
//
// # Frames
//
//	request   length u32 | tag u32 | op u16 | lane u16   | [slot u32 | n u32] | body
//	response  length u32 | tag u32 | op u16 | errno u16  | body
//
// All integers are little endian. length counts the body alone. The tag is the
// caller's; it is free again once its response has come. A response repeats tag
// and op. With an errno other than 0 the body is a text for people that says what
// went wrong, of at most 1 KiB.
//
// # The lane
//
// With [Client.UseLane] and [Limits.Lane] large bodies go through shared memory (package
// shm), and only what is about them over the stream: lane says whether a slot has the
// rest of the request's body (1) or is for the response's (2), slot and n which one and
// how many bytes. The errno 0x8000 means success with the body in the slot. The calling
// side copies into a slot before it asks and out of it before it goes on; the serving
// side's handler works on the slot itself: [Response.Grow] returns its memory, and so
// does the tail that a [Handler] is given.
//
// The package knows no operation: Client.Call takes an op and an encoded body, a
// Handler gets them. fsrpc and agentrpc give them meaning.
//
// # Guarantees
//
//   - A Client may be used by many goroutines. A frame is written in one piece.
//   - Call with a cancelled context abandons its wait; if the request was sent the
//     peer still carries it out, and the late response is read and dropped. A frame
//     that is being written is written to its end first, and a body that is going
//     into the caller's buffer arrives first: nothing is written there after Call
//     has returned. Without a buffer a peer can't hold Call up.
//   - A slot is its call's until the response has come, also if the caller has given
//     up; if the connection ends before, it isn't used again in the session.
//   - Serve runs at most Limits.InFlight handlers and holds at most that many
//     request bodies; beyond that it stops reading, so the peer blocks.
//   - A frame that breaks the rules ends the connection with ErrProtocol: after it
//     nothing on the stream can be trusted.
//   - A handler that panics answers EIO; the connection goes on.
package rpc
