package work

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// page is how far apart positions are written into a file made by Pattern.
const page = 4096

// A Pattern is the content of a file: pseudo-random bytes, other ones for every seed,
// with the position in the first eight bytes of each page.
type Pattern struct {
	seed uint64
	base []byte
}

// patternLen is how many bytes a Pattern has before they repeat but for the positions.
const patternLen = 1 << 20

// NewPattern returns the content for a seed.
func NewPattern(seed uint64) *Pattern {
	p := &Pattern{seed: seed, base: make([]byte, patternLen)}
	x := seed
	for i := 0; i < patternLen; i += 8 {
		binary.LittleEndian.PutUint64(p.base[i:], mix(&x))
	}
	return p
}

// mix is SplitMix64: the next number of a sequence.
func mix(x *uint64) uint64 {
	*x += 0x9e3779b97f4a7c15
	z := *x
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// At returns the n bytes at the offset, valid until the next call. The offset and n are
// multiples of a page, and n divides patternLen.
func (p *Pattern) At(offset int64, n int) []byte {
	b := p.base[int(offset%patternLen):][:n]
	for i := 0; i < n; i += page {
		binary.LittleEndian.PutUint64(b[i:], p.stamp(offset+int64(i)))
	}
	return b
}

func (p *Pattern) stamp(offset int64) uint64 { return p.seed<<48 ^ uint64(offset) }

// checkStamps looks at the heads of the pages in b, which was read at offset. The seed
// is taken from the first.
func checkStamps(b []byte, offset int64) error {
	for i := int(-offset & (page - 1)); i+8 <= len(b); i += page {
		got := binary.LittleEndian.Uint64(b[i:])
		if got&(1<<48-1) != uint64(offset+int64(i)) {
			return fmt.Errorf("wrong bytes at offset %d: %#x", offset+int64(i), got)
		}
	}
	return nil
}

// WriteTo writes size bytes, a multiple of a page.
func (p *Pattern) WriteTo(w io.Writer, size int64) error {
	for at := int64(0); at < size; {
		n := int(min(size-at, patternLen))
		if _, err := w.Write(p.At(at, n)); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// Sum is the checksum of a file of that size: what the job Sum says of it.
func (p *Pattern) Sum(size int64) uint32 {
	h := crc32.NewIEEE()
	_ = p.WriteTo(h, size)
	return h.Sum32()
}
