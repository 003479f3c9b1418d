package shm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrNone says that this machine has no shared memory of the kind.
var ErrNone = errors.New("no shared memory")

// Find maps the region that QEMU shows to this VM. root is where the file system
// begins: "/" (or "") but for tests.
//
// The memory is an NVDIMM: the firmware's NFIT table says where it is, no driver may
// have claimed it, and /dev/mem maps it as what it is, cached memory. (A PCI device's
// memory would be mapped uncached or write-combined; see docs/decisions/0010.)
func Find(root string) (*Region, error) {
	if root == "" {
		root = "/"
	}
	table, err := os.ReadFile(filepath.Join(root, "sys/firmware/acpi/tables/NFIT"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: this machine has no NVDIMM", ErrNone)
	case err != nil:
		return nil, fmt.Errorf("look for shared memory: %w", err)
	}
	base, size, err := parseNFIT(table)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(root, "dev/mem"), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("shared memory: %w", err)
	}
	defer func() { _ = f.Close() }()
	return mapFile(f, int64(base), int(size))
}

const (
	nfitHeader = 40 // ACPI's header, and four bytes that are reserved
	nfitSPA    = 0  // type of a System Physical Address range structure
	nfitSPALen = 56
)

// persistent is the type of a range that is byte-addressable persistent memory,
// 66F0D379-B4F3-4074-AC43-0D3318B78CDB (ACPI 6.4, 5.2.25.2), as its bytes stand.
var persistent = [16]byte{0x79, 0xd3, 0xf0, 0x66, 0xf3, 0xb4, 0x74, 0x40, 0xac, 0x43, 0x0d, 0x33, 0x18, 0xb7, 0x8c, 0xdb}

// parseNFIT finds the one range of memory in an NFIT table.
func parseNFIT(b []byte) (base, size uint64, err error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: the NFIT table: %s", ErrRefused, fmt.Sprintf(format, args...))
	}
	if len(b) < nfitHeader || string(b[:4]) != "NFIT" {
		return 0, 0, bad("%d bytes that are none", len(b))
	}
	found := 0
	for b = b[nfitHeader:]; len(b) >= 4; {
		kind, n := binary.LittleEndian.Uint16(b), int(binary.LittleEndian.Uint16(b[2:]))
		if n < 4 || n > len(b) {
			return 0, 0, bad("a structure of %d bytes where %d are left", n, len(b))
		}
		if kind == nfitSPA && n >= nfitSPALen && [16]byte(b[16:32]) == persistent {
			base, size = binary.LittleEndian.Uint64(b[32:]), binary.LittleEndian.Uint64(b[40:])
			found++
		}
		b = b[n:]
	}
	page := uint64(unix.Getpagesize())
	switch {
	case found != 1:
		return 0, 0, bad("%d ranges of persistent memory, want 1", found)
	case size > MaxSize || base%page != 0 || base > 1<<52:
		return 0, 0, bad("%d bytes at %#x", size, base)
	}
	if err := checkSize(int(size)); err != nil {
		return 0, 0, err
	}
	return base, size, nil
}
