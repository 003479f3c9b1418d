// Package manifest reads the metadata of store paths: what the share nixstore is
// before any file of it is opened.
//
// Scan walks one store path breadth first, in byte order of the names, so the same
// files always give the same bytes (wire.Section) and the same SHA-256, by which
// the controller knows a section it has already. A store path may be a directory,
// a regular file or a symbolic link; links are never followed. FIFOs, sockets and
// devices are left out and listed in Manifest.Skipped. What can't be read is an
// error that names it: better before the build than in it.
//
// Beside the encoding a Manifest remembers of every regular file what changes if
// the file does (Stamp). hostagent/nixstore compares it at every read.
//
// Preflight tells which names of a closure Windows can't have.
//
// # Cost
//
// One getdents a directory and 32 KiB, one fstatat a file, one readlinkat a link;
// sections are scanned side by side. Nothing is cached on disk: stamps have to
// be taken anyway, and they are nearly all of the cost. In memory an entry takes 64
// bytes and its name.
package manifest
