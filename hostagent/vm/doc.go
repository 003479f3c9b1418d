// Package vm runs one QEMU process: starts it, suspends and revives it, knows why it
// ended, and leaves nothing behind.
//
// # Life cycle
//
//	Start ──> running ──Pause──> paused ──Save──> saved ──Kill──> ended
//	             ^                 │  ^
//	             └──────Resume─────┘  └──Load── waiting <── Start with Machine.Incoming
//
// [Start] returns a VM that runs, or, with Machine.Incoming, one that waits for
// [VM.Load] and is paused afterwards. [VM.Save] pauses a VM that runs. After a Save the
// memory file and the state belong together, so the VM can't be resumed: what is left
// is [VM.Kill], and to sync both files (Save does not).
//
// The context given to a method bounds that method only. A VM lives until Kill, until
// its guest or QEMU ends it, or until this process ends, however that happens: the
// kernel kills QEMU then (PDEATHSIG), SIGKILL included.
//
// # How it ends
//
// [VM.Failed] is closed as soon as the VM can't go on: QEMU has ended, or the guest has
// panicked, or was stopped because a disk is full. From then on [VM.Err] says why, as an
// *[EndError] with a [Cause] that errors.Is finds. A guest that panicked is paused, so
// [VM.Screenshot] still works. [VM.Done] is closed when the process has been reaped and
// everything that belonged to it has been waited for. Kill closes both.
//
// # Sockets
//
// Start makes a socketpair for each port of Machine.Ports, for the console and for the
// monitor; QEMU inherits one end. Nothing has a path. The host's end of a port is the
// caller's to use and to close ([VM.Port]); it reads EOF when the VM has ended. The link
// between two VMs is made by [LinkPair]: one end goes into each [Config].
//
// The console is always drained, into a ring of its last 64 KiB ([VM.ConsoleTail]) and,
// up to a limit, into a file.
//
// # Memory files
//
// With Memory.Shared the guest's RAM is the file, and a Save writes only the state of the
// devices (some 100 KiB). Load needs the same file mapped privately (Shared false): it is
// never written to, and any number of VMs can revive from it at once. The file must not
// change while one of them lives: pages that a guest has not touched yet are read from it.
// QEMU creates a memory file that isn't there, and a guest revived on zeros hangs; so
// Start refuses to revive without a file of the right size.
//
// # Concurrency
//
// Pause, Resume, Save and Load must be called one at a time. Everything else can be
// called from any goroutine at any time.
package vm
