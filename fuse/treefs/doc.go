// Package treefs answers FUSE requests from an fsrpc.Tree: the part that a mount
// of the share xchg (package xchgfs) and the outputs within the share nixstore
// (package storefs) have in common.
//
// # Sessions
//
// The Tree is replaced while the file system stays mounted: a suspended controller
// VM is revived for one build after the other, and each has its own directory on
// the host, served over its own session. Swap puts the next Tree in place. Each
// gets an epoch, which is part of every nodeid:
//
//	bits 0-39   the Tree's NodeID
//	bits 40-61  the epoch
//	bits 62-63  Config.Tag, to tell several treefs in one mount apart
//
// The root is nodeid 1 in all of them, always. So a nodeid of a former session never
// means a new file: requests for it fail at once with ESTALE, which makes the
// kernel walk the path again if it had one, and its open files answer EIO. The root
// lives on: a process may have it as its working directory, or an open listing of
// it; the listing begins anew in the new session after a rewind, and is ESTALE if
// it goes on in the middle.
//
// While there is no Tree, requests about the root wait for one, Config.Grace long,
// and then fail with EIO. Getattr and statfs of the root are answered without one.
//
// # Caching
//
// The kernel keeps attributes and names for Config's timeouts; contents until a
// getattr shows another mtime or size, or the file is opened. Swap returns which
// names in the root the kernel may have; the caller invalidates them with
// Invalidate, without which a name could point into the former session for
// another timeout.
//
// Listings are fetched in large pieces with attributes and handed to the kernel
// page by page; attributes age meanwhile, and their timeout shrinks with it. Those of a
// file that was changed through the mount since are not handed out. Lookup
// references that the kernel did not take are given back. Forgets go to the Tree in
// batches, from a goroutine of their own.
//
// A host that can hold no more nodes answers ENFILE. The kernel, which would
// remember files for as long as it has memory, is then made to forget what it doesn't
// use, and the request is tried again.
//
// # Writes
//
// A write is answered when it is here, and sent at once: for each file one request is on
// its way, and what follows on it meanwhile goes with the next (behind). At most 8 MiB wait.
// What asks for a file's contents or attributes first waits for what was written to it, and
// what came back by name or in a listing while something waited is asked for again or not handed out.
// Flush and Fsync wait, and tell what failed; Sync tells what perhaps no program knows.
// Appends, synchronous writes and what the kernel writes back from mappings are answered
// when the host has them.
//
// Where programs look for many names in vain the directory's names are listed once in
// Config.EntryTimeout, and names that aren't among them not asked for (absent).
//
// # Interrupts
//
// Requests behave as on a local disk: a signal does not interrupt them, except the
// wait for a Tree. They end with their session: Swap, and Cut, cancel the context of
// every request of the former one. (Whoever serves the Tree over a stream closes the
// stream first: a request that hangs in a full stream can't see its context.)
//
// # Locks
//
// dir.mu is held while its listing is fetched; FS.mu, handleTable.mu, changes.mu,
// behind.mu and forgetter.mu may be taken within it. FS.mu guards the shown names, and is held while the session
// changes; Slot.mu may be taken within it. No other lock is held while another is
// taken, and none but dir.mu while a Tree or the kernel is asked.
//
// Invalidate takes the lock of the directory's inode in the kernel, which a lookup
// or create in that directory holds until it is answered: so it must not be called
// within a request, nor with any lock held that a request takes, nor before the
// session those requests wait for has been put in place or cancelled.
package treefs
