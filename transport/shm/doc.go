// Package shm is the shared-memory lane: a piece of memory that the host agent and
// the controller VM both see, for the payloads of requests whose control goes over
// the channel.
//
// # Region, lane, slot
//
//	Region   the memory: a header, and slots of SlotSize bytes
//	Lane     the use of a region by one session
//	slot     what one request borrows for its payload or its answer
//
// The host agent makes a region with [Create], a sealed memfd, and QEMU shows it to
// the controller VM as an NVDIMM, where [Find] finds and maps it. Both sides give
// it to the session (package mux), which calls [Region.Offer] on the host before
// its peer knows of the session, and [Region.Accept] in the controller. What they
// compare is the header, and in it the session's own identity: memory that is
// another session's, another size, or not ours at all is refused, and
// everything goes over the channel.
//
// # Who owns a slot
//
// The calling side (the mounts, in the controller) alone hands out slots. It takes
// one for a call and gives it back when the call's response has come: no messages of
// their own, and nothing the other side could forget. A call without a response -
// its stream ended - leaves its slot with the lane, because the peer may still be
// writing there; the region has it back with the next session. [Region.Offer] refuses
// a session while a handler of one before is still at work on a slot.
//
// # Trust
//
// The other side can write anywhere in the region at any time. So lengths and
// numbers are never taken from it, only from the channel, and checked by
// [Lane.Lend]; and what is to be understood rather than passed on is copied first.
// The memfd is sealed: no holder, QEMU included, can make it smaller and the host agent
// fault. Nothing here is a lock or a queue that a peer could corrupt.
//
// # Lock order
//
// Region.mu is held alone.
package shm
