package build

import (
	"context"

	"winvm/hostagent/event"
	"winvm/hostagent/pair"
	"winvm/hostagent/queue"
)

// life is what belongs to a run as one among others.
type life struct {
	control *responder    // answers for the run
	ticket  *queue.Ticket // its place in the queue
	isShell bool          // somebody sits in front of it
	logs    string        // where the run's logs are after it; "" = nowhere
}

// takeTurn waits until the run may begin, and says what for.
func (b *build) takeTurn(ctx context.Context) (err error) {
	defer b.Timeline.Begin("queue")()
	staged := false
	b.ticket, err = queue.Take(ctx, queue.Config{
		StateDir: b.StateDir, Jobs: b.Jobs, NoPlace: b.isShell, Memory: pair.MemoryNeed(b.image),
		Tell: func(w queue.Waiting) {
			if !staged {
				b.Report.Stage("queue", "other builds are at work")
				staged = true
			}
			b.Report.Result(event.KindWaiting, w, "%v", w)
		},
	})
	return err
}
