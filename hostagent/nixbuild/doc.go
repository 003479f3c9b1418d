// Package nixbuild reads what a Nix build is: from the environment that Nix gives a
// builder, and from the files that it puts into the build's directory. It starts
// nothing.
//
// A derivation that nixos/lib.nix has rewritten has one attribute more, winvm: JSON with
// the builder and the arguments that were there before, the image, and QEMU. Another one
// may as well have `hostagent build -- COMMAND` for its builder, without that attribute.
//
// # What becomes of the environment
//
// Everything that the derivation sets arrives in the guest as it is, of any length, with
// its line breaks. Changed are:
//
//   - the outputs: S:\NAME, where the guest has to leave them;
//   - what is a path in the build's directory, as the files of passAsFile and
//     NIX_ATTRS_JSON_FILE: X:\..., since that directory is drive X:;
//   - NIX_STORE, which is S:, and NIX_BUILD_CORES, which is at most the image's CPUs.
//
// Left out is what is of the host or of a Linux shell alone: HOME, PATH, TMP and the like
// if they are Linux paths, NIX_LOG_FD, TERM, variables that shells don't let anybody set,
// and what the rewriting has added.
//
// # What the guest sees of the store
//
// The closure of what the original derivation has for inputs. Nix's sandbox shows the
// builder more than that: the host agent, QEMU and the image too. So lib.nix has Nix write
// the graph of the original's references (exportReferencesGraph), and that is the list.
package nixbuild
