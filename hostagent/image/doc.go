// Package image keeps images: directories below the state directory that hold an
// installed guest, its controller and, once suspended, the state of both.
//
//	images/NAME/
//	  image.json            what this is; written last, replaced atomically
//	  lock                  flock: shared while a build starts from the image,
//	                        exclusive while its state is replaced or it is removed
//	  suspend.lock          flock: held by a suspend from beginning to end
//	  controller/vmlinuz initrd root.squashfs
//	  guest/vmlinuz initrd root.squashfs
//	  guest/guest.qcow2 guest-vars.qcow2
//	                        instead, for a guest installed from a medium: its disk and
//	                        UEFI's variables, read-only; a state has overlays of them
//	  profile.yaml          and the profile it was installed by
//	  install/              and what is kept of its install
//	  secrets.json          SSH keys and the SMB password of this image, 0600
//	  state-ID/             made by the suspend; image.json names the one that counts
//	    controller.initrd controller.memory controller.state
//	    guest.initrd      guest.memory      guest.state
//
// # What a crash leaves
//
// An image is made in a directory whose name begins with a dot and renamed when it
// is complete. A suspend writes a new state directory, syncs every file and the
// directory, then replaces image.json by a rename, then removes the old state. So at
// every instant there is the old image, the new one, or none; what else lies around
// is removed by the next create or suspend.
//
// # Checks before use
//
// A revive that can't be right is refused: Check compares format, QEMU's version,
// both machines' identity (a digest of everything that must be the same, see
// qemu.Machine.Identity), and the size of every file. Digests are compared by
// Verify, because reading all of the memory would take longer than the revive.
package image
