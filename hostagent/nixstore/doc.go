// Package nixstore serves the closure of a build's inputs as an fsrpc.Store: the
// share nixstore.
//
// Closure says which store paths belong to it. A store is a real Nix store if
// there is a Nix database beside it (DIR/../var/nix/db) and the nix-store tool;
// then the closure is what `nix-store --query --requisites` says. Any other
// directory can serve as a store too; then the closure is the paths given. Without
// inputs it is all of the store.
//
// A Store is the manifests of these paths (hostagent/manifest) and a bounded cache
// of open files. The guest names a file by section and entry number, never by a
// path, so what is not in a manifest can't be asked for. The path that the numbers
// stand for is opened below the store directory without following a symbolic link;
// only a regular file is ever opened.
//
// # Never wrong bytes
//
// A file is compared with what the manifest says of it before and after each read,
// alone or in a batch: it must be a regular file of that size, mtime, ctime and inode
// number. Else the read is EIO, and the log names the file, once. Of store paths that
// Nix vouches for - valid, with a NAR hash, and with the mtimes that Nix sets - size and
// mtime count: optimising the store links equal files to each other while builds run,
// which changes ctime and inode number, and never the contents; Nix itself relies on
// nobody writing there. Their manifests come from a cache.
//
// Against a program on the host that writes a file and sets its times back nothing
// helps but the file's ctime, which can't be set.
package nixstore
