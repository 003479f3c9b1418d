// Package qemu turns the description of a virtual machine into QEMU's command
// line, and into the text that says what of it a saved state depends on.
//
// It is pure: it starts nothing and opens nothing (but for [Version], which
// asks a binary for its version). The package hostagent/vm runs what is described
// here.
//
// # What every machine has in common
//
// No default devices and no user configuration, no display, no network but the
// one NIC, QEMU's seccomp sandbox, a fixed real-time clock that follows the guest's
// own time (so that a revived guest doesn't see time jump), and a monitor. It
// starts with its CPUs stopped (-S): nothing happens in the guest before somebody
// listens on the monitor, so no event is ever missed. A guest that panics stays
// paused, so that its screen can still be looked at; one that reboots ends, unless
// [Machine.AllowReboot] is set.
//
// # Descriptors, not paths
//
// Ports, console, link and monitor are sockets that the caller made and that QEMU
// inherits. A field named FD is the number that the descriptor has in QEMU's
// process. 0, 1 and 2 are the standard streams there, so 0 means "none".
//
// # Memory
//
// With [Memory.File] the guest's RAM is that file. Suspending needs it mapped
// shared ([Memory.Shared]): the file then is the RAM, and the saved state leaves it
// out. Reviving maps the same file privately: pages come in on first touch, are
// shared by all that revive from it, and are never written back. QEMU before 8.2
// opens the file for writing even then (it writes nothing); from 8.2 on
// [Memory.ReadOnlyFile] lets it open the file for reading only.
//
// # Identity
//
// A state can be loaded only into a machine built the same way. A wrong number of
// CPUs fails loudly; a wrong CPU model loads and then hangs. [Machine.Identity] is
// the text of all that has to be equal. Paths, descriptors and disk formats are not
// in it: they differ from revive to revive by design. QEMU's version has to be
// equal too, and is recorded beside it by the image ([Version]). What lies on
// the disks has to be the same as well; that can't be seen from here.
package qemu
