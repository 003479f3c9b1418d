// Package xchgfs mounts an fsrpc.Tree read-write: the share xchg.
//
//	fs, err := xchgfs.Mount("/xchg", xchgfs.Config{UID: uid, GID: gid})
//	fs.SetTree(tree)   // a session begins
//	fs.ClearTree()     // it is over; the file system stays mounted
//	fs.SetTree(next)   // the next build's session
//	err = fs.Close(ctx)
//
// # What programs see
//
// A local file system, with the host's permissions, times, hard links and errors;
// changes on the host appear within a second (Config.AttrTimeout, EntryTimeout). What
// was written has reached the host's kernel when the file is closed, and the host's disk
// after fsync; both tell what failed. What
// differs: everything belongs to Config.UID and GID and can't be given away; there
// are no device nodes, FIFOs, setuid bits, extended attributes or ACLs; flock and fcntl
// locks hold within the mount, not between it and the host.
//
// The extended attribute glusterfs.get_real_filename:NAME of a directory is
// answered with the name in it that differs from NAME at most in case; Samba's VFS
// module glusterfs_fuse asks for it.
//
// # Sessions
//
// See package treefs, which does the work, for what becomes of nodeids, open files
// and listings. SetTree returns when the kernel has forgotten what it knew of the
// former Tree, so no program started afterwards can see any of it. It waits for
// lookups in the root that the new Tree has not answered yet; if that Tree hangs,
// ClearTree, another SetTree or Close from another goroutine ends the wait.
//
// Whoever serves the Tree over a stream closes that first and calls ClearTree then.
package xchgfs
