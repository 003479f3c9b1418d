package nixstore

import "sync/atomic"

// Stats tell what a Store was asked for so far.
type Stats struct {
	Metadata int64 `json:"metadata_bytes"` // of sections
	Reads    int64 `json:"reads"`          // of one file each
	Batches  int64 `json:"batches"`        // requests for many small files
	Files    int64 `json:"batch_files"`    // in them
	Bytes    int64 `json:"bytes"`          // of contents
}

type counters struct{ metadata, reads, batches, files, bytes atomic.Int64 }

// Stats tells what the Store was asked for so far.
func (s *Store) Stats() Stats {
	c := &s.stats
	return Stats{
		Metadata: c.metadata.Load(), Reads: c.reads.Load(), Batches: c.batches.Load(),
		Files: c.files.Load(), Bytes: c.bytes.Load(),
	}
}
