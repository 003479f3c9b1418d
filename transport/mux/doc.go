// Package mux makes sessions of many streams over one channel between the host
// agent and the controller agent. The frames are specified in docs/protocol.md,
// section "Channel: resync, records, yamux".
//
// # Layers
//
//	stream   net.Conn with a name, from Session.Open and Session.Accept
//	yamux    streams and their windows; beside it: bulk streams
//	records  every frame in one record, written at once, with an epoch
//	resync   SYN, ACK, GO: how both sides come to a new session
//	Link     a virtio-serial port, a unix socket
//
// # Life cycle
//
// An [Endpoint] lives as long as its link; it serves one session after the
// other. The host's calls [Endpoint.Dial], the guest's [Endpoint.Accept], in a
// loop:
//
//	for {
//		s, err := ep.Accept(ctx)
//		if errors.Is(err, mux.ErrVersion) {
//			log.Error("…"); continue // the next host may be a newer one
//		} else if err != nil {
//			return err
//		}
//		serve(ctx, s) // until <-s.Done()
//	}
//
// Both wait for the session before to end first. Bytes that were read and belong
// to the next session are kept for it, and everything that belongs to none is
// discarded: garbage, the tail of an old write, a frame cut in half. Nothing is
// ever drained, that is, read until it stops: what is thrown away is decided by
// what it is, not by when it came.
//
// A session ends
//
//   - in order, by [Session.Shutdown] or Close on either side: everything that a
//     Write returned for is delivered, then both sides have sent a close record
//     and nothing after it. When Shutdown has returned nil nothing of the session
//     is in flight, and the guest writes nothing until the next host's SYN. A
//     suspend relies on it. [Session.Err] is [ErrClosed].
//   - with an error: the peer is gone ([ErrPeerGone]), a new peer has begun a
//     session on the same link ([ErrSuperseded]), the bytes are not this
//     session's ([ErrEpoch], [ErrRecord]), the peer breaks the rules
//     ([ErrProtocol]), a write took longer than Config.WriteTimeout, or
//     [Session.Abort].
//
// Once Done is closed every goroutine of the session has ended and the endpoint
// is free for the next.
//
// # Streams
//
// A Read returns io.EOF only if the peer really closed its side of the stream.
// A stream that ends with its session returns the session's error, so that a
// file cut short can't be taken for a whole one.
//
// Close ends both directions. What the peer still sends is thrown away until it
// closes its side too; it is not told, so say in the stream's own protocol who
// ends it. CloseWrite (on the *[Stream]) ends one direction only.
//
// A [*Bulk], from [Session.OpenBulk], is a stream for much data that does without
// yamux. What arrives for it goes from the link straight to the buffer of the Read that
// waits, and what is written to it straight to the link: in the guest every copy costs
// about as much as the port itself. Bulk.ReadFull and Bulk.WriteParts are for who wants
// all of that (package rpc does). Nothing is believed earlier for it: a Read returns once
// the record's trailer has been checked, and bytes of a record that turns out to be none
// are put back for the next resync. For the same reason a Read whose buffer is being
// filled can't end before the record does; if it has to (Close, a deadline) and the peer
// has stopped in the middle, the session ends after Config.CloseTimeout.
//
// Large writes go out in pieces of some 64 KiB, one at a time for each stream, so
// a small request waits behind one piece of each bulk stream and no more.
//
// # What can block
//
// A stream that nobody reads blocks its own peer's writes when its window is
// full, and nothing else. Session.Accept not being called blocks nothing until
// Config.MaxStreams streams of the peer are open; further ones wait, and above
// Config.Backlog of them are refused. There is no keep-alive: a VM that is paused
// looks like a slow one.
//
// # Trust
//
// Whatever comes from the link is bounded before it is believed: records by
// maxRecord, streams by MaxStreams, buffered bytes by MaxStreams x Window (bulk streams
// may take twice that to hold them).
// Epoch and trailer protect from mistakes - old bytes, lost bytes, two peers -
// and not from an attacker, who is one end of the link anyway.
package mux
