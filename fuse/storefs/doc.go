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
// The hash covers, of each file, a number that is another one whenever its bytes may
// be (wire.Entry.Content). So contents too stay in the kernel's cache from one session
// to the next that has the section. A file that changed underneath within a session
// is EIO where it has to be read; what the kernel has of it stays what it was.
//
// # Reading ahead
//
// Files of up to 64 KiB are fetched in batches before they are asked for, once two files
// that lie near each other have been read (ahead, stream). What comes is put into the
// kernel's cache; what the kernel doesn't know yet, at most 32 MiB, waits here. It ends
// with the session. A file that can't be had in a batch is read by itself when a program
// comes to it, and gets its own error. Nothing is put into the kernel's cache that a
// request waits for: its pages are locked until it is answered.
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
// to say. With Config.ReadOnly there are none, and the mount is read-only.
//
// The kernel doesn't ask to open and release files, which would cost two requests to
// this process each time. It can't be told so for some of a mount's files only, so the
// outputs' files are opened on the host when they are used, and kept open until the
// kernel forgets them or there are too many (handles). A file's creator can go on writing
// it whatever mode it gave it. Root's open for writing of what is EROFS succeeds, and its
// writes fail.
//
// # Names without case
//
// glusterfs.get_real_filename:NAME (see package xchgfs) is answered from an index
// of folded names, which a directory gets when first asked for, at six bytes an entry.
//
// # Locks
//
// FS.change is held by SetSession throughout, and no request takes it. ahead.mu comes
// before section.mu. registry.mu, section.mu and handles.mu are leaves, held for moments
// (section.mu while a directory's index is made). A session, once in place, doesn't
// change. Two rules keep what a request of a former session does from outliving it: a
// request first notes what the kernel is going to know (section.shown) and then looks
// whether its session is over; SetSession first ends the session and then collects what
// was noted.
//
// Notifications go out with FS.change alone held, after the next session is in
// place, so that requests in the kernel that wait for it, with the root's lock held,
// have been let go. They wait for lookups in the root that the new outputs Tree has not
// answered; if it hangs, ClearSession or Close from another goroutine ends the wait.
package storefs
