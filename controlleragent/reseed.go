package controlleragent

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"winvm/transport/agentrpc"
)

// The requests of random(4).
const (
	rndAddEntropy  = 0x40085203
	rndReseedCRNG  = 0x5207
	entropyPerByte = 8 // bits
)

// reseed gives the kernel's random generator fresh randomness. Without it, all
// revived copies of an image would draw the same numbers until the kernel reseeds by
// itself, which takes minutes.
func reseed(seed []byte) error {
	if len(seed) != agentrpc.SeedSize {
		return fmt.Errorf("seed of %d bytes: want %d", len(seed), agentrpc.SeedSize)
	}
	f, err := os.OpenFile("/dev/random", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("reseed: %w", err)
	}
	defer func() { _ = f.Close() }()
	// struct rand_pool_info: entropy_count, buf_size, buf.
	info := binary.NativeEndian.AppendUint32(nil, uint32(len(seed)*entropyPerByte))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(seed)))
	info = append(info, seed...)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndAddEntropy, uintptr(unsafe.Pointer(&info[0]))); errno != 0 {
		return fmt.Errorf("reseed: add entropy: %w", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndReseedCRNG, 0); errno != 0 {
		return fmt.Errorf("reseed: %w", errno)
	}
	return nil
}
