//go:build race

package rpc

// poison overwrites memory that goes back to a pool, so that the race detector sees who still
// uses it, and tests of contents do.
func poison(b []byte) {
	if len(b) == 0 {
		return
	}
	b[0] = 0xdb
	for n := 1; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}
