// Package doctor looks at everything that winvm needs of the host and says, line
// by line, what it found and what the user can do about it.
//
// Looking changes nothing, but for the accelerator's answer, which is remembered
// as it would be by the next suspend. A check fails if nothing works without what
// it looks for; it warns if something does not work, or not as well as it could.
package doctor
