package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// all drives every method of a Reporter once.
func all(r *Reporter) {
	r.Stage("revive", "waking %d VMs", 2)
	r.Tell(KindWaiting, "for the channel")
	r.Tell(KindWarning, "50%% full")
	r.Output("stdout", []byte("out\r\n"))
	r.Result(KindResult, map[string]int{"status": 3}, "it is %d", 3)
	r.Tell(KindFailed, "no luck")
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	before := time.Now()
	all(NewReporter(JSON(&b)))
	var got []Event
	for line := range strings.Lines(b.String()) {
		var e Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		got = append(got, e)
	}
	want := []Event{
		{Kind: "stage", Message: "waking 2 VMs"},
		{Kind: "waiting", Message: "for the channel"},
		{Kind: "warning", Message: "50% full"},
		{Kind: "output", Stream: "stdout", Message: "out\r\n"},
		{Kind: "result", Message: "it is 3"},
		{Kind: "failed", Message: "no luck"},
	}
	if len(got) != len(want) {
		t.Fatalf("%d lines: %s", len(got), &b)
	}
	for i, w := range want {
		g := got[i]
		if g.Kind != w.Kind || g.Message != w.Message || g.Stream != w.Stream || g.Stage != "revive" {
			t.Errorf("line %d: got %+v, want %+v in stage revive", i, g, w)
		}
		if g.Time.Before(before.Add(-time.Second)) || g.Elapsed < 0 || i > 0 && g.Elapsed < got[i-1].Elapsed {
			t.Errorf("line %d: time %v, elapsed %v", i, g.Time, g.Elapsed)
		}
	}
	if data, ok := got[4].Data.(map[string]any); !ok || data["status"] != 3.0 {
		t.Errorf("data %v", got[4].Data)
	}
}

func TestOutputLosesNoByte(t *testing.T) {
	var b bytes.Buffer
	r := NewReporter(JSON(&b))
	want := []byte("a\xff\x00\xc3") // ends in half a character
	p := bytes.Clone(want)
	r.Output("stderr", p)
	copy(p, "xxxx") // the caller's buffer is its own again
	var e struct {
		Message string
		Stream  string
		Data    []byte
	}
	if err := json.Unmarshal(b.Bytes(), &e); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(e.Data, want) || e.Message != "" || e.Stream != "stderr" {
		t.Errorf("got %+v of %s", e, &b)
	}
}

func TestText(t *testing.T) {
	for _, c := range []struct {
		quiet bool
		want  []string
	}{
		{false, []string{"s] revive: waking 2 VMs", "s] revive: for the channel", "hostagent: warning: 50% full"}},
		{true, []string{"hostagent: warning: 50% full"}},
	} {
		var b bytes.Buffer
		all(NewReporter(Text(&b, c.quiet)))
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if len(lines) != len(c.want) {
			t.Fatalf("quiet %v: got %q", c.quiet, lines)
		}
		for i, w := range c.want {
			if !strings.HasSuffix(lines[i], w) {
				t.Errorf("quiet %v: got %q, want %q at the end", c.quiet, lines[i], w)
			}
		}
	}
}

func TestNilReporterDrops(*testing.T) { all(nil) }

// A reader that went away is no reason to fail the work.
func TestSinksIgnoreWriteErrors(*testing.T) {
	all(NewReporter(JSON(brokenPipe{})))
	all(NewReporter(Text(brokenPipe{}, false)))
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }

func TestConcurrentLinesAreWhole(t *testing.T) {
	var b bytes.Buffer // the sink serialises
	r := NewReporter(JSON(&b))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 100 {
				r.Stage(fmt.Sprint(i), "%s", strings.Repeat("x", i*100))
			}
		})
	}
	wg.Wait()
	n := 0
	for line := range strings.Lines(b.String()) {
		if n++; !json.Valid([]byte(line)) {
			t.Fatalf("line %d: %q", n, line)
		}
	}
	if n != 800 {
		t.Errorf("%d lines", n)
	}
}

func TestTimeline(t *testing.T) {
	tl := NewTimeline(time.Now().Add(-time.Second))
	endOuter := tl.Begin("outer")
	endInner := tl.Begin("inner")
	tl.Mark("moment")
	endInner()
	endOuter()
	spans := tl.Spans()
	var names []string
	for _, s := range spans {
		names = append(names, s.Name)
		if s.Start < time.Second || s.Took < 0 {
			t.Errorf("%+v: the timeline begins a second ago", s)
		}
	}
	if strings.Join(names, " ") != "moment inner outer" {
		t.Errorf("order %v, want that of the ends", names)
	}
	if spans[0].Took != 0 || spans[2].Took < spans[1].Took {
		t.Errorf("spans %+v", spans)
	}
	spans[0].Name = "changed"
	if tl.Spans()[0].Name != "moment" {
		t.Error("Spans returned the timeline's own memory")
	}
}

func TestTimelinePrint(t *testing.T) {
	tl := &Timeline{spans: []Span{
		{Name: "revive", Start: 1500 * time.Microsecond, Took: 250 * time.Millisecond},
		{Name: "first output", Start: 2 * time.Second},
	}}
	var b bytes.Buffer
	tl.Print(&b)
	want := "  from ms     to ms        ms\n" +
		"      1.5     251.5     250.0  revive\n" +
		"   2000.0    2000.0       0.0  first output\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", &b, want)
	}
}

func TestNilTimeline(t *testing.T) {
	var tl *Timeline
	tl.Begin("x")()
	tl.Mark("y")
	if s := tl.Spans(); s != nil {
		t.Error(s)
	}
	tl.Print(new(bytes.Buffer))
}

func TestTimelineCurrent(t *testing.T) {
	tl := NewTimeline(time.Now())
	check := func(want string) {
		t.Helper()
		if got := tl.Current(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	check("")
	a := tl.Begin("same")
	b := tl.Begin("same")
	c := tl.Begin("inner")
	check("inner")
	c()
	check("same")
	a() // the outer one first, as with things done side by side
	check("same")
	b()
	check("")
	check((*Timeline)(nil).Current())
}
