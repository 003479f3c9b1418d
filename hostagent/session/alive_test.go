package session

import (
	"context"
	"errors"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"winvm/hostagent/patience"
	"winvm/transport/agentrpc"
)

// asked is a pair that answers a number of questions, and then does what then says.
type asked struct {
	controller, guest reply
}

type reply struct {
	answers int
	then    func(ctx context.Context) error
}

func (r *reply) answer(ctx context.Context) error {
	if r.answers--; r.answers >= 0 {
		return nil
	}
	return r.then(ctx)
}

func (a *asked) Guest(ctx context.Context, _ agentrpc.GuestRequest) (agentrpc.GuestResponse, error) {
	return agentrpc.GuestResponse{}, a.controller.answer(ctx)
}

func (a *asked) Ping(ctx context.Context) error { return a.guest.answer(ctx) }

// idleProcess is one that does nothing.
func idleProcess(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd.Process.Pid
}

func TestAlive(t *testing.T) {
	const idle = 300 * time.Millisecond
	silent := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	fails := func(err error) func(context.Context) error { return func(context.Context) error { return err } }
	always := reply{answers: 1 << 30}
	pid := idleProcess(t)
	q := question{every: time.Millisecond, limits: patience.Limits{Idle: idle, Wall: time.Minute}}
	ofController, ofGuest := q, q
	ofController.silent, ofGuest.silent = ErrSilent, ErrGuestSilent
	run := func(ctx context.Context, a *asked) (time.Duration, error) {
		begun := time.Now()
		err := alive(ctx, a, ofController, ofGuest, pid, pid)
		return time.Since(begun), err
	}
	for name, tt := range map[string]struct {
		asked
		want error
	}{
		"controller":                             {asked{reply{3, silent}, always}, ErrSilent},
		"guest":                                  {asked{always, reply{3, silent}}, ErrGuestSilent},
		"guest, with an agent that can't ask it": {asked{reply{3, silent}, reply{0, fails(syscall.EOPNOTSUPP)}}, ErrSilent},
		"session ends":                           {asked{reply{0, fails(errors.New("closed"))}, reply{0, fails(errors.New("closed"))}}, nil},
	} {
		took, err := run(t.Context(), &tt.asked)
		if !errors.Is(err, tt.want) || tt.want != nil && took < idle || took > 10*time.Second {
			t.Errorf("%s: %v after %v", name, err, took)
		}
	}
	for name, a := range map[string]asked{"all is well": {always, always}, "while it is silent": {reply{0, silent}, always}} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if took, err := run(ctx, &a); err != nil || took > 5*time.Second {
			t.Errorf("the context ends, %s: %v after %v", name, err, took)
		}
		cancel()
	}
}
