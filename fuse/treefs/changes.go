package treefs

import (
	"sync"

	"winvm/transport/fsrpc"
)

// changesLimit is how many changed nodes are remembered one by one.
const changesLimit = 8192

// changes remembers which nodes were changed through this mount, and in which order
// with the listings. The kernel itself ignores attributes that were asked for before a
// change; but those in a listing lie here for a while, and it asks for an old piece anew.
type changes struct {
	mu    sync.Mutex
	now   uint64
	at    map[fsrpc.NodeID]uint64
	floor uint64 // every node may have been changed until then
}

// mark notes, before the kernel is told, that a node was changed.
func (c *changes) mark(n fsrpc.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now++
	if len(c.at) >= changesLimit {
		c.floor = c.now
		clear(c.at)
	}
	if c.at == nil {
		c.at = map[fsrpc.NodeID]uint64{}
	}
	c.at[n] = c.now
}

// clock is the time for since.
func (c *changes) clock() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// since reports whether a node may have been changed after t.
func (c *changes) since(t uint64, n fsrpc.NodeID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return t < c.floor || c.at[n] > t
}
