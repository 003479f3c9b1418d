package patience

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	switch os.Getenv("WINVM_TEST_PATIENCE") {
	case "":
		os.Exit(m.Run())
	case "spin":
		_, _ = os.Stdout.WriteString("\n")
		for i := uint64(1); i != 0; i++ { // for some centuries
		}
	case "sleep":
		_, _ = os.Stdout.WriteString("\n")
		<-time.After(time.Minute)
	}
}

// child is a process that spins or sleeps.
func child(t *testing.T, what string) int {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "WINVM_TEST_PATIENCE="+what)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func never(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func wait(t *testing.T, l Limits, ask func(context.Context) error, pids ...int) (*SilentError, time.Duration) {
	t.Helper()
	begin := time.Now()
	err := Wait(t.Context(), l, ask, pids...)
	var silent *SilentError
	if err != nil && !errors.As(err, &silent) {
		t.Fatal(err)
	}
	t.Logf("%v after %v", err, time.Since(begin))
	return silent, time.Since(begin)
}

func TestIdleProcessIsGivenUp(t *testing.T) {
	e, took := wait(t, Limits{Idle: 500 * time.Millisecond, Wall: time.Minute}, never, child(t, "sleep"))
	if e == nil || took < 500*time.Millisecond || took > 5*time.Second || e.Idle < 500*time.Millisecond {
		t.Errorf("%+v after %v", e, took)
	}
}

// One that runs isn't, before it has had its CPU time.
func TestBusyProcessHasItsTime(t *testing.T) {
	const busy = time.Second
	pid := child(t, "spin")
	e, took := wait(t, Limits{Idle: 300 * time.Millisecond, Busy: busy, Wall: time.Minute}, never, pid)
	if e == nil || took < busy || e.Ran < busy {
		t.Errorf("%+v after %v", e, took)
	}
	e, took = wait(t, Limits{Idle: 300 * time.Millisecond, Wall: busy}, never, pid)
	if e == nil || took < busy {
		t.Errorf("with a limit in all alone: %+v after %v", e, took)
	}
	// So is not who owes the answer, while another that has a hand in it runs.
	e, took = wait(t, Limits{Idle: 300 * time.Millisecond, Wall: busy}, never, child(t, "sleep"), pid)
	if e == nil || took < busy {
		t.Errorf("two: %+v after %v", e, took)
	}
}

func TestAnswers(t *testing.T) {
	pid := child(t, "sleep")
	late := func(err error) func(context.Context) error {
		return func(ctx context.Context) error {
			select {
			case <-time.After(2 * Tick):
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	if e, _ := wait(t, Limits{Idle: time.Minute}, late(nil), pid); e != nil {
		t.Errorf("an answer: %v", e)
	}
	want := errors.New("no")
	if err := Wait(t.Context(), Limits{Idle: time.Minute}, late(want), pid); !errors.Is(err, want) {
		t.Errorf("an error: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), Tick)
	defer cancel()
	if err := Wait(ctx, Limits{}, never, pid); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the context ends: %v", err)
	}
}

// What the looks mean.
func TestCount(t *testing.T) {
	before := sample{ran: time.Second, delayed: time.Second, faults: 5}
	change := func(f func(*sample)) sample {
		s := before
		f(&s)
		return s
	}
	const had = time.Second // of idleness
	for name, tt := range map[string]struct {
		now  sample
		took time.Duration
		want time.Duration
	}{
		"nothing":            {before, Tick, had + Tick},
		"timers":             {change(func(s *sample) { s.ran += Tick / 10 }), Tick, had + Tick},
		"runs":               {change(func(s *sample) { s.ran += Tick / 2 }), Tick, 0},
		"waits for a CPU":    {change(func(s *sample) { s.delayed += Tick }), Tick, 0},
		"has none yet":       {change(func(s *sample) { s.runs = true }), Tick, had},
		"waits for a disk":   {change(func(s *sample) { s.blocked = true }), Tick, 0},
		"reads its memory":   {change(func(s *sample) { s.faults++ }), Tick, 0},
		"looked late":        {before, 3 * Tick, had},
		"nobody looked":      {before, 6 * Tick, 0},
		"a thread has ended": {change(func(s *sample) { s.ran -= time.Second }), Tick, had + Tick},
	} {
		w := watch{last: []sample{before}, idle: had}
		w.count([]sample{tt.now}, tt.took)
		if w.idle != tt.want || w.ran < 0 || w.waited == 0 {
			t.Errorf("%s: idle %v, ran %v, waited %v", name, w.idle, w.ran, w.waited)
		}
		w = watch{last: []sample{before, before}, idle: had}
		w.count([]sample{before, tt.now}, tt.took)
		if w.idle != tt.want {
			t.Errorf("%s, another: idle %v", name, w.idle)
		}
	}
}

func TestLook(t *testing.T) {
	s, err := look(child(t, "spin"))
	if err != nil || s.ran == 0 || !s.runs {
		t.Errorf("spinning: %+v, %v", s, err)
	}
	if _, err := look(1 << 30); err == nil {
		t.Error("of no process")
	}
	for _, bad := range [][2]string{{"", ""}, {"1 (x) S 1", "1 2 3"}, {"1 (a) b) S 1 1 1 1 1 1 1 1 x 1", "1 2 3"}, {"1 (x) S 1 1 1 1 1 1 1 1 7 1", "1"}} {
		if err := new(sample).add([]byte(bad[0]), []byte(bad[1])); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	var good sample
	if err := good.add([]byte("1 (a) b) D 1 1 1 1 1 1 1 1 7 1"), []byte("1 2 3\n")); err != nil || good != (sample{ran: 1, delayed: 2, faults: 7, blocked: true}) {
		t.Errorf("%+v, %v", good, err)
	}
}
