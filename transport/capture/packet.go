package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"winvm/transport/mux"
)

// LinkType is the pcapng link type of captures: DLT_USER0, for private use.
const LinkType = 147

// Version is the version of a packet's header.
const Version = 1

const (
	packetMagic = "wv"
	headerLen   = 16

	flagGuest   = 1 // the guest has written it; else the host
	flagMissing = 2 // bytes before this one are missing
	flagEnd     = 4 // the link has ended; there are no bytes
)

// MaxData is the most bytes of the link in one packet.
const MaxData = 256 << 10

// A Packet is what one read or write of the link has carried.
type Packet struct {
	At      time.Time
	Link    uint32 // which of several links
	From    mux.Side
	Offset  int64 // of the first byte, in all that From has written
	Missing bool  // bytes before this one are not in the capture
	End     bool  // the link has ended
	Data    []byte
}

// Errors of [Reader.Next].
var (
	// ErrForeign says that a file is no capture of this kind.
	ErrForeign = errors.New("not a capture of winvm's channel")
	// ErrVersion says that a capture has been made by another version.
	ErrVersion = errors.New("a capture of another version")
	// ErrDamaged says that something in a capture is not as it was written. Reading
	// goes on behind it.
	ErrDamaged = errors.New("damaged capture")
	// ErrCut says that a capture ends in the middle of a packet.
	ErrCut = errors.New("the capture ends in the middle of a packet")
)

// appendTo encodes the header and the bytes behind b.
func (p *Packet) appendTo(b []byte) []byte {
	var flags byte
	if p.From == mux.SideGuest {
		flags |= flagGuest
	}
	if p.Missing {
		flags |= flagMissing
	}
	if p.End {
		flags |= flagEnd
	}
	b = append(b, packetMagic...)
	b = append(b, Version, flags)
	b = binary.BigEndian.AppendUint32(b, p.Link)
	b = binary.BigEndian.AppendUint64(b, uint64(p.Offset))
	return append(b, p.Data...)
}

// parsePacket is the reverse; Data is b's.
func parsePacket(b []byte) (p Packet, err error) {
	switch {
	case len(b) < headerLen || string(b[:2]) != packetMagic:
		return p, fmt.Errorf("%w: a packet of link type %d that is something else's", ErrForeign, LinkType)
	case b[2] != Version:
		return p, fmt.Errorf("%w: %d, where this program reads %d: use the serialdbg of the release that made it", ErrVersion, b[2], Version)
	}
	p = Packet{
		Link:    binary.BigEndian.Uint32(b[4:]),
		From:    mux.SideHost,
		Offset:  int64(binary.BigEndian.Uint64(b[8:]) &^ (1 << 63)),
		Missing: b[3]&flagMissing != 0,
		End:     b[3]&flagEnd != 0,
		Data:    b[headerLen:],
	}
	if b[3]&flagGuest != 0 {
		p.From = mux.SideGuest
	}
	return p, nil
}
