package sshexec

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"winvm/transport/agentrpc"
)

func TestExit(t *testing.T) {
	g, _ := connected(t)
	for _, n := range []uint32{0, 1, 7, 127, 254, 255} {
		begin(t, g, agentrpc.ExecStart{Command: fmt.Sprint("exit ", n)}).status(n)
	}
	begin(t, g, agentrpc.ExecStart{Command: "kill -TERM $$; cat"}).fails("ended by signal TERM")
	begin(t, g, agentrpc.ExecStart{Command: "no-such-command-here"}).status(127)
}

func TestOutputApart(t *testing.T) {
	g, _ := connected(t)
	c := begin(t, g, agentrpc.ExecStart{Command: `printf 'out\0\377'; printf 'err' >&2; printf 'put'`})
	c.status(0)
	if c.stdout.String() != "out\x00\xffput" || c.stderr.String() != "err" {
		t.Errorf("stdout %q, stderr %q", &c.stdout, &c.stderr)
	}
}

// No command: the user's shell.
func TestShell(t *testing.T) {
	g, _ := connected(t)
	c := begin(t, g, agentrpc.ExecStart{})
	c.send(agentrpc.FrameStdin, "echo $((6*7))\nexit 9\n")
	c.status(9)
	if c.stdout.String() != "42\n" {
		t.Errorf("stdout %q", &c.stdout)
	}
}

func TestBulkBothWays(t *testing.T) {
	g, _ := connected(t)
	data := make([]byte, 5<<20+1)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	c := begin(t, g, agentrpc.ExecStart{Command: "tee /dev/stderr"})
	var sender sync.WaitGroup
	sender.Go(func() {
		if err := c.conn.Write(agentrpc.FrameStdin, data); err != nil {
			t.Error(err)
		}
		if err := c.conn.Write(agentrpc.FrameStdinEOF, nil); err != nil {
			t.Error(err)
		}
	})
	c.status(0)
	sender.Wait()
	if !bytes.Equal(c.stdout.Bytes(), data) || !bytes.Equal(c.stderr.Bytes(), data) {
		t.Errorf("%d bytes of stdout, %d of stderr, want %d", c.stdout.Len(), c.stderr.Len(), len(data))
	}
}

func TestParallel(t *testing.T) {
	g, _ := connected(t)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			c := begin(t, g, agentrpc.ExecStart{Command: fmt.Sprintf("cat; exit %d", i)})
			c.send(agentrpc.FrameStdin, fmt.Sprint("input ", i))
			c.send(agentrpc.FrameStdinEOF, "")
			c.status(uint32(i))
			if got := c.stdout.String(); got != fmt.Sprint("input ", i) {
				t.Errorf("%d: stdout %q", i, got)
			}
		})
	}
	wg.Wait()
}

func TestTerminal(t *testing.T) {
	g, _ := connected(t)
	c := begin(t, g, agentrpc.ExecStart{
		Command: "echo $TERM; stty size; read x; stty size; read x; cat",
		PTY:     &agentrpc.PTY{Term: "xterm-test", Cols: 100, Rows: 30},
	})
	c.until("30 100")
	if !strings.Contains(c.stdout.String(), "xterm-test") {
		t.Errorf("stdout %q", &c.stdout)
	}
	if err := c.conn.WriteJSON(agentrpc.FrameResize, agentrpc.PTY{Cols: 77, Rows: 11}); err != nil {
		t.Fatal(err)
	}
	c.send(agentrpc.FrameStdin, "\n")
	c.until("11 77")
	c.send(agentrpc.FrameResize, "no JSON") // is ignored
	c.send(agentrpc.FrameKind(77), "")      // likewise
	c.send(agentrpc.FrameStdin, "\necho\n")
	c.until("echo\r\necho\r\n") // typed, and from cat
	c.send(agentrpc.FrameStdin, "\x03")
	exit := c.exit()
	if exit.Status == nil && !strings.Contains(exit.Error, "signal INT") || exit.Status != nil && *exit.Status != 130 {
		t.Errorf("after Ctrl-C: %s", show(exit))
	}
}

func TestPark(t *testing.T) {
	g, _ := connected(t)
	c := begin(t, g, agentrpc.ExecStart{Command: `printf 'ready\r\nmore'; read x; echo got $x; echo err >&2; exit 5`, Park: "runner"})
	if exit := c.exit(); !exit.Parked || exit.Line != "ready" || exit.Status != nil || exit.Error != "" {
		t.Fatalf("%s", show(exit))
	}
	begin(t, g, agentrpc.ExecStart{Command: "echo second; cat", Park: "runner"}).fails(`parked as "runner" already`)
	begin(t, g, agentrpc.ExecStart{Attach: "other"}).fails(`no command is parked as "other"`)
	c = begin(t, g, agentrpc.ExecStart{Attach: "runner"})
	c.send(agentrpc.FrameStdin, "line\n")
	c.status(5)
	if c.stdout.String() != "moregot line\n" || c.stderr.String() != "err\n" {
		t.Errorf("stdout %q, stderr %q", &c.stdout, &c.stderr)
	}
	begin(t, g, agentrpc.ExecStart{Attach: "runner"}).fails("no command is parked")
	// A parked command that has ended meanwhile tells its status.
	c = begin(t, g, agentrpc.ExecStart{Command: "echo ready; exit 6", Park: "short"})
	if exit := c.exit(); !exit.Parked {
		t.Fatalf("%s", show(exit))
	}
	begin(t, g, agentrpc.ExecStart{Attach: "short"}).status(6)
}

func TestParkFails(t *testing.T) {
	g, _ := connected(t)
	begin(t, g, agentrpc.ExecStart{Command: "echo no licence >&2; exit 3", Park: "p"}).fails("no licence")
	begin(t, g, agentrpc.ExecStart{Command: "printf half", Park: "p"}).fails("half")
	begin(t, g, agentrpc.ExecStart{Command: "head -c 10000 /dev/zero | tr '\\0' x; cat", Park: "p"}).fails("more than 4096 bytes")
	c := begin(t, g, agentrpc.ExecStart{Command: "echo ready; cat", Park: "p"})
	if exit := c.exit(); !exit.Parked { // the name is free
		t.Errorf("%s", show(exit))
	}
}

func TestBadStart(t *testing.T) {
	g, _ := connected(t)
	for _, tt := range []struct {
		kind    agentrpc.FrameKind
		payload string
		text    string
	}{
		{agentrpc.FrameStdin, "x", "first frame is of kind 2"},
		{agentrpc.FrameStart, "{", "start frame"},
		{agentrpc.FrameStart, `{"command":1}`, "start frame"},
	} {
		host, controller := net.Pipe()
		c := &command{t: t, conn: agentrpc.NewExecConn(host), served: make(chan struct{})}
		go func() {
			defer close(c.served)
			g.Serve(t.Context(), agentrpc.NewExecConn(controller))
		}()
		c.send(tt.kind, tt.payload)
		c.fails(tt.text)
	}
	// Nothing at all, and a frame that is too long.
	for _, sent := range []string{"", "\x01\xff\xff\xff\xff"} {
		host, controller := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			g.Serve(t.Context(), agentrpc.NewExecConn(controller))
		}()
		_, _ = host.Write([]byte(sent))
		if sent == "" {
			_ = host.Close()
		}
		soon(t, "Serve", func() { <-done })
		_ = host.Close()
	}
}

// The host goes away at every stage: Serve returns, and the command in the guest
// sees the end of its input.
func TestHostHangsUp(t *testing.T) {
	g, _ := connected(t)
	for name, s := range map[string]agentrpc.ExecStart{
		"running": {Command: "touch %[1]s.begun; echo go; cat; touch %[1]s"},
		"parking": {Command: "touch %[1]s.begun; cat; touch %[1]s", Park: "p"},
	} {
		for _, how := range []string{"stream", "session"} {
			t.Run(name+" "+how, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "ended")
				s := s
				s.Command = fmt.Sprintf(s.Command, file)
				c := begin(t, g, s)
				exists := func(path, what string) {
					t.Helper()
					eventually(t, what, func() bool {
						_, err := os.Stat(path)
						return err == nil
					})
				}
				exists(file+".begun", "the command doesn't begin")
				if s.Park == "" {
					c.until("go")
				}
				if how == "stream" {
					_ = c.conn.Close()
				} else {
					c.cancel()
				}
				c.ended()
				exists(file, "the command goes on")
			})
		}
	}
	begin(t, g, agentrpc.ExecStart{Attach: "p"}).fails("no command is parked")
}

// The host goes away while the command takes no input and nobody its output.
func TestHostHangsUpWhileStuck(t *testing.T) {
	g, _ := connected(t)
	c := begin(t, g, agentrpc.ExecStart{Command: "echo go; sleep 2"})
	c.until("go")
	var sender sync.WaitGroup
	sender.Go(func() { _ = c.conn.Write(agentrpc.FrameStdin, make([]byte, 16<<20)) })
	time.Sleep(100 * time.Millisecond)
	c.cancel()
	c.ended()
	sender.Wait()

	c = begin(t, g, agentrpc.ExecStart{Command: "yes"})
	c.until("y")
	_ = c.conn.Close()
	c.ended()

	c = begin(t, g, agentrpc.ExecStart{Command: "yes"})
	c.until("y") // and nobody reads on
	c.cancel()
	c.ended()
	begin(t, g, agentrpc.ExecStart{Command: "exit 2"}).status(2) // the connection lives
}

// A guest that has died without a word holds nobody up.
func TestDeadGuest(t *testing.T) {
	g, s := connected(t)
	running := begin(t, g, agentrpc.ExecStart{Command: "echo go; cat"})
	running.until("go")
	parking := begin(t, g, agentrpc.ExecStart{Command: "cat", Park: "p"})
	eventually(t, "there is no session", func() bool { return g.State().Connected })
	s.relay.stall(true)
	opening := begin(t, g, agentrpc.ExecStart{Command: "true"})
	opening.send(agentrpc.FrameStdin, "input")
	for _, c := range []*command{running, parking, opening} {
		_ = c.conn.Close()
		c.ended()
	}
	after := begin(t, g, agentrpc.ExecStart{Command: "true"})
	after.cancel()
	after.ended()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if r := g.Connect(ctx); !r.Connected {
		t.Errorf("without a word there is nothing to see: %+v", r)
	}
	soon(t, "Close", g.Close)
}

// Close ends what runs, whether the host takes notice or not.
func TestCloseWhileRunning(t *testing.T) {
	g, _ := connected(t)
	quiet := begin(t, g, agentrpc.ExecStart{Command: "echo go; cat"})
	quiet.until("go")
	busy := begin(t, g, agentrpc.ExecStart{Command: "yes"})
	busy.until("y")
	soon(t, "Close", g.Close)
	quiet.ended()
	busy.ended()
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}
