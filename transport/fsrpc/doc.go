// Package fsrpc is the file system protocol between the host agent, which
// exports, and whoever mounts: two interfaces, Tree (read-write, the shares xchg
// and outputs) and Store (the read-only share nixstore), their operations on the
// wire, a Client that implements both and a handler that serves either.
//
// It knows no back end and no mount: hostagent/hostfs and hostagent/nixstore
// implement the interfaces on a real directory, fuse/xchgfs and fuse/storefs turn
// them into mounts, and fsrpctest tests any implementation, so each of them can be
// tested with the next layer and without it.
//
// # Session
//
// A share is one stream of the session, named by StreamName. Its first request
// must be opAttach with the protocol's version and the share's kind; anything else
// before it is refused. NodeIDs and HandleIDs live as long as the stream: when it
// ends the export side drops all of them.
//
// # Round trips
//
// They are what costs. Lookup, Create, Mkdir, Symlink and Link return attributes;
// a listing can carry them; Forget is batched; the metadata of nixstore comes as
// whole sections, so that only contents cross the channel afterwards.
package fsrpc
