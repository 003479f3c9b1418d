package manifest

import (
	"crypto/sha256"
	"errors"
	"strings"

	"golang.org/x/sys/unix"

	"winvm/transport/wire"
)

// Errors of Scan; they come wrapped, with the path.
var (
	// ErrChanged: a file came, went or changed its kind while it was looked at.
	ErrChanged = errors.New("changed while it was read: the store must not change during a build")
	// ErrUnreadable: the host agent's user may not read it.
	ErrUnreadable = errors.New("can't be read by the user that runs the host agent")
	// ErrTooLarge: more than one section can hold.
	ErrTooLarge = errors.New("has too many files for one store path")
)

// A Manifest is the metadata of one store path.
type Manifest struct {
	Name    string        // base name of the store path
	Encoded []byte        // wire.Section's encoding
	Hash    [32]byte      // SHA-256 of Encoded
	Section *wire.Section // Encoded, decoded in place
	// Skipped are the paths, below the store path, of files that aren't
	// exported: FIFOs, sockets, devices.
	Skipped []string

	stamps []Stamp // by entry; zero for what isn't a regular file
}

// A Stamp is what tells whether a regular file is still the same.
type Stamp struct {
	Size         int64
	Mtime, Ctime int64 // ns
	Ino          uint64
}

// StampOf takes the stamp from a file's attributes.
func StampOf(st *unix.Stat_t) Stamp {
	return Stamp{Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(), Ino: st.Ino}
}

// Stamp returns the stamp of an entry, which must be a regular file's.
func (m *Manifest) Stamp(entry uint32) Stamp { return m.stamps[entry] }

// Path returns the path of an entry, below the store directory.
func (m *Manifest) Path(entry uint32) string {
	var parts []string
	for ; entry != 0; entry = m.Section.Entry(entry).Parent {
		parts = append(parts, m.Section.Name(entry))
	}
	var b strings.Builder
	b.WriteString(m.Name)
	for i := len(parts) - 1; i >= 0; i-- {
		b.WriteByte('/')
		b.WriteString(parts[i])
	}
	return b.String()
}

func (m *Manifest) seal(b *wire.SectionBuilder) error {
	m.Encoded = b.Encode()
	m.Hash = sha256.Sum256(m.Encoded)
	var err error
	m.Section, err = wire.DecodeSection(m.Encoded)
	return err
}
