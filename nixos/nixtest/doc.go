// Package nixtest tests nixos/ with a real Nix: stores of its own in a temporary directory,
// sandboxed builds, VMs in them. It has no code but its tests.
//
// Nix's sandbox is made with user namespaces, which Linux refuses to who is in a chroot.
// There the tests run Nix in a mount namespace of its own whose root is the chroot's.
package nixtest
