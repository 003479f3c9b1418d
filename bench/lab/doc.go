// Package lab is where benchmarks are made: a controller VM from the product's own
// root file system, in which our mounts and those that a user would have instead can be
// mounted one after the other, over the same files of the host.
//
// # The sides
//
// All of them serve one directory with the subdirectories store and xchg. Ours is
// served by this process over the port winvm.rpc, by the same packages as in a build;
// virtio-9p by QEMU; virtiofs by a virtiofsd for each cache mode; sshfs by an
// sftp-server at the other end of a virtio-serial port. The devices of the others are
// added to QEMU's command line by a script in QEMU's place, so that the product's
// description of a machine knows nothing of them.
//
// In the VM the program of package inside stands in the place of the controller agent.
// It mounts a side when it is told to; our mounts get a new process each time. When a
// side is unmounted every cache of the kernel is dropped. So a job on a fresh mount finds
// cold caches in the VM, and warm ones on the host: everything has been read there once.
//
// # The kernel
//
// Debian's cloud kernel, which the product's controller runs, has no 9p. So the VM
// runs whatever kernel it is given, with that kernel's modules in the initrd in the
// place of the product's; a side whose module the kernel lacks is left out.
package lab
