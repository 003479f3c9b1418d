// Package e2e holds the tests of the whole thing: the hostagent program as a child
// process, a revived pair, a command in the guest, and what is left afterwards. There
// is nothing to import.
//
// The tests run the image "wine" below $WINVM_TEST_STATE_DIR (`make test` makes it)
// with the program $WINVM_TEST_HOSTAGENT, or build/bin/hostagent of this checkout.
// Every test has a state directory of its own, in which images is a link to the
// shared one or a copy that the test may damage; so a test knows which processes,
// run directories and staging directories are its own, and insists that there are
// none when the program has ended.
//
// What a command does in the guest that cmd.exe can't is done by testdata/tool.c,
// which the tests compile with mingw-w64 and put into the store.
package e2e
