package mux

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"winvm/transport/virtioserial"
)

// Link is what sessions run over: a reliable stream of bytes whose peer may be
// replaced by another at any time. A deadline must also break a Read or Write
// that waits already, as those of net.Conn and of virtioserial.Port do.
//
// A Read that fails with virtioserial.ErrPeerGone says that the peer went and
// another may come; any other error ends the link.
type Link interface {
	io.ReadWriteCloser
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// A hostWaiter is a Link that can be slow to notice that a peer has come: bytes of its
// can be read before, and a Write fails with virtioserial.ErrPeerGone. WaitHost returns
// when it has; a write deadline breaks it.
type hostWaiter interface{ WaitHost() error }

var (
	_ hostWaiter = (*virtioserial.Port)(nil)

	_ Link = (*virtioserial.Port)(nil)
	_ Link = (*net.UnixConn)(nil)
)

// The reasons for which sessions end or don't come about.
var (
	// ErrClosed is the end in order, asked for by either side.
	ErrClosed = errors.New("session closed")
	// ErrPeerGone says that the peer closed its end of the link.
	ErrPeerGone = errors.New("the peer is gone")
	// ErrSuperseded says that the peer, or another in its place, began anew.
	ErrSuperseded = errors.New("the peer has begun a new session")
	// ErrEpoch says that a record of another session came.
	ErrEpoch = errors.New("a record of another session")
	// ErrRecord says that something that is no record came.
	ErrRecord = errors.New("garbled record")
	// ErrProtocol says that the peer broke a rule inside an intact record.
	ErrProtocol = errors.New("protocol violation")
	// ErrVersion is a *[VersionError].
	ErrVersion = errors.New("no common protocol version")
	// ErrLink says that the link itself has ended; no session can follow on it.
	ErrLink = errors.New("the link has ended")
	// ErrReset says that the peer refused a stream.
	ErrReset = errors.New("stream refused by the peer")
)

// VersionError says that the two sides have no protocol version in common.
type VersionError struct {
	LocalMin, LocalMax, PeerMin, PeerMax uint16
	LocalBuild, PeerBuild                string
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("mux: %v: this side (build %q) speaks %s, the peer (build %q) %s: "+
		"use agents of one release (make the image anew, or use the host agent it was made with)",
		ErrVersion, e.LocalBuild, versions(e.LocalMin, e.LocalMax), e.PeerBuild, versions(e.PeerMin, e.PeerMax))
}

// Is makes errors.Is(err, ErrVersion) true.
func (e *VersionError) Is(target error) bool { return target == ErrVersion }

func versions(lo, hi uint16) string {
	if lo == hi {
		return fmt.Sprintf("version %d", lo)
	}
	return fmt.Sprintf("versions %d to %d", lo, hi)
}

// peerGone reports whether err means that nobody is at the other end.
func peerGone(err error) bool {
	for _, e := range []error{
		virtioserial.ErrPeerGone, io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe,
		syscall.EPIPE, syscall.ECONNRESET,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// ioError says what an error of the link means to a session.
func ioError(op string, err error) error {
	switch {
	case peerGone(err):
		return fmt.Errorf("%w: %s: %w", ErrPeerGone, op, err)
	case op == "write" && errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the peer took nothing for too long: %s: %w", op, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}
