// Package guest describes the guests that winvm can run: a Profile is data about
// one, and everything that depends on the kind of guest is a field of it. No other
// package asks which guest it is.
//
// The profiles are YAML files, one a guest, compiled in from profiles/; a user's own
// is read with ReadFile. Parse refuses unknown fields and values that can't be, and
// names file, line and field. A guest either has a recipe, which makes its root file
// system, or a Setup, which says how it is installed from its vendor's medium.
//
// Drives are part of a profile: the one table of drive letter -> share and path
// that the mapping before the suspend, the job's paths and the documentation use.
package guest
