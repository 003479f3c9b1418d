package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"winvm/transport/needs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const hello = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "x"}, "capabilities": ["oob"]}}`

func pair(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn := func(fd int) *net.UnixConn {
		f := os.NewFile(uintptr(fd), "socketpair")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c.(*net.UnixConn)
	}
	return conn(fds[0]), conn(fds[1])
}

// fake is QEMU's side. Its script gets each command line and says what to answer.
func fake(t *testing.T, conn *net.UnixConn, script func(command string, out io.Writer)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fmt.Fprintln(conn, hello)
		in := bufio.NewScanner(conn)
		for in.Scan() {
			var c struct{ Execute string }
			if err := json.Unmarshal(in.Bytes(), &c); err != nil {
				t.Errorf("fake QEMU got %q: %v", in.Text(), err)
			}
			if c.Execute == "qmp_capabilities" {
				fmt.Fprintln(conn, `{"return": {}}`)
				continue
			}
			script(c.Execute, conn)
		}
	}()
	t.Cleanup(func() { conn.Close(); <-done })
}

func start(t *testing.T, script func(string, io.Writer)) *Monitor {
	t.Helper()
	ours, theirs := pair(t)
	fake(t, theirs, script)
	m, err := New(t.Context(), ours, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestRunAndErrors(t *testing.T) {
	m := start(t, func(c string, out io.Writer) {
		switch c {
		case "query-status":
			fmt.Fprintln(out, `{"return": {"status": "paused", "running": false}}`)
		case "device_del":
			fmt.Fprintln(out, `{"error": {"class": "DeviceNotFound", "desc": "Device 'x' not found"}}`)
		case "silent":
			fmt.Fprintln(out, `{"error": {"class": "GenericError", "desc": ""}}`)
		default:
			fmt.Fprintln(out, `{"error": {"class": "CommandNotFound", "desc": "The command is not there"}}`)
		}
	})
	if m.Version() != "7.2.22" {
		t.Errorf("version %s", m.Version())
	}
	var status struct{ Status string }
	if err := m.Run(t.Context(), "query-status", nil, &status); err != nil || status.Status != "paused" {
		t.Fatalf("got %+v, %v", status, err)
	}
	err := m.Run(t.Context(), "device_del", map[string]string{"id": "x"}, nil)
	var refused *Error
	if !errors.Is(err, ErrDeviceNotFound) || errors.Is(err, ErrGeneric) || !errors.As(err, &refused) ||
		refused.Desc != "Device 'x' not found" || refused.Command != "device_del" {
		t.Fatalf("got %v", err)
	}
	if err := m.Run(t.Context(), "nonsense", nil, nil); !errors.Is(err, ErrCommandNotFound) {
		t.Fatalf("got %v", err)
	}
	// go-qemu takes an error without a description for success.
	if err := m.Run(t.Context(), "silent", nil, nil); !errors.Is(err, ErrGeneric) {
		t.Fatalf("got %v", err)
	}
	if err := m.Run(t.Context(), "query-status", nil, new(int)); err == nil {
		t.Fatal("a result of the wrong shape was accepted")
	}
}

// Replies and events mixed, of sizes that make go-qemu's buffer wrap: with its own
// parsing of replies this is a data race and, now and then, the wrong answer.
func TestManyRepliesAmongEvents(t *testing.T) {
	n := 0
	m := start(t, func(c string, out io.Writer) {
		n++
		fmt.Fprintf(out, `{"event": "BEFORE", "timestamp": {"seconds": 1, "microseconds": 2}, "data": {"n": %d}}`+"\n"+
			`{"return": {"command": %q, "pad": %q}}`+"\n"+
			`{"event": "AFTER", "timestamp": {"seconds": 1, "microseconds": 2}, "data": {"pad": %q}}`+"\n",
			n, c, strings.Repeat("x", n%1500), strings.Repeat("y", n%700))
	})
	sub := m.Subscribe("BEFORE")
	defer sub.Close()
	_ = m.Subscribe() // nobody reads this one: it must not matter
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				want := fmt.Sprintf("command-%d-%d", g, i)
				var got struct{ Command string }
				if err := m.Run(t.Context(), want, nil, &got); err != nil || got.Command != want {
					t.Errorf("asked %s, got %+v, %v", want, got, err)
				}
				if e := <-sub.C; e.Name != "BEFORE" || e.Time.Unix() != 1 {
					t.Errorf("got event %+v", e)
				}
			}
		})
	}
	wg.Wait()
	if r := m.Recent(); len(r) != recentEvents {
		t.Errorf("%d recent events", len(r))
	}
}

func TestSlowSubscriber(t *testing.T) {
	m := start(t, func(_ string, out io.Writer) {
		for range subscriptions + 10 {
			fmt.Fprintln(out, `{"event": "NOISE"}`)
		}
		fmt.Fprintln(out, `{"event": "MIGRATION", "data": {"status": "completed"}}`)
		fmt.Fprintln(out, `{"return": {}}`)
	})
	slow, quick := m.Subscribe(), m.Subscribe("MIGRATION")
	if err := m.Run(t.Context(), "x", nil, nil); err != nil {
		t.Fatal(err)
	}
	if e := <-quick.C; e.String("status") != "completed" || e.Bool("status") || quick.Dropped() != 0 {
		t.Fatalf("got %+v", e)
	}
	if slow.Dropped() != 11 {
		t.Errorf("dropped %d", slow.Dropped())
	}
	slow.Close()
	slow.Close()
	quick.Close()
	if _, open := <-quick.C; open {
		t.Error("the channel is still open")
	}
}

func TestCancelledCommandKeepsItsPlace(t *testing.T) {
	release := make(chan struct{})
	m := start(t, func(c string, out io.Writer) {
		if c == "slow" {
			<-release
		}
		fmt.Fprintf(out, `{"return": %q}`+"\n", c)
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("Ctrl-C")
	time.AfterFunc(20*time.Millisecond, func() { cancel(why) })
	if err := m.Run(ctx, "slow", nil, nil); !errors.Is(err, why) {
		t.Fatalf("got %v", err)
	}
	if err := m.Run(ctx, "other", nil, nil); !errors.Is(err, why) {
		t.Fatalf("got %v", err)
	}
	close(release)
	var got string
	if err := m.Run(t.Context(), "next", nil, &got); err != nil || got != "next" {
		t.Fatalf("the reply of another command: %q, %v", got, err)
	}
}

func TestEndings(t *testing.T) {
	for name, tc := range map[string]struct {
		answer string
		want   error
	}{
		"hangs up":         {"", ErrClosed},
		"not JSON":         {"bananas\n", ErrProtocol},
		"neither":          {"{}\n", ErrProtocol},
		"array":            {"[1]\n", ErrProtocol},
		"second greeting":  {hello + "\n", ErrProtocol},
		"too long":         {`{"return": "` + strings.Repeat("x", MaxLine) + "\"}\n", ErrProtocol},
		"endless line":     {strings.Repeat("x", 4*MaxLine), ErrProtocol},
		"half a reply":     {`{"return": {`, ErrClosed},
		"two replies":      {"{\"return\": 1}\n{\"return\": 2}\n", ErrProtocol},
		"reply then hangs": {"{\"return\": {}}\n", ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			m := start(t, func(_ string, out io.Writer) {
				io.WriteString(out, tc.answer)
				out.(*net.UnixConn).CloseWrite()
			})
			sub := m.Subscribe()
			err := m.Run(t.Context(), "x", nil, nil)
			replied := name == "two replies" || name == "reply then hangs"
			if replied != (err == nil) || !replied && !errors.Is(err, tc.want) {
				t.Errorf("Run: %v, want %v", err, tc.want)
			}
			select {
			case <-m.Done():
			case <-time.After(5 * time.Second):
				t.Fatal("not done")
			}
			if !errors.Is(m.Err(), tc.want) {
				t.Errorf("Err: %v, want %v", m.Err(), tc.want)
			}
			if _, open := <-sub.C; open {
				t.Error("the subscription is still open")
			}
			if err := m.Run(t.Context(), "y", nil, nil); err == nil {
				t.Error("a command after the end")
			}
			if _, open := <-m.Subscribe().C; open {
				t.Error("a subscription after the end")
			}
		})
	}
}

func TestUnaskedReply(t *testing.T) {
	m := start(t, func(_ string, out io.Writer) {
		fmt.Fprintln(out, `{"return": {}}`)
		fmt.Fprintln(out, `{"return": {"forged": true}}`)
	})
	_ = m.Run(t.Context(), "a", nil, nil)
	<-m.Done()
	if !errors.Is(m.Err(), ErrProtocol) {
		t.Fatal(m.Err())
	}
}

func TestHandshakeFailures(t *testing.T) {
	for name, tc := range map[string]struct {
		say  string
		hang bool
		want string
	}{
		"silence":  {"", true, "deadline"},
		"hangs up": {"", false, "ended"},
		"garbage":  {"SSH-2.0-x\n", true, "broke the protocol"},
		"event":    {"{\"event\": \"STOP\"}\n", true, "wrong time"},
		"no":       {hello + "\n" + `{"error": {"class": "GenericError", "desc": "no"}}` + "\n", true, "no"},
		"silent":   {hello + "\n", true, "deadline"},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := pair(t)
			io.WriteString(theirs, tc.say)
			if !tc.hang {
				theirs.Close()
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			m, err := New(ctx, ours, slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want something with %q", err, tc.want)
			}
			if m != nil {
				m.Close()
			}
		})
	}
}

func TestCloseWithCommandInFlight(t *testing.T) {
	m := start(t, func(string, io.Writer) {})
	errs := make(chan error)
	go func() { errs <- m.Run(context.Background(), "never", nil, nil) }()
	go func() { errs <- m.Run(context.Background(), "waits", nil, nil) }()
	time.Sleep(20 * time.Millisecond)
	m.Close()
	m.Close()
	for range 2 {
		if err := <-errs; !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
}

// A real QEMU: a descriptor goes through, and an event comes back.
func TestRealQEMU(t *testing.T) {
	bin := needs.Tool(t, "qemu-system-x86_64")
	ours, theirs := pair(t)
	end, err := theirs.File()
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	cmd := exec.Command(bin, "-nodefaults", "-no-user-config", "-machine", "none", "-display", "none", "-S",
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control")
	cmd.ExtraFiles = []*os.File{end}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end.Close()
	defer cmd.Wait()
	defer cmd.Process.Kill()

	m, err := New(t.Context(), ours, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.RunWithFile(t.Context(), "add-fd", map[string]int{"fdset-id": 7}, file, nil); err != nil {
		t.Fatal(err)
	}
	file.Close()
	var sets []struct {
		ID int `json:"fdset-id"`
	}
	if err := m.Run(t.Context(), "query-fdsets", nil, &sets); err != nil || len(sets) != 1 || sets[0].ID != 7 {
		t.Fatalf("got %+v, %v", sets, err)
	}
	sub := m.Subscribe("SHUTDOWN")
	if err := m.Run(t.Context(), "quit", nil, nil); err != nil {
		t.Fatal(err)
	}
	if e := <-sub.C; e.String("reason") != "host-qmp-quit" {
		t.Errorf("got %+v", e)
	}
	<-m.Done()
}
