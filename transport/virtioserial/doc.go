// Package virtioserial opens both ends of a virtio-serial port.
//
// # In the guest
//
// A port is a character device, /dev/vportNpM, found by the name the host gave
// it: [Find] looks once, [Wait] until it is there. [Open] makes a [Port] of it,
// which reads and writes with deadlines like a net.Conn.
//
// What the kernel does (Linux, drivers/char/virtio_console.c, read for 5.x and
// 6.x), and what Port makes of it:
//
//   - Only one open at a time; a second one gets EBUSY.
//   - read(2) returns what is in one in-buffer, so a page at most. With nothing
//     there and a host connected a non-blocking read gets EAGAIN; with no host
//     connected every read returns 0 at once, blocking or not. What a host left
//     behind before it went away is still read first. [Port.Read] never returns
//     0 bytes without an error: it waits for the next wake-up of the device,
//     which comes with the next host's first bytes. So that the end of a session
//     is seen at once, it returns [ErrPeerGone] once for every time the host goes
//     away after the port saw it there.
//   - A host that goes away and comes back between two reads leaves no trace in
//     the device. ErrPeerGone is a hint that saves time; what is on the wire has
//     to tell sessions apart by itself (package mux does).
//   - write(2) takes at most 32 KiB a call and is asynchronous: up to 128
//     descriptors wait in the queue. A full queue is EAGAIN, and so is a missing
//     host. [Port.Write] tells them apart by POLLHUP: it waits for a slow host
//     and returns ErrPeerGone if there is none.
//   - That a host has come is told in a control message, which the driver handles in a
//     workqueue; the host's first bytes come in an interrupt and can overtake it. So
//     they can be read while a write still gets EAGAIN and poll says POLLHUP. After a
//     revive that is the usual case. Who has an answer to what it has read calls
//     [Port.WaitHost] and writes again.
//   - poll(2) says POLLHUP for as long as no host is connected, so a loop over a
//     level-triggered poll spins. Go's netpoller is edge-triggered: each change
//     of the host's state, each arrival and each completed write wakes the
//     device's one wait queue, and Port tries again once for each.
//   - A port taken away (hot-unplugged) gives ENODEV, which is passed on. It is
//     final: open the port anew when it is back.
//   - Closing the port throws away what came in and was not read.
//   - After a revive the guest is told about a host connection only if the saved
//     state was another one: a port saved with its host connected sees nothing
//     at all when another host agent takes over.
//
// # On the host
//
// [Socketpair] makes the two ends of a chardev: one to keep, one to hand to QEMU
// (-chardev socket,fd=N). [Listen] makes a socket in the file system for other
// launchers.
//
// Known trap, seen with QEMU 7.2 under TCG: of 300 host agents that connected one
// after the other to one server socket (-chardev socket,server=on), a third of
// them leaving in the middle of bulk data, one to four found the port dead from
// guest to host. QEMU's `info qtree` then says "host on, throttle on" though
// nothing waits in the socket. Leaving gently (shutdown, then reading until EOF)
// did not help; closing the connection and connecting again did, every time. So
// whoever connects by path should do that when a session doesn't come about
// within a few seconds. Why QEMU does it is not known. A socket pair is never
// connected anew.
//
// A Port may be used by any number of goroutines. Concurrent writes are not
// mixed: each Write goes out as a whole.
package virtioserial
