// Package inspect looks at a vendor's ISO before anything is started from it: is it
// one, does it boot under the firmware asked for, of which architecture, edition and
// build is what it installs. It reads the boot catalogue itself, and files through
// 7zz, which knows ISO 9660 and UDF.
//
// A medium since Vista has an image file (sources/install.wim or .esd), whose header
// and XML description say what is in it; they are read from a stream, and both are
// bounded. A medium of XP's time has directories named after the architecture, and
// files in its root that name the edition.
package inspect
