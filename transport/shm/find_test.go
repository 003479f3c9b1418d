package shm_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"winvm/transport/shm"
)

var pmem = []byte{0x79, 0xd3, 0xf0, 0x66, 0xf3, 0xb4, 0x74, 0x40, 0xac, 0x43, 0x0d, 0x33, 0x18, 0xb7, 0x8c, 0xdb}

// spa is a structure of an NFIT table that describes a range of memory.
func spa(base, size uint64) []byte {
	b := make([]byte, 56)
	binary.LittleEndian.PutUint16(b[2:], 56)
	copy(b[16:], pmem)
	binary.LittleEndian.PutUint64(b[32:], base)
	binary.LittleEndian.PutUint64(b[40:], size)
	return b
}

// nfit is a table of structures, with one of another type before them.
func nfit(parts ...[]byte) []byte {
	b := append(make([]byte, 40), 1, 0, 8, 0, 0, 0, 0, 0)
	copy(b, "NFIT")
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// ofQEMU is the table that QEMU 7.2 made for a guest of 128 MiB with 8 MiB of shared
// memory, as its sysfs had it.
func ofQEMU(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/qemu-7.2.nfit")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseNFIT(t *testing.T) {
	base, size, err := shm.ParseNFIT(nfit(spa(4<<30, 32<<20)))
	if base != 4<<30 || size != 32<<20 || err != nil {
		t.Errorf("%#x, %d, %v", base, size, err)
	}
	base, size, err = shm.ParseNFIT(ofQEMU(t))
	if base != 4<<30 || size != 8<<20 || err != nil {
		t.Errorf("QEMU's: %#x, %d, %v", base, size, err)
	}
	other := spa(4<<30, 32<<20)
	other[16]++
	short := nfit(spa(4<<30, 32<<20))
	for name, b := range map[string][]byte{
		"nothing":         nil,
		"another table":   append([]byte("SRAT"), make([]byte, 100)...),
		"no range":        nfit(),
		"another type":    nfit(other),
		"two ranges":      nfit(spa(4<<30, 32<<20), spa(5<<30, 32<<20)),
		"too small":       nfit(spa(4<<30, 1<<20)),
		"too large":       nfit(spa(4<<30, 1<<62)),
		"not in pages":    nfit(spa(4<<30+1, 32<<20)),
		"not whole slots": nfit(spa(4<<30, 32<<20+4096)),
		"out of reach":    nfit(spa(1<<63, 32<<20)),
		"cut short":       short[:len(short)-1],
		"length 0":        append(nfit(), 0, 0, 0, 0),
	} {
		if base, size, err := shm.ParseNFIT(b); !errors.Is(err, shm.ErrRefused) {
			t.Errorf("%s: %#x, %d, %v", name, base, size, err)
		}
	}
}

// A machine without an NVDIMM has no region; one with an NVDIMM of ours has, where the
// table says.
func TestFind(t *testing.T) {
	root := t.TempDir()
	if _, err := shm.Find(root); !errors.Is(err, shm.ErrNone) {
		t.Errorf("%v", err)
	}
	const base = 1 << 32
	tables := filepath.Join(root, "sys/firmware/acpi/tables")
	if err := errors.Join(os.MkdirAll(tables, 0o755), os.Mkdir(filepath.Join(root, "dev"), 0o755),
		os.WriteFile(filepath.Join(tables, "NFIT"), nfit(spa(base, 4*shm.SlotSize)), 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := shm.Find(root); err == nil || errors.Is(err, shm.ErrNone) {
		t.Errorf("without /dev/mem: %v", err)
	}
	mem, err := os.Create(filepath.Join(root, "dev/mem"))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	if err := mem.Truncate(base + 4*shm.SlotSize); err != nil {
		t.Fatal(err)
	}
	host, err := shm.Create(4 * shm.SlotSize)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	host.Offer(session)
	if _, err := mem.WriteAt(header(t, host), base); err != nil {
		t.Fatal(err)
	}
	r, err := shm.Find(root)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Accept(session); err != nil || r.Size() != 4*shm.SlotSize {
		t.Errorf("%d bytes: %v", r.Size(), err)
	}
}

// FuzzNFIT: whatever the firmware's table says, what is mapped is bounded.
func FuzzNFIT(f *testing.F) {
	f.Add(nfit(spa(4<<30, 32<<20)))
	f.Add(nfit(spa(4<<30, 32<<20), spa(5<<30, 32<<20)))
	f.Add(append(nfit(), 0, 0, 3, 0))
	f.Add(ofQEMU(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		base, size, err := shm.ParseNFIT(b)
		if err == nil && (size < shm.MinSize || size > shm.MaxSize || base > 1<<52) {
			t.Errorf("%d bytes at %#x", size, base)
		}
	})
}
