package capture

// A Ring keeps the first bytes of each direction and the last of all, and forgets what
// lies between.
type Ring struct {
	max   int64
	first []*Packet
	heads map[way]int64
	full  map[way]bool
	last  []*Packet
	bytes int64 // in last
}

// packetCost is what a packet takes in memory beside its bytes, about.
const packetCost = 128

// NewRing returns a Ring that keeps about max bytes, and the first 128 KiB of either
// direction.
func NewRing(max int64) *Ring {
	return &Ring{max: max, heads: map[way]int64{}, full: map[way]bool{}}
}

// Add takes a packet, of which it keeps a copy.
func (r *Ring) Add(p *Packet) {
	q := *p
	q.Data = append([]byte(nil), p.Data...)
	k := way{p.Link, p.From}
	n := int64(len(q.Data)) + packetCost
	if !r.full[k] && r.heads[k]+n <= headMax && len(r.heads) < 64 {
		r.heads[k] += n
		r.first = append(r.first, &q)
		return
	}
	r.full[k] = true
	r.last = append(r.last, &q)
	r.bytes += n
	for r.bytes > r.max && len(r.last) > 1 {
		r.bytes -= int64(len(r.last[0].Data)) + packetCost
		r.last[0] = nil
		r.last = r.last[1:]
	}
}

// Packets returns what is kept. A packet that doesn't follow the one before it in its
// direction is marked.
func (r *Ring) Packets() []*Packet {
	out := append(append([]*Packet(nil), r.first...), r.last...)
	next := map[way]int64{}
	for i, p := range out {
		k := way{p.Link, p.From}
		if at, ok := next[k]; ok && at != p.Offset && !p.Missing {
			marked := *p
			marked.Missing = true
			out[i] = &marked
		}
		next[k] = p.Offset + int64(len(p.Data))
	}
	return out
}
