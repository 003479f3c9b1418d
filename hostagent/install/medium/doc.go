// Package medium makes the media that an install gives to the guest beside the
// vendor's: an ISO with the SSH server, drivers, keys, answer file and script, and a
// floppy. The same inputs give the same bytes.
//
// The file systems are written by xorriso and mtools, and archives are read by 7zz;
// only names are in their command lines, never contents. What is secret lies in files
// of mode 0600 below a directory of mode 0700 that the caller owns.
package medium
