// Package setup is stage 1 for a guest that is installed from its vendor's medium. It
// makes the disk and the media, starts the guest with both and the controller VM beside
// it, watches, and ends with an image whose disk is read-only from then on.
//
// # The course of an install
//
// Everything that can be refused is refused before anything is started: the ISO is
// looked at (package inspect), the answer file is made and checked (package answer), the
// software medium is made (package medium). Then the guest boots with an empty disk,
// the vendor's CD, the software CD and, for winnt.sif, a floppy. The disk stands before
// the CD in the boot order: as long as nothing on it boots, the CD does.
//
// A Tracker makes stages of what can be seen from outside: bytes read and written,
// resets, lines on the first serial port, the screen. Each has a limit; nothing that
// changes for some time, on the screen and on the disks, is an install that is stuck,
// because it asks a question or has crashed. "Press any key to boot from CD" is
// answered only while the screen (BIOS) or the serial console (UEFI) asks.
//
// The install is done when the controller holds an SSH connection to the guest, whose
// host key is the one that the software medium brought. The guest is then told to shut
// down, so that its disk is whole.
//
// # What is left
//
// An install makes its image in a directory of its own that is renamed at the end. One
// that is cut off leaves nothing that counts, and is started anew. The media hold the
// password and the keys: they are of mode 0600 and removed at the end.
package setup
