// Package storefs mounts the share nixstore: the store paths of a build's closure,
// read-only and from metadata that is held in memory, and among them the build's
// outputs, writable.
//
//	fs, err := storefs.Mount("/nix/store", storefs.Config{UID: uid, GID: gid})
//	err = fs.SetSession(ctx, store, outputs)  // outputs may be nil
//	fs.ClearSession()                         // it is over; the mount stays
//	err = fs.SetSession(ctx, next, nil)
//	err = fs.Close(ctx)
//
// # What is asked of the host
//
// SetSession asks for the list of sections (store paths) and fetches the metadata
// of those it doesn't hold yet, checked by size, SHA-256 and wire.DecodeSection. After
// that lookup, getattr, readdir and readlink of store paths are answered from
// memory; contents alone are read, by position. Names that are no section's go to
// outputs, which is handled by package treefs, as xchg is.
//
// # Nodes
//
// A section gets a range of nodeids when it is first seen, and keeps it as long as
// it is held; no nodeid is ever given twice. Which section is which is decided by name
// and hash together, since two paths may have equal metadata. So what the kernel
// knows of a section (names, attributes, targets, listings, for a year) is still true
// in the next session that has it, also after a VM was suspended and revived. The
// nodeid is the inode number too. Nodes of outputs have bit 62 set in both.
//
// The hash covers metadata; whether it changes when a file's bytes do and its size
// does not is the host side's affair. Unless Config.KeepContents says that it does,
// contents that were read in one session are dropped from the kernel's cache at the
// next. Within a session a file that changed underneath is EIO.
//
// # Sessions
//
// When SetSession returns, the kernel has forgotten every name in the root that
// means something else now, with what is below it; nodes of sections that aren't in
// the session answer ESTALE. Without a session everything but the root's attributes
// waits for one, Config.Grace long, and then fails with EIO; what the kernel has cached
// it goes on to show. A listing of the root begins anew after a rewind.
//
// Sections that the session lacks are held on to while all take at most
// Config.MaxCachedBytes; the longest unused go first.
//
// # Writing
//
// Everything but the outputs is EROFS. Which outputs there can be is for the host
// to say. With Config.ReadOnly there are none: the mount is read-only, and the
// kernel doesn't ask to open files and directories, which saves a round trip to this
// process each.
//
// # Names without case
//
// glusterfs.get_real_filename:NAME (see package xchgfs) is answered from an index
// of folded names, which a directory gets when first asked for, at six bytes an entry.
//
// # Locks
//
// FS.change is held by SetSession throughout, and no request takes it. registry.mu
// and section.mu are leaves, held for moments (section.mu while a directory's index is
// made). A session, once in place, doesn't change. Two rules keep what a request of
// a former session does from outliving it: a request first notes what the kernel is going
// to know (section.shown, section.read) and then looks whether its session is over;
// SetSession first ends the session and then collects what was noted.
//
// Notifications go out with FS.change alone held, after the next session is in
// place, so that requests in the kernel that wait for it, with the root's lock held,
// have been let go. They wait for lookups in the root that the new outputs Tree has not
// answered; if it hangs, ClearSession or Close from another goroutine ends the wait.
package storefs
