package manifest

import (
	"crypto/sha256"
	"errors"
	"strings"

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

	// NAR is the NAR hash of a store path that Nix vouches for: its files are
	// those that the hash was made of. "" is a path that can only be looked at.
	NAR string
}

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

// seal takes the encoding, whose checks are the decoder's.
func (m *Manifest) seal(encoded []byte) error {
	m.Encoded = encoded
	m.Hash = sha256.Sum256(m.Encoded)
	var err error
	m.Section, err = wire.DecodeSection(m.Encoded)
	return err
}
