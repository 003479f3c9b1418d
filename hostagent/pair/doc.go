// Package pair runs the two VMs of an image together: boots them, suspends them
// at one moment, revives them, and sees it when either can't go on.
//
// # The suspend
//
// Both VMs run with their memory in files that they share with the image. When the
// controller agent has gone quiet (session.Quiesce) the guest is paused first; the
// controller runs on for a moment, so that it has taken all that the guest had sent,
// acknowledged it and has nothing on its own way; then it is paused, and both device
// states are saved side by side. So neither side of a TCP connection waits for a
// segment that the other has sent already, and no retransmission timeout has to pass
// after a revive.
//
// # The revive
//
// Both QEMUs start side by side, map the memory files privately and load their
// device states; the controller is let run first, then the guest. All revives of an
// image share its memory through the page cache.
package pair
