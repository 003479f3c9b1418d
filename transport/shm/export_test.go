package shm

import (
	"encoding/binary"
	"hash/crc32"
)

// Checksum gives a header the right checksum.
func Checksum(h []byte) { binary.LittleEndian.PutUint32(h[60:], crc32.Checksum(h[:60], castagnoli)) }

// ParseNFIT is parseNFIT.
var ParseNFIT = parseNFIT
