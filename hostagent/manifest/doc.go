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
// Each regular file's record has a number that is another one if the file may be
// (wire.Entry.Content): made of its attributes, or of the NAR hash of a path that Nix
// vouches for. hostagent/nixstore compares a file with it at every read (Unchanged). A
// scan returns only when a change from then on has to show: see settle.
//
// Preflight tells which names of a closure Windows can't have.
//
// # Cost
//
// One getdents a directory and 32 KiB, one fstatat a file, one readlinkat a link; the
// fstatat are nearly all of it. Sections are scanned side by side, and so are the
// directories of one, and the files of a large directory. In memory an entry takes 32
// bytes and its name.
//
// Manifests of what Nix vouches for are kept on disk (Cache). A plain directory has to be
// looked at each time: nothing less tells that no file in it has changed.
package manifest
