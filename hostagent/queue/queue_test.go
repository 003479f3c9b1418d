package queue

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"winvm/hostagent/hostmem"
)

const helperState, helperJobs = "QUEUE_TEST_STATE", "QUEUE_TEST_JOBS"

func TestMain(m *testing.M) {
	if state := os.Getenv(helperState); state != "" {
		var jobs int
		_, _ = fmt.Sscan(os.Getenv(helperJobs), &jobs)
		fmt.Println(help(state, jobs))
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// help is a run: it says when it waits and when it begins, and ends with its input.
func help(state string, jobs int) error {
	t, err := Take(context.Background(), Config{StateDir: state, Jobs: jobs, Memory: 1 << 20, Tell: func(w Waiting) {
		fmt.Println("waits", w.Position)
	}})
	if err != nil {
		return err
	}
	fmt.Println("begins")
	_, _ = io.Copy(io.Discard, os.Stdin)
	return t.Close()
}

// A proc is a run in a process of its own.
type proc struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string // what it says
}

func start(t *testing.T, state string, jobs int) *proc {
	t.Helper()
	p := &proc{t: t, cmd: exec.Command(os.Args[0]), lines: make(chan string, 100)}
	p.cmd.Env = append(os.Environ(), helperState+"="+state, fmt.Sprintf("%s=%d", helperJobs, jobs))
	var err error
	p.stdin, err = p.cmd.StdinPipe()
	must(t, err)
	out, err := p.cmd.StdoutPipe()
	must(t, err)
	must(t, p.cmd.Start())
	go func() {
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() { p.kill() })
	return p
}

func (p *proc) kill() {
	_ = p.cmd.Process.Kill()
	for range p.lines {
	}
	_ = p.cmd.Wait()
}

// says waits until the process says a line.
func (p *proc) says(want string, limit time.Duration) {
	p.t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("ended, and did not say %q", want)
			}
			if line == want {
				return
			}
		case <-timer.C:
			p.t.Fatalf("did not say %q within %v", want, limit)
		}
	}
}

// end has the process end in order.
func (p *proc) end() {
	p.t.Helper()
	_ = p.stdin.Close()
	p.says("<nil>", 5*time.Second)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// soon is how long a waiting run may take to begin when it can: without the kernel
// telling it would be up to a second.
const soon = 800 * time.Millisecond

func left(t *testing.T, state string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(state, "queue", "tickets"))
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Runs begin in the order in which they came, as soon as one has ended.
func TestOrder(t *testing.T) {
	state := t.TempDir()
	first := start(t, state, 1)
	first.says("begins", 5*time.Second)
	procs := []*proc{first}
	for i := range 4 {
		p := start(t, state, 1)
		p.says(fmt.Sprint("waits ", i+1), 5*time.Second)
		procs = append(procs, p)
	}
	for i, p := range procs {
		if i > 0 {
			p.says("begins", soon)
		}
		if n := len(left(t, state)); n != len(procs)-i {
			t.Errorf("%d tickets with %d runs left", n, len(procs)-i)
		}
		p.end()
	}
	if l := left(t, state); len(l) != 0 {
		t.Errorf("left: %v", l)
	}
}

// kill -9 of who has the place, of who is next and of one in the middle.
func TestKilled(t *testing.T) {
	state := t.TempDir()
	var p [6]*proc
	p[0] = start(t, state, 1)
	p[0].says("begins", 5*time.Second)
	for i := 1; i < len(p); i++ {
		p[i] = start(t, state, 1)
		p[i].says(fmt.Sprint("waits ", i), 5*time.Second)
	}
	p[3].kill()
	p[4].says("waits 3", soon) // a place further, and told so
	p[1].kill()
	p[2].says("waits 1", soon)
	p[0].kill()
	p[2].says("begins", soon)
	p[2].kill()
	p[4].says("begins", soon)
	p[4].end()
	p[5].says("begins", soon)
	p[5].end()
	if l := left(t, state); len(l) != 0 {
		t.Errorf("left: %v", l)
	}
}

// Who stands still while it is next is passed, and not forgotten.
func TestStopped(t *testing.T) {
	state := t.TempDir()
	var p [3]*proc
	p[0] = start(t, state, 1)
	p[0].says("begins", 5*time.Second)
	for i := 1; i < len(p); i++ {
		p[i] = start(t, state, 1)
		p[i].says(fmt.Sprint("waits ", i), 5*time.Second)
	}
	must(t, p[1].cmd.Process.Signal(syscall.SIGSTOP))
	p[2].says("waits 1", 2*time.Second) // nobody tells of that: it is looked for
	p[0].end()
	p[2].says("begins", soon)
	must(t, p[1].cmd.Process.Signal(syscall.SIGCONT))
	if n := len(left(t, state)); n != 2 {
		t.Errorf("%d tickets", n)
	}
	p[2].end()
	p[1].says("begins", soon)
	p[1].end()
}

// Many at once, some killed at any moment: never more than may, nobody forgotten.
func TestStorm(t *testing.T) {
	const jobs, runs = 3, 24
	state := t.TempDir()
	var at, most atomic.Int32
	var wg sync.WaitGroup
	var began atomic.Int32
	for i := range runs {
		p := start(t, state, jobs)
		wg.Go(func() {
			killed := i%3 == 2
			if killed && i%2 == 0 { // while it waits, mostly
				time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
				p.kill()
				return
			}
			for line := range p.lines {
				if line != "begins" {
					continue
				}
				began.Add(1)
				now := at.Add(1)
				for {
					m := most.Load()
					if now <= m || most.CompareAndSwap(m, now) {
						break
					}
				}
				time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
				at.Add(-1) // before it gives the place back
				if killed {
					p.kill()
					return
				}
				_ = p.stdin.Close()
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		t.Fatalf("%d have begun, %d are at it, tickets: %v", began.Load(), at.Load(), left(t, state))
	}
	if most.Load() > jobs || began.Load() < runs*2/3 {
		t.Errorf("up to %d at once, %d have begun", most.Load(), began.Load())
	}
	tk, err := Take(t.Context(), Config{StateDir: state, Jobs: 1})
	must(t, err)
	must(t, tk.Close())
	if l := left(t, state); len(l) != 0 {
		t.Errorf("left: %v", l)
	}
}

// mem is a host with this much memory, in MiB, that a test can change.
func mem(total int64, available *atomic.Int64) func() (hostmem.Host, error) {
	return func() (hostmem.Host, error) {
		return hostmem.Host{Total: total << 20, Available: available.Load() << 20}, nil
	}
}

// take takes a ticket in the background.
func take(t *testing.T, c Config) (got chan *Ticket, told chan Waiting, cancel func()) {
	t.Helper()
	got, told = make(chan *Ticket, 1), make(chan Waiting, 10)
	ctx, stop := context.WithCancel(t.Context())
	c.Tell = func(w Waiting) { told <- w }
	done := make(chan struct{})
	go func() {
		defer close(done)
		if tk, err := Take(ctx, c); err == nil {
			got <- tk
		} else if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { stop(); <-done })
	return got, told, func() { stop(); <-done }
}

func next[T any](t *testing.T, what string, c chan T, limit time.Duration) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(limit):
		t.Fatalf("%s: not within %v", what, limit)
	}
	return v
}

func none[T any](t *testing.T, what string, c chan T) {
	t.Helper()
	select {
	case v := <-c:
		t.Fatalf("%s: %v", what, v)
	case <-time.After(50 * time.Millisecond):
	}
}

// Memory is given to one after the other, the worst case of those at work counted;
// what they have taken already is not counted twice.
func TestMemory(t *testing.T) {
	var available, used atomic.Int64
	available.Store(10000)
	c := Config{StateDir: t.TempDir(), Jobs: 10, Memory: 4000 << 20, host: mem(10000, &available), used: func(int) int64 { return used.Load() << 20 }}
	a, err := Take(t.Context(), c)
	must(t, err)
	b, err := Take(t.Context(), c)
	must(t, err)
	got, told, _ := take(t, c)
	if w := next(t, "told", told, soon); !w.Memory || w.Position != 1 || w.Running != 2 || w.Available != 1500<<20 || !strings.Contains(w.String(), "may take 4000 MiB, and 1500 MiB") {
		t.Errorf("told %+v: %v", w, w)
	}
	// A small one behind it doesn't overtake.
	small := c
	small.Memory = 1 << 20
	gotSmall, toldSmall, _ := take(t, small)
	if w := next(t, "told", toldSmall, soon); w.Position != 2 {
		t.Errorf("told %+v", w)
	}
	none(t, "too early", got)
	// Both at work have touched what they may: it is missing from what is available.
	available.Store(2000)
	used.Store(4000)
	none(t, "too early", got)
	must(t, a.Close())
	available.Store(6000)
	third := next(t, "the third", got, soon)
	next(t, "the small one", gotSmall, soon)
	must(t, third.Close())

	// A kept pair takes memory and no place.
	c.Jobs = 1
	must(t, b.Rest(t.Context()))
	used.Store(0)
	available.Store(10000)
	c.StateDir = t.TempDir()
	d, err := Take(t.Context(), c)
	must(t, err)
	gotE, toldE, _ := take(t, c)
	if w := next(t, "told", toldE, soon); w.Memory || w.Running != 1 {
		t.Errorf("told %+v", w)
	}
	must(t, d.Rest(t.Context()))
	e := next(t, "after a rest", gotE, soon)
	must(t, e.Close())
	available.Store(4500)
	_, toldF, cancel := take(t, c)
	if w := next(t, "told", toldF, 2*time.Second); !w.Memory || w.Available != 0 {
		t.Errorf("told %+v", w)
	}
	cancel()
	// A shell waits for no place.
	available.Store(10000)
	c.NoPlace = true
	shell, err := Take(t.Context(), c)
	must(t, err)
	must(t, errors.Join(shell.Close(), d.Close()))
	if l := left(t, c.StateDir); len(l) != 0 {
		t.Errorf("left: %v", l)
	}
}

func TestTooLarge(t *testing.T) {
	var available atomic.Int64
	c := Config{StateDir: t.TempDir(), Jobs: 1, Memory: 9600 << 20, host: mem(10000, &available)}
	if _, err := Take(t.Context(), c); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "9600 MiB") {
		t.Errorf("got %v", err)
	}
}

// Who is interrupted while waiting leaves nothing, and is no obstacle.
func TestCancelled(t *testing.T) {
	c := Config{StateDir: t.TempDir(), Jobs: 1}
	a, err := Take(t.Context(), c)
	must(t, err)
	_, told, cancel := take(t, c)
	next(t, "told", told, soon)
	got, told, _ := take(t, c)
	next(t, "told", told, soon)
	cancel()
	if l := left(t, c.StateDir); len(l) != 2 {
		t.Errorf("left: %v", l)
	}
	must(t, a.Close())
	b := next(t, "the next", got, soon)
	must(t, errors.Join(b.Close(), b.Close()))
}

// The queue's lock is held for a moment only, but by whom may be stopped.
func TestLocked(t *testing.T) {
	c := Config{StateDir: t.TempDir()}
	a, err := Take(t.Context(), c)
	must(t, err)
	unlock, err := a.lock(t.Context())
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Take(ctx, c); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "is locked") {
		t.Errorf("got %v", err)
	}
	unlock()
	must(t, a.Close())
	if l := left(t, c.StateDir); len(l) != 0 {
		t.Errorf("left: %v", l)
	}
}

// What others put there is not a ticket; what a dead process left is none any more.
func TestForeignFiles(t *testing.T) {
	c := Config{StateDir: t.TempDir(), Jobs: 1}
	dir := filepath.Join(c.StateDir, "queue", "tickets")
	must(t, os.MkdirAll(dir, 0o700))
	for _, name := range []string{"README", "000000000007", "000000000009"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("not JSON"), 0o600))
	}
	a, err := Take(t.Context(), c)
	must(t, err)
	if l := left(t, c.StateDir); len(l) != 2 || l[1] != "README" {
		t.Errorf("left: %v", l)
	}
	must(t, a.Close())
}

// usedBy sees the memory of children, which is what VMs are.
func TestUsedBy(t *testing.T) {
	before := usedBy(os.Getpid())
	p := start(t, t.TempDir(), 1)
	p.says("begins", 5*time.Second)
	if after := usedBy(os.Getpid()); after-before < 200<<10 {
		t.Errorf("%d, then %d", before, after)
	}
	p.end()
}

func BenchmarkTake(b *testing.B) {
	c := Config{StateDir: b.TempDir(), Jobs: 2, Memory: 1 << 30}
	for range b.N {
		t, err := Take(b.Context(), c)
		must(b, err)
		must(b, t.Close())
	}
}
