// Package inspect says what the packets of a capture mean, layer by layer: resync, records,
// streams, requests and responses. It has no format of its own: the decoders are those of
// the packages whose bytes they are.
//
// A [Decoder] turns packets into [Event]s. It believes nothing and stops at nothing: what
// makes no sense becomes an event that says so, and it goes on where something begins
// again. It can begin in the middle of a session; then the names of the streams that were
// there already are not known. Bulk streams without a name are taken for shares, and their
// requests are found; of yamux streams without a name only the bytes are told.
//
// A [Filter] chooses events, a [Stats] adds them up.
//
// Everything here is bounded: 4,096 streams, 65,536 requests in flight a stream, 1 MiB and
// 4 KiB of a frame that isn't complete.
package inspect
