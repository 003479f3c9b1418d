// Package vmsuite runs the share's conformance suites inside the real controller
// VM: the mounts' suite on /xchg, over FUSE, the RPC, the channel and a real
// virtio-serial port, against a directory of the host's.
//
// The test boots the controller's image with another program in the controller
// agent's place: the test binary of package inside, which mounts the share twice. One
// mount is tested; the other stands for the host's view of the same directory.
package vmsuite
