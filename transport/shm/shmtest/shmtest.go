// Package shmtest gives tests both sides of a shared-memory lane in one process.
package shmtest

import (
	"testing"

	"winvm/transport/shm"
)

// Regions makes a region with that many slots and maps it twice.
func Regions(t testing.TB, slots int) (host, guest *shm.Region) {
	t.Helper()
	host, err := shm.Create((slots + 1) * shm.SlotSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	guest, err = shm.Map(host.File())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = guest.Close() })
	return host, guest
}

// Lanes makes the two ends of the lane of a session: that of the calling side and that
// of the serving one.
func Lanes(t testing.TB, slots int) (calling, serving *shm.Lane) {
	t.Helper()
	host, guest := Regions(t, slots)
	serving = host.Offer(shm.ID{1})
	calling, err := guest.Accept(shm.ID{1})
	if err != nil {
		t.Fatal(err)
	}
	return calling, serving
}
