package shm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	// SlotSize is how many bytes one slot has: the data of one read or write.
	SlotSize = 1 << 20

	// headerSize is where the first slot begins: slots are aligned to their size.
	headerSize = SlotSize

	// headerLen is how much of that is written.
	headerLen = 64

	magic   = "\xf7winvm-lane\r\n\x00\x00\x00"
	version = 1

	// MinSize is the least that a region has, in bytes: a header and a slot.
	MinSize = 2 * SlotSize
	// MaxSize is the most.
	MaxSize = 1 << 30
)

// An ID is a session's identity: a value that no other session has.
type ID [16]byte

// ErrRefused is wrapped by the errors that say why a region is not this session's.
var ErrRefused = errors.New("shared memory refused")

// putHeader encodes the header of a region of size bytes into b.
func putHeader(b []byte, size int, id ID) {
	copy(b, magic)
	binary.LittleEndian.PutUint32(b[16:], version)
	binary.LittleEndian.PutUint32(b[20:], SlotSize)
	binary.LittleEndian.PutUint64(b[24:], uint64(size))
	copy(b[32:48], id[:])
	clear(b[48:60])
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkHeader checks a copy of the header of a region that we see size bytes of.
func checkHeader(b []byte, size int, id ID) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
	}
	v, slot := binary.LittleEndian.Uint32(b[16:]), binary.LittleEndian.Uint32(b[20:])
	switch {
	case string(b[:16]) != magic:
		return refuse("it does not begin with the lane's magic")
	case crc32.Checksum(b[:60], castagnoli) != binary.LittleEndian.Uint32(b[60:]):
		return refuse("the header's checksum is wrong")
	case v != version || slot != SlotSize:
		return refuse("version %d with slots of %d bytes, ours is %d with %d: `hostagent suspend` brings the image up to date", v, slot, version, SlotSize)
	case binary.LittleEndian.Uint64(b[24:]) != uint64(size):
		return refuse("it says that it has %d bytes, we see %d", binary.LittleEndian.Uint64(b[24:]), size)
	case ID(b[32:48]) != id:
		return refuse("it belongs to another session")
	}
	return nil
}
