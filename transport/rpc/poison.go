//go:build !race

package rpc

// poison does something under the race detector only.
func poison([]byte) {}
