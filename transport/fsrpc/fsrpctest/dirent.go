package fsrpctest

import (
	"bytes"
	"encoding/binary"
)

type dirent struct {
	name string
	next int64
	len  int
}

// direntAt decodes a struct linux_dirent64 (getdents(2)).
func direntAt(b []byte) dirent {
	n := int(binary.NativeEndian.Uint16(b[16:]))
	name := b[19:n]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return dirent{name: string(name), next: int64(binary.NativeEndian.Uint64(b[8:])), len: n}
}
