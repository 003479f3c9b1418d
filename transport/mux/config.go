package mux

import (
	"fmt"
	"log/slog"
	"time"

	"winvm/transport/shm"
)

// ProtocolVersion is the version of the channel's protocol this package speaks.
const ProtocolVersion = 2

// FeatureLane says that a side has the memory of a shared-memory lane.
const FeatureLane = 1 << 0

// minWindow is yamux's initial window, which can't be made smaller, and bulk streams'.
const minWindow = 256 << 10

// Config says how an [Endpoint] works. The zero value of a field is its default.
type Config struct {
	// Logger gets what may interest who looks for a fault. Default: nowhere.
	Logger *slog.Logger

	// Build names this program's build to the peer, in at most 32 bytes of
	// printable ASCII.
	Build string

	// Features is the set of optional features this side has. A session has
	// those that both sides have.
	Features uint64

	// Lane is memory that both sides see, for the use of the session's streams:
	// see package shm. A session has it if both sides do and mean the same.
	Lane *shm.Region

	// MinVersion and MaxVersion are the protocol versions this side speaks.
	// Default: [ProtocolVersion] alone.
	MinVersion, MaxVersion uint16

	// Window is how many bytes of one stream may be on their way or wait to be
	// read; 256 KiB at least. Default: 4 MiB.
	Window uint32

	// Backlog is how many streams of the peer may wait to be taken over by the
	// session, and how many of our own may wait for the peer. Default: 32.
	Backlog int

	// MaxStreams is how many streams opened by the peer there may be at a time.
	// Default: 64.
	MaxStreams int

	// WriteTimeout is how long the link may take no bytes before the session
	// ends. A paused VM takes none, so it is long. Default: 10 minutes.
	WriteTimeout time.Duration

	// CloseTimeout bounds Session.Close, and how long the answer to the peer's
	// close may take. Default: 5 s.
	CloseTimeout time.Duration

	// SYNInterval is the pause after the host's first SYN; it doubles up to
	// SYNIntervalMax. Defaults: 200 ms, 1 s.
	SYNInterval, SYNIntervalMax time.Duration
}

func (c Config) withDefaults() (Config, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Features &^= FeatureLane
	if c.Lane != nil {
		c.Features |= FeatureLane
	}
	if c.MaxVersion == 0 {
		c.MaxVersion = ProtocolVersion
	}
	setDefault(&c.MinVersion, c.MaxVersion)
	setDefault(&c.Window, 4<<20)
	setDefault(&c.Backlog, 32)
	setDefault(&c.MaxStreams, 64)
	setDefault(&c.WriteTimeout, 10*time.Minute)
	setDefault(&c.CloseTimeout, 5*time.Second)
	setDefault(&c.SYNInterval, 200*time.Millisecond)
	setDefault(&c.SYNIntervalMax, time.Second)
	switch {
	case c.Build != cleanBuild(c.Build):
		return c, fmt.Errorf("mux: build %q: want at most %d bytes of printable ASCII", c.Build, buildLen)
	case c.MinVersion > c.MaxVersion:
		return c, fmt.Errorf("mux: versions %d to %d: none", c.MinVersion, c.MaxVersion)
	case c.Window < minWindow || c.Window > 1<<30:
		return c, fmt.Errorf("mux: window of %d bytes: want %d to %d", c.Window, minWindow, 1<<30)
	case c.Backlog < 0 || c.MaxStreams < 0:
		return c, fmt.Errorf("mux: negative Backlog or MaxStreams")
	case c.WriteTimeout < 0 || c.CloseTimeout < 0 || c.SYNInterval < 0 || c.SYNIntervalMax < c.SYNInterval:
		return c, fmt.Errorf("mux: negative time, or SYNIntervalMax below SYNInterval")
	}
	return c, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
