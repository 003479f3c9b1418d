// Package guest describes the guests that winvm can run: a Profile is data about
// one, and everything that depends on the kind of guest is a field of it. No other
// package asks which guest it is.
//
// Drives are part of a profile: the one table of drive letter -> share and path
// that the mapping before the suspend, the job's paths and the documentation use.
package guest
