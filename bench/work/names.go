package work

import "encoding/binary"

// What the host and the program in the controller VM call things.
const (
	OpMount   = "mount"   // Arg is the side, Option its variant
	OpUnmount = "unmount" // and drop every cache
	OpRaw     = "raw"     // Arg is one of the Raw operations, Job says how much

	PortControl = "bench.control" // requests and answers
	PortRaw     = "bench.raw"     // the host answers raw messages there
	PortRawLoad = "bench.load"    // and there, for the load
	PortSFTP    = "bench.sftp"    // an sftp-server, when sshfs is mounted
	PortOurs    = "winvm.rpc"

	OptionWire    = "wire"    // of our side: without shared memory
	OptionProfile = "profile" // of our side: its process leaves a CPU profile in xchg
	ProfileFile   = "profile.pprof"

	SideOurs     = "ours"
	SideNinep    = "9p"
	SideVirtiofs = "virtiofs"
	SideSSHFS    = "sshfs"

	TagNinep    = "bench9p"  // of the virtio-9p device
	TagVirtiofs = "benchvfs" // of a vhost-user-fs device, followed by virtiofsd's cache mode

	// MountDir is where a side is mounted; it has the directories store and xchg.
	MountDir = "/tmp/bench"
	// SSHFSDir has sshfs, its libraries, and ld.so to start it with.
	SSHFSDir = "/winvm/sshfs"
)

// Raw operations: the first byte of a message on a raw port.
const (
	RawEcho = "E" // the message comes back
	RawIn   = "S" // so many bytes come
	RawOut  = "D" // so many bytes are taken, then one byte comes
)

// RawMessage is the length of a message on a raw port.
const RawMessage = 64

// RawCommand makes a message.
func RawCommand(op string, n int64) []byte {
	b := make([]byte, RawMessage)
	b[0] = op[0]
	binary.LittleEndian.PutUint64(b[8:], uint64(n))
	return b
}

// ParseRaw is the other direction.
func ParseRaw(b []byte) (op string, n int64) {
	return string(b[:1]), int64(binary.LittleEndian.Uint64(b[8:]))
}
