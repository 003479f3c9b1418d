package fsrpc

// The operations by their names in docs/protocol.md.
var Ops = map[string]uint16{
	"attach": opAttach, "lookup": opLookup, "realname": opRealName, "forget": opForget,
	"getattr": opGetattr, "setattr": opSetattr, "readlink": opReadlink, "mkdir": opMkdir,
	"symlink": opSymlink, "link": opLink, "create": opCreate, "unlink": opUnlink,
	"rmdir": opRmdir, "rename": opRename, "open": opOpen, "read": opRead, "write": opWrite,
	"readdir": opReaddir, "fsync": opFsync, "fallocate": opFallocate, "lseek": opLseek,
	"release": opRelease, "statfs": opStatfs, "sync": opSync, "sections": opSections,
	"metadata": opMetadata, "storeread": opStoreRead, "storebatch": opStoreBatch,
}

// GetBatch is the decoder of a batch's response.
var GetBatch = getBatch

// What tests of the limits need to know.
const (
	MaxSectionsPerCall = maxSectionsPerCall
)
