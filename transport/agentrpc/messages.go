package agentrpc

import "time"

// Version is this protocol's version; both sides must have the same.
const Version = 1

// Names of streams.
const (
	StreamAgent = "agent"
	StreamExec  = "exec"
)

// MaxMessage is the longest JSON body either side takes.
const MaxMessage = 1 << 20

// Operations on the stream "agent". Each comments its request -> its response.
const (
	OpHello   uint16 = iota + 1 // HelloRequest -> HelloResponse
	OpAttach                    // AttachRequest -> AttachResponse
	OpGuest                     // GuestRequest -> GuestResponse
	OpSync                      // nothing -> nothing
	OpQuiesce                   // nothing -> nothing; the session ends next
	OpInfo                      // nothing -> InfoResponse
	OpWatch                     // nothing -> WatchResponse, when there is something to tell
	OpWarm                      // nothing -> WarmResponse
	OpPing                      // nothing -> nothing, when the guest's SSH server has answered
	OpTrack                     // nothing -> nothing; from now on it is noted which files are opened and read
	OpTouched                   // TouchedRequest -> TouchedResponse
)

// OpName is what an operation is called in docs/protocol.md; "" if there is none.
func OpName(op uint16) string {
	names := [...]string{
		OpHello: "hello", OpAttach: "attach", OpGuest: "guest", OpSync: "sync",
		OpQuiesce: "quiesce", OpInfo: "info", OpWatch: "watch", OpWarm: "warm", OpPing: "ping",
		OpTrack: "track", OpTouched: "touched",
	}
	if int(op) >= len(names) {
		return ""
	}
	return names[op]
}

// HelloRequest is the first request.
type HelloRequest struct {
	Version int `json:"version"`
	// Seed is fresh randomness: revived copies of one image all wake up with the
	// same random state.
	Seed []byte `json:"seed"`
}

// SeedSize is the length of HelloRequest.Seed.
const SeedSize = 32

// HelloResponse tells who answers.
type HelloResponse struct {
	Version int    `json:"version"`
	Build   string `json:"build"`
}

// AttachRequest asks the controller agent to open these shares' streams and put
// them behind its mounts in place of the former ones.
type AttachRequest struct {
	Shares []string `json:"shares"`
}

// AttachResponse tells when they are usable, and what it cost.
type AttachResponse struct {
	Took time.Duration `json:"took_ns"`
}

// GuestRequest asks for the SSH connection to the guest: kept if there is one,
// else made. It is answered after Wait at the latest.
type GuestRequest struct {
	Wait time.Duration `json:"wait_ns"`
}

// GuestResponse tells of the connection. State is what was last seen on the way
// to it, for people.
type GuestResponse struct {
	Connected bool   `json:"connected"`
	Local     string `json:"local,omitempty"`
	Remote    string `json:"remote,omitempty"`
	State     string `json:"state"`
}

// WarmResponse tells what of the share nixstore was read into the controller's caches.
type WarmResponse struct {
	Files int           `json:"files"`
	Bytes int64         `json:"bytes"`
	Took  time.Duration `json:"took_ns"`
}

// TouchedRequest asks which files of the store have been touched since OpTrack, from the
// one with this number on: a long list comes in parts. The list is made anew for 0.
type TouchedRequest struct {
	First int `json:"first"`
}

// TouchedResponse is a part of the list; an empty one is the end.
type TouchedResponse struct {
	Files []TouchedFile `json:"files"`
	// Partial is set if there were more than can be noted.
	Partial bool `json:"partial,omitempty"`
}

// A TouchedFile was opened below the store directory; package touched of the controller
// agent says what that means.
type TouchedFile struct {
	Path string `json:"path"`
	Read bool   `json:"read,omitempty"`
}

// MaxTouched and MaxTouchedBytes bound the files that a host agent takes, and what
// their paths have in all.
const (
	MaxTouched      = 1 << 20
	MaxTouchedBytes = 256 << 20
)

// TouchedPart is how many of list, from the first on, fit into a response.
func TouchedPart(list []TouchedFile) int {
	room := MaxMessage / 8 // a byte becomes six at most in JSON
	for i := range list {
		if room -= len(list[i].Path) + 32; room < 0 {
			return i
		}
	}
	return len(list)
}

// WatchResponse tells what went wrong in the controller beside any request: smbd
// or the SSH connection ended.
type WatchResponse struct {
	Failure string `json:"failure"`
}

// InfoResponse is what tests and people look at: the SSH connection and smbd's
// sessions, as smbstatus prints them.
type InfoResponse struct {
	Guest     GuestResponse `json:"guest"`
	SMBStatus string        `json:"smbstatus"`
	SMBPid    int           `json:"smbd_pid"`
	Mounts    string        `json:"mounts"` // /proc/self/mounts
}

// ExecStart is the first frame of an exec stream, from the host. Either Command
// starts one, or Attach names one that was parked before.
type ExecStart struct {
	// Command is what the guest's SSH server gets to run; "" is its shell.
	Command string `json:"command,omitempty"`
	// Park leaves the command running under this name when its first line has
	// come: the stream ends with ExecParked, and a later ExecStart attaches to it.
	Park string `json:"park,omitempty"`
	// Attach takes over a parked command.
	Attach string `json:"attach,omitempty"`
	// PTY asks for a terminal.
	PTY *PTY `json:"pty,omitempty"`
}

// PTY is a terminal's kind and size.
type PTY struct {
	Term string `json:"term"`
	Cols int    `json:"cols"`
	Rows int    `json:"rows"`
}

// ExecExit is the last frame, from the controller.
type ExecExit struct {
	// Status is the SSH exit status, all 32 bits, if there was one.
	Status *uint32 `json:"status,omitempty"`
	// Parked is set if the command was parked; Line is what it said.
	Parked bool   `json:"parked,omitempty"`
	Line   string `json:"line,omitempty"`
	// Error says why there is no status.
	Error string `json:"error,omitempty"`
}

// Config is what the controller agent is started with: a file in its image,
// written by the host agent when the image is made.
type Config struct {
	Port     string      `json:"port"` // name of the virtio-serial port
	StoreDir string      `json:"store_dir"`
	XchgDir  string      `json:"xchg_dir"`
	Samba    SambaConfig `json:"samba"`
	Guest    GuestConfig `json:"guest"`
}

// SambaConfig describes the SMB server.
type SambaConfig struct {
	MinProtocol string `json:"min_protocol"` // SMB3_11, or NT1 for Windows XP
	User        string `json:"user"`         // an account of the controller
	Password    string `json:"password"`
}

// GuestConfig says how to reach the guest.
type GuestConfig struct {
	Addresses  []string `json:"addresses"`
	Port       int      `json:"port"`
	User       string   `json:"user"`
	HostKey    string   `json:"host_key"`    // authorized_keys format
	PrivateKey string   `json:"private_key"` // PEM
}
