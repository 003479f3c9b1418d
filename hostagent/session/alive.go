package session

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"winvm/hostagent/patience"
	"winvm/transport/agentrpc"
)

// An agent answers, if it is alive. It is an *agentrpc.Client but in tests.
type agent interface {
	Guest(ctx context.Context, r agentrpc.GuestRequest) (agentrpc.GuestResponse, error)
	Ping(ctx context.Context) error
}

// What Alive returns wraps one of these.
var (
	ErrSilent      = errors.New("the controller VM does not answer: it hangs, or its agent does")
	ErrGuestSilent = errors.New("the guest does not answer over SSH: it hangs, or its SSH server does")
)

// A question is asked again and again.
type question struct {
	every  time.Duration
	limits patience.Limits
	silent error
}

var (
	// The channel loses nothing, and the agent answers within milliseconds of its CPU time.
	controllerQuestion = question{
		every:  500 * time.Millisecond,
		limits: patience.Limits{Idle: time.Second, Busy: 5 * time.Second, Wall: time.Minute},
		silent: ErrSilent,
	}
	// A lost segment is sent again after 0.2 to 0.3 s, and then after twice that. A guest
	// has other things to do, and a Windows guest's disks make it wait.
	guestQuestion = question{
		every:  time.Second,
		limits: patience.Limits{Idle: 3 * time.Second, Busy: time.Minute, Wall: 5 * time.Minute},
		silent: ErrGuestSilent,
	}
)

// Alive asks the controller agent from time to time whether it is there, and by it the
// guest's SSH server, and returns an error when one of them has not answered: soon if the
// VMs do nothing, later if they do (package patience). It returns nil when ctx or the
// session ends. controller and guest are the processes that run the VMs.
//
// The channel itself has no such limit: a VM that is paused isn't dead. Who knows that it
// should run calls this.
func (s *Session) Alive(ctx context.Context, controller, guest int) error {
	return alive(ctx, s.Agent, controllerQuestion, guestQuestion, controller, guest)
}

func alive(ctx context.Context, a agent, ofController, ofGuest question, controller, guest int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return ofController.ask(ctx, func(ctx context.Context) error {
			_, err := a.Guest(ctx, agentrpc.GuestRequest{})
			return err
		}, controller)
	})
	g.Go(func() error { return ofGuest.ask(ctx, a.Ping, guest, controller) })
	return g.Wait()
}

func (q question) ask(ctx context.Context, ask func(context.Context) error, pids ...int) error {
	ticker := time.NewTicker(q.every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		err := patience.Wait(ctx, q.limits, ask, pids...)
		var late *patience.SilentError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &late):
			return fmt.Errorf("%w: %w", q.silent, late)
		case errors.Is(err, syscall.EOPNOTSUPP):
			return nil // an agent of an image that was suspended before there was this question
		case err != nil:
			return nil // the session or the SSH connection has ended, and says why
		}
	}
}
