// Package crc sums with the table that crctool, a C program built a moment earlier, generated.
package crc

import (
	"fmt"
	"io"
)

// Sum returns the CRC-32 (IEEE) of everything in r, and how many bytes that was.
func Sum(r io.Reader) (sum uint32, size int64, err error) {
	buf := make([]byte, 64<<10)
	sum = ^uint32(0)
	for {
		n, err := r.Read(buf)
		for _, b := range buf[:n] {
			sum = table[byte(sum)^b] ^ sum>>8
		}
		size += int64(n)
		if err == io.EOF {
			return ^sum, size, nil
		}
		if err != nil {
			return 0, size, fmt.Errorf("after %d bytes: %w", size, err)
		}
	}
}
