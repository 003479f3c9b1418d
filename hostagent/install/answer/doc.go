// Package answer writes the files that a Windows Setup is answered with: an
// autounattend.xml for Vista and later, a winnt.sif for XP and 2003, and the script
// that the first logon runs. They are pure functions of Params, and compared with
// golden files.
//
// Windows ignores an answer file that is malformed, silently, and asks a person. So
// what is written is checked before it is used: CheckUnattend knows the passes,
// components and settings that the documentation of unattended Setup has, as far as
// winvm uses them (unattend.schema), and CheckSIF the sections and keys of winnt.sif.
//
// The files hold the password and the keys of one image. Who stores them keeps them
// readable for the owner alone.
//
// # How the guest tells where it is
//
// The script writes lines to the first serial port, which the host agent reads:
// Stage* when it has got there, and FailedLine with the reason when it gives up.
package answer
