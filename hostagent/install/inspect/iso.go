package inspect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Errors that callers tell apart.
var (
	ErrNotISO      = errors.New("not the ISO of a CD or DVD")
	ErrNotBootable = errors.New("the ISO does not boot")
	ErrOther       = errors.New("the ISO is another than was asked for")
)

const sector = 2048

// Boot says under which firmware an ISO boots.
type Boot struct {
	BIOS bool `json:"bios"`
	UEFI bool `json:"uefi"`
}

// readBoot reads the boot catalogue of an ISO (El Torito 1.0; UEFI 2.x, 13.3.2.1).
func readBoot(file string) (Boot, error) {
	f, err := os.Open(file)
	if err != nil {
		return Boot{}, fmt.Errorf("--iso: %w", err)
	}
	defer func() { _ = f.Close() }()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return Boot{}, fmt.Errorf("%w: --iso %s is not a file", ErrNotISO, file)
	}
	at := func(n uint32) ([]byte, error) {
		b := make([]byte, sector)
		_, err := io.ReadFull(io.NewSectionReader(f, int64(n)*sector, sector), b)
		return b, err
	}
	primary, err := at(16)
	if err != nil || string(primary[1:6]) != "CD001" {
		return Boot{}, fmt.Errorf("%w: %s has no volume descriptor: was it downloaded whole, and is it no disk image?", ErrNotISO, file)
	}
	// The boot record is the second descriptor.
	record, err := at(17)
	if err != nil || record[0] != 0 || string(record[1:6]) != "CD001" || !bytes.HasPrefix(record[7:], []byte("EL TORITO SPECIFICATION")) {
		return Boot{}, nil
	}
	catalogue, err := at(binary.LittleEndian.Uint32(record[0x47:]))
	if err != nil {
		return Boot{}, fmt.Errorf("%w: %s is shorter than its boot catalogue says: was it downloaded whole?", ErrNotISO, file)
	}
	return catalogueBoot(catalogue), nil
}

// catalogueBoot reads one sector of a boot catalogue: entries of 32 bytes.
func catalogueBoot(c []byte) Boot {
	const entry = 32
	var b Boot
	if len(c) < 2*entry || c[0] != 1 || c[30] != 0x55 || c[31] != 0xaa {
		return b
	}
	note := func(platform byte, e []byte) {
		if e[0] == 0x88 {
			b.BIOS = b.BIOS || platform == 0
			b.UEFI = b.UEFI || platform == 0xef
		}
	}
	note(c[1], c[entry:])
	platform, left := byte(0), 0
	for at := 2 * entry; at+entry <= len(c); at += entry {
		e := c[at : at+entry]
		switch {
		case left > 0:
			note(platform, e)
			left--
		case e[0] == 0x90 || e[0] == 0x91:
			platform, left = e[1], int(binary.LittleEndian.Uint16(e[2:]))
		default:
			return b
		}
	}
	return b
}
