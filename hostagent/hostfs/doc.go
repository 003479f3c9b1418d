// Package hostfs serves a directory of the host as an fsrpc.Tree: the shares
// xchg and outputs. What asks is a VM, and not trusted.
//
// # Nodes
//
// A node is one inode, held by one O_PATH descriptor for as long as the mount
// side has lookup references to it. Nodes are keyed by device and inode number,
// so hard links share a NodeID; the descriptor pins the inode, so its number
// can't come back as another file's. A NodeID is never used twice. An operation
// pins its nodes, so a Forget at the same time closes nothing under it.
//
// Since each node is a descriptor, there is a limit (Config.MaxNodes, by default
// three eighths of RLIMIT_NOFILE: call RaiseFileLimit first). Beyond it lookups
// fail with ENFILE and the log says so; listings go on, without references.
//
// # What the guest can't do
//
// It never sends a path. Every name is one checked component, opened by
// openat2(2) relative to its parent with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS,
// RESOLVE_NO_MAGICLINKS and RESOLVE_NO_XDEV: nothing outside the root, no
// symbolic link on the host and no mount is ever followed, whatever is swapped
// between two calls. To read or write, the node's descriptor is opened again
// through our own /proc/self/fd, once its inode is known to be a regular file or
// a directory: that can't change. FIFOs, sockets and devices can be seen,
// renamed and removed, so that a directory that holds one can be cleared, but
// not opened, linked or changed (EPERM), and none can be made. Devices show no
// device number. Setuid, setgid and sticky are stripped from every mode, both
// ways. Only the open flags named in fsrpc.Tree pass.
//
// Handles are bounded too (Config.MaxHandles, ENFILE); every length is.
//
// A guest may make symbolic links to anywhere. Nothing here follows them; who
// reads the directory on the host afterwards must not either.
//
// # Errors of writes
//
// An error is returned by the call that met it. The kernel of the mount side drops
// those of a close, and nobody hears those of a request that was given up; these
// are kept, and Sync returns the first. Sync does not call syncfs(2): it would
// wait for all that is dirty on the host's file system, other programs' data
// included (half a second was seen for a build that had written 100 bytes). What
// has to be on the disk is for fsync to say.
//
// # Names without case
//
// RealName keeps, for the directories it was asked about, an index of folded
// names (wire.FoldName). It is valid as long as the directory's mtime and ctime
// are; changes made through this package are put into it, so creating many files
// through Windows doesn't list the directory for each. What the host changes
// at the same moment is seen after a second at the latest.
//
// # Locks
//
// FS.mu guards the node table, FS.hmu the handle table, foldCache.mu the indexes;
// none is held during a system call on a file, but for close(2) of an O_PATH
// descriptor. A handle's mu is held for reading by every operation on it, for
// writing by Release, which so waits for them; a directory handle's seek makes
// lseek and getdents one step. Order: handle.mu, handle.seek, FS.mu, foldCache.mu.
package hostfs
