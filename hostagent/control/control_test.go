package control

import (
	"bytes"
	"context"
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
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"winvm/transport/needs"
)

const helperDir, helperServe = "CONTROL_TEST_DIR", "CONTROL_TEST_SERVE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperDir); dir != "" { // another user's process
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if os.Getenv(helperServe) != "" {
			_, err := Serve(dir, &fake{}, discard)
			fmt.Println("serving", err)
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}
		_, err := Ask(ctx, dir)
		fmt.Println(err)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

var discard = slog.New(slog.DiscardHandler)

// fake is a run that is fine.
type fake struct {
	killed func()
	shot   []byte
	err    error
}

func (f *fake) Status() Status {
	return Status{ID: "an-id", Command: []string{"cmd", "/c"}, QEMU: map[string]int{"guest": 7}, PSS: 1 << 40}
}
func (f *fake) Kill()                                      { f.killed() }
func (f *fake) Screenshot(context.Context) ([]byte, error) { return f.shot, f.err }
func (f *fake) Attach(_ context.Context, s io.ReadWriteCloser, begun func() error) error {
	if f.err != nil {
		return f.err
	}
	if err := begun(); err != nil {
		return err
	}
	_, err := io.Copy(s, s)
	return err
}

func short(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func serve(t *testing.T, dir string, f *fake) *Server {
	t.Helper()
	s, err := Serve(dir, f, discard)
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// longDir has a path that no socket address takes.
func longDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40), strings.Repeat("long", 40))
	must(t, os.MkdirAll(dir, 0o700))
	return dir
}

func TestStatus(t *testing.T) {
	for name, dir := range map[string]string{"short": t.TempDir(), "long": longDir(t)} {
		t.Run(name, func(t *testing.T) {
			serve(t, dir, &fake{})
			for range 3 {
				got, err := Ask(short(t), dir)
				if err != nil || got.ID != "an-id" || len(got.Command) != 2 || got.QEMU["guest"] != 7 || got.PSS != 1<<40 {
					t.Errorf("got %+v, %v", got, err)
				}
			}
			if st, err := os.Stat(filepath.Join(dir, SocketName)); err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("the socket: %v, %v", st.Mode(), err)
			}
			// The directory may move.
			moved := dir + "-moved"
			must(t, os.Rename(dir, moved))
			if _, err := Ask(short(t), moved); err != nil {
				t.Error(err)
			}
		})
	}
}

// A kill has ended the run when it returns.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	f := &fake{}
	s := serve(t, dir, f)
	killed := make(chan struct{})
	f.killed = func() { close(killed) }
	var ended atomic.Bool
	go func() {
		<-killed
		ended.Store(true)
		s.Close()
	}()
	if err := Kill(short(t), dir); err != nil || !ended.Load() {
		t.Errorf("%v; ended: %v", err, ended.Load())
	}
	if err := Kill(short(t), dir); !errors.Is(err, ErrGone) {
		t.Errorf("killed again: %v", err)
	}
}

func TestScreenshot(t *testing.T) {
	dir := t.TempDir()
	f := &fake{shot: bytes.Repeat([]byte("png"), 100_000)}
	serve(t, dir, f)
	if got, err := Screenshot(short(t), dir); err != nil || !bytes.Equal(got, f.shot) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	f.err = errors.New("no screen")
	if _, err := Screenshot(short(t), dir); err == nil || !strings.Contains(err.Error(), "no screen") {
		t.Errorf("got %v", err)
	}
	f.err, f.shot = nil, make([]byte, maxScreenshot+1)
	if _, err := Screenshot(short(t), dir); err == nil {
		t.Error("too large, and taken")
	}
}

func TestAttach(t *testing.T) {
	dir := t.TempDir()
	f := &fake{}
	s := serve(t, dir, f)
	c, err := Attach(short(t), dir)
	must(t, err)
	want := bytes.Repeat([]byte("0123456789"), 50_000)
	go func() { _, _ = c.Write(want) }()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what came back is not what was sent: %v", err)
	}
	s.Close() // ends the stream as well
	if n, err := c.Read(got); err == nil {
		t.Errorf("read %d after the end", n)
	}
	_ = c.Close()
	dir = t.TempDir()
	serve(t, dir, &fake{err: errors.New("not kept")})
	if _, err := Attach(short(t), dir); err == nil || err.Error() != "not kept" {
		t.Errorf("got %v", err)
	}
}

// Whatever sits behind a socket, or doesn't: the caller goes on, soon.
func TestHostileServers(t *testing.T) {
	listen := func(backlog int, serve func(net.Conn)) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			must(t, err)
			path := filepath.Join(dir, SocketName)
			must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
			must(t, unix.Listen(fd, backlog))
			f := os.NewFile(uintptr(fd), path)
			l, err := net.FileListener(f)
			must(t, err)
			_ = f.Close()
			var wg sync.WaitGroup
			t.Cleanup(func() { _ = l.Close(); wg.Wait() })
			if serve == nil {
				return
			}
			wg.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					wg.Go(func() { serve(c); _ = c.Close() })
				}
			})
		}
	}
	says := func(text string) func(net.Conn) {
		return func(c net.Conn) { _, _ = io.WriteString(c, text); _, _ = io.Copy(io.Discard, c) }
	}
	for name, c := range map[string]struct {
		make func(t *testing.T, dir string)
		slow bool // ends with the context only
	}{
		"no socket":    {func(*testing.T, string) {}, false},
		"no directory": {func(t *testing.T, dir string) { must(t, os.Remove(dir)) }, false},
		"a file":       {func(t *testing.T, dir string) { must(t, os.WriteFile(filepath.Join(dir, SocketName), nil, 0o600)) }, false},
		"a FIFO":       {func(t *testing.T, dir string) { must(t, unix.Mkfifo(filepath.Join(dir, SocketName), 0o600)) }, false},
		"a link": {func(t *testing.T, dir string) {
			must(t, os.Symlink("/nonexistent", filepath.Join(dir, SocketName)))
		}, false},
		"stale": {func(t *testing.T, dir string) {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, SocketName), Net: "unix"})
			must(t, err)
			l.SetUnlinkOnClose(false)
			must(t, l.Close())
		}, false},
		"silent":         {listen(5, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), true},
		"doesn't accept": {listen(5, nil), true},
		"full queue": {func(t *testing.T, dir string) {
			listen(0, nil)(t, dir)
			for range 3 {
				if c, err := net.Dial("unix", filepath.Join(dir, SocketName)); err == nil {
					t.Cleanup(func() { _ = c.Close() })
				}
			}
		}, false},
		"hangs up":   {listen(5, func(net.Conn) {}), false},
		"garbage":    {listen(5, says("\x00\xff\x7f\n")), false},
		"no status":  {listen(5, says("{}\n")), false},
		"wrong type": {listen(5, says(`{"status":{"pid":"x"}}`+"\n")), false},
		"half":       {listen(5, says(`{"status":`)), true},
		"endless": {listen(5, func(c net.Conn) {
			for block := bytes.Repeat([]byte("x"), 64<<10); ; {
				if _, err := c.Write(block); err != nil {
					return
				}
			}
		}), false},
		"drips": {listen(5, func(c net.Conn) {
			for _, err := c.Write([]byte(" ")); err == nil; _, err = c.Write([]byte(" ")) {
				time.Sleep(5 * time.Millisecond)
			}
		}), true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c.make(t, dir)
			for what, call := range map[string]func(ctx context.Context) error{
				"ask":        func(ctx context.Context) error { _, err := Ask(ctx, dir); return err },
				"screenshot": func(ctx context.Context) error { _, err := Screenshot(ctx, dir); return err },
			} {
				ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
				begun := time.Now()
				err := call(ctx)
				cancel()
				if err == nil {
					t.Errorf("%s: no error", what)
				}
				if took := time.Since(begun); took > time.Second || c.slow != (took >= 100*time.Millisecond) {
					t.Errorf("%s: took %v: %v", what, took, err)
				}
			}
		})
	}
}

// A screenshot that is announced and doesn't come, or is absurd.
func TestHostileScreenshots(t *testing.T) {
	for _, reply := range []string{`{"size":-1}`, `{"size":1000000000000}`, `{"size":100}`} {
		dir := t.TempDir()
		l, err := net.Listen("unix", filepath.Join(dir, SocketName))
		must(t, err)
		go func() {
			c, err := l.Accept()
			if err == nil {
				_, _ = io.WriteString(c, reply+"\nshort")
				_ = c.Close()
			}
		}()
		if _, err := Screenshot(short(t), dir); err == nil {
			t.Errorf("%s: no error", reply)
		}
		_ = l.Close()
	}
}

// A server isn't stopped by clients that say nothing, too much, or nonsense.
func TestHostileClients(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir, &fake{})
	path := filepath.Join(dir, SocketName)
	for _, text := range []string{"", "x", "{\n", `{"op":"none"}` + "\n", strings.Repeat("x", 2*maxRequest)} {
		c, err := net.Dial("unix", path)
		must(t, err)
		_, _ = io.WriteString(c, text)
		defer c.Close()
	}
	if _, err := Ask(short(t), dir); err != nil {
		t.Error(err)
	}
	// More than it takes at a time: those are sent away, and it takes others later.
	var many []net.Conn
	for range 2 * maxConns {
		c, err := net.Dial("unix", path)
		must(t, err)
		many = append(many, c)
	}
	must(t, many[len(many)-1].SetReadDeadline(time.Now().Add(requestLimit/2))) // those before it have until then
	_, err := many[len(many)-1].Read(make([]byte, 1))
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the last one: %v", err)
	}
	for _, c := range many {
		_ = c.Close()
	}
	for begin := time.Now(); ; {
		if _, err = Ask(short(t), dir); err == nil {
			return
		}
		if time.Since(begin) > 5*time.Second {
			t.Fatal(err)
		}
	}
}

// Another user's process is refused, and so is another user's server.
func TestOtherUsers(t *testing.T) {
	needs.Root(t)
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	exe := filepath.Join(t.TempDir(), "test")
	b, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	must(t, os.WriteFile(exe, b, 0o755))
	for dir := exe; dir != "/" && dir != "/tmp"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	helper := func(uid *syscall.SysProcAttr, env ...string) string {
		t.Helper()
		cmd := exec.Command(exe)
		cmd.SysProcAttr, cmd.Env = uid, append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		must(t, err)
		return string(out)
	}

	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	serve(t, dir, &fake{})
	must(t, os.Chmod(dir, 0o755))
	if got := helper(nobody, helperDir+"="+dir); !strings.Contains(got, ErrNotOurs.Error()) {
		t.Errorf("root's socket, nobody asks: %s", got)
	}
	// Open to all, and of one's own by its looks: the server sees who it is.
	must(t, os.Chmod(filepath.Join(dir, SocketName), 0o777))
	must(t, os.Chown(filepath.Join(dir, SocketName), 65534, 65534))
	if got := helper(nobody, helperDir+"="+dir); strings.Contains(got, "<nil>") {
		t.Errorf("a socket that looks like nobody's: %s", got)
	}

	// Root may ask anybody's, but not be asked by a process that took a place.
	theirs := t.TempDir()
	must(t, os.Chown(theirs, 65534, 65534))
	cmd := exec.Command(exe)
	cmd.SysProcAttr, cmd.Env = nobody, append(os.Environ(), helperDir+"="+theirs, helperServe+"=1")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line := make([]byte, 14)
	_, err = io.ReadFull(out, line)
	must(t, err)
	if _, err := Ask(short(t), theirs); err != nil {
		t.Errorf("root asks nobody's: %v (%s)", err, line)
	}
	must(t, os.Chown(filepath.Join(theirs, SocketName), 12345, 12345))
	if _, err := Ask(short(t), theirs); !errors.Is(err, ErrNotOurs) {
		t.Errorf("a server of another user than its socket: %v", err)
	}
	_ = in.Close()
	_ = cmd.Wait()
}
