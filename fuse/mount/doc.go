// Package mount puts a go-fuse file system on a directory and takes it off again.
//
// As root it makes the mount itself, without fusermount3, and hands go-fuse the
// descriptor: go-fuse's own direct mount leaves /dev/fuse open in every child
// process, and a child that outlives the agent would keep a dead mount hanging
// where ENOTCONN is wanted. Everybody else goes through fusermount3.
//
// # Sizes
//
// Requests carry up to 1 MiB (max_read, MaxWrite, which is fsrpc.MaxData). The
// kernel's readahead starts at 128 KiB and can't be raised by the FUSE handshake, so
// it is set through /sys/class/bdi once the mount is there, as far as that file may
// be written.
//
// # The end
//
// Close unmounts. If something still uses the mount, or the requests in progress
// don't end, it calls Options.Cut, which must make every request in progress end
// with an error, aborts the connection and detaches the mount: processes inside get
// ENOTCONN, and no mount is left. Serving goroutines are waited for.
package mount
