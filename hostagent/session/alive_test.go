package session

import (
	"context"
	"errors"
	"testing"
	"time"

	"winvm/transport/agentrpc"
)

// asked is an agent that answers a number of times, and then does what then says.
type asked struct {
	answers int
	then    func(ctx context.Context) error
}

func (a *asked) Guest(ctx context.Context, _ agentrpc.GuestRequest) (agentrpc.GuestResponse, error) {
	if a.answers--; a.answers >= 0 {
		return agentrpc.GuestResponse{}, nil
	}
	return agentrpc.GuestResponse{}, a.then(ctx)
}

func TestAlive(t *testing.T) {
	silent := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	run := func(ctx context.Context, a *asked) (time.Duration, error) {
		begun := time.Now()
		err := alive(ctx, a, time.Millisecond, 50*time.Millisecond)
		return time.Since(begun), err
	}
	if took, err := run(t.Context(), &asked{answers: 3, then: silent}); !errors.Is(err, ErrSilent) || took < 50*time.Millisecond || took > 2*time.Second {
		t.Errorf("silent: %v after %v", err, took)
	}
	if _, err := run(t.Context(), &asked{answers: 3, then: func(context.Context) error { return errors.New("closed") }}); err != nil {
		t.Errorf("the session ends: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if took, err := run(ctx, &asked{answers: 1 << 30, then: silent}); err != nil || took > 2*time.Second {
		t.Errorf("the context ends: %v after %v", err, took)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if took, err := run(ctx, &asked{then: silent}); err != nil || took > 2*time.Second {
		t.Errorf("the context ends while it is silent: %v after %v", err, took)
	}
}
