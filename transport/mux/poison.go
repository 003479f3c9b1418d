//go:build !race

package mux

// poison does something under the race detector only.
func poison([]byte) {}
