// Package wire encodes and decodes everything that crosses the channel: the
// fields of RPC messages, and the metadata of a store path (Section).
//
// Integers are little endian and of fixed size; strings have a length of two
// bytes before them. A decoder never allocates more than the message it was
// given is long, never panics on bad input, and tells what was wrong in an error
// that wraps ErrMalformed. It imports nothing but the standard library, so that
// it can be fuzzed and read alone.
package wire
