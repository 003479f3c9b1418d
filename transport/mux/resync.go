package mux

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
)

// magic begins every resync record. Its first byte is in it only once, so a scan
// for it never has to go back, and is no type of a session's record.
const magic = "\xf7winvm-resync\r\n\x00"

const (
	// resyncLen is the length of a resync record. The layout is the same in all
	// versions of the protocol, else two versions couldn't tell each other.
	resyncLen = 128

	buildLen = 32

	// padLen is enough zeros to complete any record that was cut in half.
	padLen = maxRecord
)

type kind uint8

const (
	// kindSYN is the host's wish for a new session, with its nonce.
	kindSYN kind = 1 + iota
	// kindACK is the guest's answer, with its nonce and the host's.
	kindACK
	// kindGO is the host's last word: what follows are records of the session.
	kindGO
	// kindREFUSE is the guest's answer if the versions don't fit.
	kindREFUSE
	// kindHELLO says that the guest is there and in no session.
	kindHELLO
)

type role uint8

const (
	roleHost  role = 1
	roleGuest role = 2
)

type nonce [16]byte

func newNonce() (n nonce) {
	_, _ = rand.Read(n[:]) // never fails (crypto/rand)
	return n
}

// resync is a resync record.
type resync struct {
	kind       kind
	role       role
	minVersion uint16
	maxVersion uint16
	features   uint64
	nonce      nonce // the sender's
	echo       nonce // the receiver's, in answers
	build      string
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// append encodes r at the end of b.
func (r *resync) append(b []byte) []byte {
	at := len(b)
	b = append(b, magic...)
	b = append(b, byte(r.kind), byte(r.role))
	b = binary.BigEndian.AppendUint16(b, r.minVersion)
	b = binary.BigEndian.AppendUint16(b, r.maxVersion)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint64(b, r.features)
	b = append(b, r.nonce[:]...)
	b = append(b, r.echo[:]...)
	var build [buildLen]byte
	copy(build[:], r.build)
	b = append(b, build[:]...)
	b = append(b, make([]byte, resyncLen-4-(len(b)-at))...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[at:], castagnoli))
}

var errNoResync = errors.New("no resync record")

// decodeResync decodes the record b begins with. Unknown kinds and bits are the
// caller's to ignore; only what is damaged is an error.
func decodeResync(b []byte) (r resync, err error) {
	if len(b) < resyncLen || string(b[:len(magic)]) != magic {
		return r, errNoResync
	}
	b = b[:resyncLen]
	if crc32.Checksum(b[:resyncLen-4], castagnoli) != binary.BigEndian.Uint32(b[resyncLen-4:]) {
		return r, errNoResync
	}
	r = resync{
		kind:       kind(b[16]),
		role:       role(b[17]),
		minVersion: binary.BigEndian.Uint16(b[18:]),
		maxVersion: binary.BigEndian.Uint16(b[20:]),
		features:   binary.BigEndian.Uint64(b[24:]),
		nonce:      nonce(b[32:48]),
		echo:       nonce(b[48:64]),
		build:      cleanBuild(string(b[64 : 64+buildLen])),
	}
	return r, nil
}

// cleanBuild makes a build name fit to be printed: it comes from the peer.
func cleanBuild(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, s)
	return s[:min(len(s), buildLen)]
}

// nextResync discards what br has up to the next resync record, and takes that.
// skipped is how many bytes were discarded. After an error (a deadline) it can
// be called again and goes on where it was.
//
// It looks at resyncLen bytes at a time. A wrong start, such as a record cut in
// half, makes it wait for at most that many, which the next whole record brings.
func nextResync(br *bufio.Reader) (r resync, skipped int, err error) {
	for {
		b, err := br.Peek(resyncLen)
		if len(b) < resyncLen {
			return r, skipped, err
		}
		drop := bytes.IndexByte(b, magic[0])
		switch {
		case drop < 0:
			drop = len(b)
		case drop == 0:
			if r, err = decodeResync(b); err == nil {
				_, _ = br.Discard(resyncLen)
				return r, skipped, nil
			}
			drop = 1
		}
		_, _ = br.Discard(drop)
		skipped += drop
	}
}

// handshake is what both sides know after a resync.
type handshake struct {
	role        role // our own
	host, guest nonce
	version     uint16
	features    uint64
	peerBuild   string
}

// keys are derived from both nonces, so that a session's are those of no other.
type keys struct {
	epoch     uint32
	hostSeal  uint64 // in the trailers of what the host sends
	guestSeal uint64
}

// digest is a value made of both nonces, for one purpose.
func (h *handshake) digest(purpose string) [sha256.Size]byte {
	return sha256.Sum256(append(append([]byte(purpose+"\x00"), h.host[:]...), h.guest[:]...))
}

func (h *handshake) keys() keys {
	sum := h.digest("winvm session")
	return keys{
		epoch:     binary.BigEndian.Uint32(sum[0:]),
		hostSeal:  binary.BigEndian.Uint64(sum[4:]),
		guestSeal: binary.BigEndian.Uint64(sum[12:]),
	}
}

// owns reports whether r is a late copy of a record that made this session.
func (h *handshake) owns(r *resync) bool {
	switch {
	case h.role == roleHost && r.kind == kindACK:
		return r.role == roleGuest && r.nonce == h.guest && r.echo == h.host
	case h.role == roleGuest && (r.kind == kindSYN || r.kind == kindGO):
		return r.role == roleHost && r.nonce == h.host
	}
	return false
}
