package mux

import "winvm/transport/shm"

// openLane makes the shared memory this session's, if both sides have it. The host
// does so before it sends GO: the guest then finds the session's identity in it, or
// refuses what it finds. A session without a lane works all the same.
func (e *Endpoint) openLane(hs *handshake) *shm.Lane {
	if hs.features&FeatureLane == 0 {
		if e.cfg.Lane != nil {
			e.log.Info("no shared memory: the peer has none or doesn't want it; all goes over the channel")
		}
		return nil
	}
	sum := hs.digest("winvm lane")
	id := shm.ID(sum[:len(shm.ID{})])
	if hs.role == roleHost {
		l := e.cfg.Lane.Offer(id)
		if l == nil {
			e.log.Warn("no shared memory: a request of the session before is still at work in it; all goes over the channel")
		}
		return l
	}
	l, err := e.cfg.Lane.Accept(id)
	if err != nil {
		e.log.Warn("no shared memory; all goes over the channel", "err", err)
		return nil
	}
	return l
}

// Lane returns the session's shared memory, nil if it has none.
func (s *Session) Lane() *shm.Lane { return s.lane }

var _ shm.Carrier = (*Stream)(nil)

// Lane returns the shared memory beside the stream: its session's.
func (st *Stream) Lane() *shm.Lane { return st.s.lane }

var _ shm.Carrier = (*Bulk)(nil)

// Lane returns the shared memory beside the stream: its session's.
func (st *Bulk) Lane() *shm.Lane { return st.s.lane }
