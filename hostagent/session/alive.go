package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"winvm/transport/agentrpc"
)

// An agent answers, if it is alive. It is an *agentrpc.Client but in tests.
type agent interface {
	Guest(ctx context.Context, r agentrpc.GuestRequest) (agentrpc.GuestResponse, error)
}

// How often the controller agent is asked whether it is there, and how long it may take to
// answer. A busy host under emulation takes seconds.
const (
	askEvery  = 5 * time.Second
	askAtMost = time.Minute
)

// ErrSilent is wrapped by what Alive returns.
var ErrSilent = errors.New("the controller VM does not answer")

// Alive asks the controller agent from time to time whether it is there, and returns an
// error when it has not answered for a minute; nil when ctx or the session ends.
//
// The channel itself has no such limit: a VM that is paused isn't dead. Who knows that it
// should run calls this.
func (s *Session) Alive(ctx context.Context) error { return alive(ctx, s.Agent, askEvery, askAtMost) }

func alive(ctx context.Context, a agent, every, limit time.Duration) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		asking, cancel := context.WithTimeout(ctx, limit)
		_, err := a.Guest(asking, agentrpc.GuestRequest{})
		late := asking.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && late:
			return fmt.Errorf("%w for %v: it hangs, or its agent does", ErrSilent, limit)
		case err != nil:
			return nil // the session has ended, and says why
		}
	}
}
