//go:build vmsuite

package inside_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime/pprof"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"winvm/fuse/storefs"
	"winvm/fuse/xchgfs"
	"winvm/transport/fsrpc"
	"winvm/transport/mux"
	"winvm/transport/shm"
	"winvm/transport/virtioserial"
)

// What the host's BenchmarkWire asks for, one JSON object a line on a port of its own.
// Bytes of whatever kind go over the other port.
type order struct {
	Op    string
	Bytes int // in all
	Ports int // for raw-read and raw-write
	lanes     // for BenchmarkLane
}

type report struct {
	Err               string             `json:",omitempty"`
	User, System, IRQ int64              // of the CPU, in ms
	Profile           []byte             `json:",omitempty"`
	Kernel            string             `json:",omitempty"` // its profile, for people
	Sum               uint64             // of what was read
	Figures           map[string]float64 `json:",omitempty"` // of BenchmarkSmall
}

const (
	benchArg  = "winvm.do=bench" // on the kernel's command line
	ioArg     = "bench-io"       // the program that reads and writes files
	benchFile = store + "/bench-1/file"
	benchOut  = xchg + "/file"
	piece     = 1 << 20
	depth     = 8 // requests in flight without FUSE
)

func isBench() bool {
	line, _ := os.ReadFile("/proc/cmdline")
	return strings.Contains(string(line), benchArg)
}

// A bench is the guest's side of the benchmarks.
type bench struct {
	ports []*virtioserial.Port
	prof  bytes.Buffer
	sess  *mux.Session
	store *fsrpc.StoreClient
	tree  *fsrpc.TreeClient
	io    *json.Encoder
	ioAck *json.Decoder
	sides [2]side // of BenchmarkLane
}

func serveBench(ctx context.Context) error {
	touchMemory()
	ctl, err := openPort(ctx, "winvm.ctl")
	if err != nil {
		return err
	}
	b := &bench{}
	for _, name := range []string{"winvm.rpc", "winvm.2", "winvm.3", "winvm.4"} {
		p, err := openPort(ctx, name)
		if err != nil {
			return err
		}
		b.ports = append(b.ports, p)
	}
	in, out := json.NewDecoder(bufio.NewReader(ctl)), json.NewEncoder(ctl)
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			return err
		}
		r := report{}
		before := cpuTimes()
		if err := b.do(ctx, o, &r); err != nil {
			r.Err = err.Error()
		}
		after := cpuTimes()
		r.User, r.System, r.IRQ = after[0]-before[0], after[1]-before[1], after[2]-before[2]
		if err := out.Encode(r); err != nil {
			return err
		}
	}
}

// touchMemory makes the guest's memory real, so that no measurement pays for it.
func touchMemory() {
	b, err := unix.Mmap(-1, 0, 300<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return
	}
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	_ = unix.Munmap(b)
}

func openPort(ctx context.Context, name string) (*virtioserial.Port, error) {
	path, err := virtioserial.Wait(ctx, "", name)
	if err != nil {
		return nil, err
	}
	return virtioserial.Open(path)
}

// cpuTimes tells how long the CPU has been in user mode, in the kernel and in
// interrupts, in ms.
func cpuTimes() [3]int64 {
	text, _ := os.ReadFile("/proc/stat")
	var name string
	var user, nice, system, idle, iowait, irq, softirq int64
	_, _ = fmt.Sscan(string(text), &name, &user, &nice, &system, &idle, &iowait, &irq, &softirq)
	return [3]int64{user * 10, system * 10, (irq + softirq) * 10}
}

func (b *bench) do(ctx context.Context, o order, r *report) error {
	switch o.Op {
	case "raw-read":
		return b.raw(o, func(p *virtioserial.Port, n int) error {
			_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(p, int64(n)), make([]byte, 64<<10))
			return err
		})
	case "raw-write":
		return b.raw(o, func(p *virtioserial.Port, n int) error { return writeAll(p, n) })
	case "session":
		return b.session(ctx)
	case "lane":
		return b.lane(ctx, o, r)
	case "rpc-read":
		return b.rpc(ctx, o.Bytes, func(ctx context.Context, off uint64, buf []byte) error {
			n, err := b.store.Read(ctx, 0, 1, off, buf)
			if err == nil && n != len(buf) {
				err = io.ErrUnexpectedEOF
			}
			return err
		})
	case "rpc-write":
		return b.rpcWrite(ctx, o.Bytes)
	case "small":
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
			return err
		}
		return b.files(ctx, o, r)
	case "fuse-read", "fuse-write", "fuse-sum":
		return b.files(ctx, o, r)
	case "cold":
		_ = os.Remove(benchOut)
		return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
	case "profile":
		b.prof.Reset()
		_ = os.WriteFile("/proc/profile", nil, 0) // with profile=2 on the command line
		return pprof.StartCPUProfile(&b.prof)
	case "profiled":
		pprof.StopCPUProfile()
		r.Profile, r.Kernel = b.prof.Bytes(), kernelProfile()
		return nil
	}
	return fmt.Errorf("unknown: %s", o.Op)
}

// raw has f do its part on every port.
func (b *bench) raw(o order, f func(p *virtioserial.Port, n int) error) error {
	var g errgroup.Group
	for _, p := range b.ports[:o.Ports] {
		g.Go(func() error { return f(p, o.Bytes/o.Ports) })
	}
	return g.Wait()
}

func writeAll(w io.Writer, n int) error {
	buf := make([]byte, piece)
	for n > 0 {
		k, err := w.Write(buf[:min(n, len(buf))])
		if n -= k; err != nil {
			return err
		}
	}
	return nil
}

// session begins the one session, attaches and mounts the shares and serves the
// host's streams.
func (b *bench) session(ctx context.Context) error {
	lane, err := shm.Find("")
	if err != nil && !errors.Is(err, shm.ErrNone) {
		return err
	}
	ep, err := mux.NewEndpoint(b.ports[0], mux.Config{Lane: lane})
	if err != nil {
		return err
	}
	if b.sess, err = ep.Accept(ctx); err != nil {
		return err
	}
	go b.streams(ctx)
	conn, err := b.sess.OpenBulk(ctx, fsrpc.StreamName(fsrpc.ShareStore))
	if err != nil {
		return err
	}
	if b.store, err = fsrpc.AttachStore(ctx, conn); err != nil {
		return err
	}
	if conn, err = b.sess.OpenBulk(ctx, fsrpc.StreamName(fsrpc.ShareXchg)); err != nil {
		return err
	}
	if b.tree, err = fsrpc.AttachTree(ctx, conn); err != nil {
		return err
	}
	m, err := storefs.Mount(store, storefs.Config{AllowOther: true})
	if err != nil {
		return err
	}
	if err := m.SetSession(ctx, b.store, nil); err != nil {
		return err
	}
	x, err := xchgfs.Mount(xchg, xchgfs.Config{AllowOther: true})
	if err != nil {
		return err
	}
	x.SetTree(b.tree)
	return nil
}

// streams serves what the host opens: "sink" takes as many bytes as the first eight
// say, "source" sends as many; both end with a byte. "echo" answers what it gets.
func (b *bench) streams(ctx context.Context) {
	for {
		name, conn, err := b.sess.Accept(ctx)
		if err != nil {
			return
		}
		go func() { _ = serveStream(name, conn) }()
	}
}

func serveStream(name string, conn net.Conn) error {
	defer func() { _ = conn.Close() }()
	if name == "echo" {
		_, err := io.Copy(conn, struct{ io.Reader }{conn})
		return err
	}
	buf := make([]byte, piece)
	for {
		if _, err := io.ReadFull(conn, buf[:8]); err != nil {
			return err
		}
		n := int64(binary.BigEndian.Uint64(buf))
		var err error
		if name == "sink" {
			_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(conn, n), buf)
		} else {
			err = writeAll(conn, int(n))
		}
		if err != nil {
			return err
		}
		if _, err := conn.Write([]byte{0}); err != nil {
			return err
		}
	}
}

// rpc calls f for every piece, some at once, each with a buffer used again and again.
func (b *bench) rpc(ctx context.Context, n int, f func(ctx context.Context, off uint64, buf []byte) error) error {
	free := make(chan []byte, depth)
	for range depth {
		free <- make([]byte, piece)
	}
	g, ctx := errgroup.WithContext(ctx)
	for off := 0; off < n; off += piece {
		buf := <-free
		g.Go(func() error {
			defer func() { free <- buf }()
			return f(ctx, uint64(off), buf[:min(piece, n-off)])
		})
	}
	return g.Wait()
}

func (b *bench) rpcWrite(ctx context.Context, n int) error {
	_, h, err := b.tree.Create(ctx, fsrpc.RootNode, "rpc", unix.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	err = b.rpc(ctx, n, func(ctx context.Context, off uint64, buf []byte) error {
		_, err := b.tree.Write(ctx, h, off, buf)
		return err
	})
	return errors.Join(err, b.tree.Release(ctx, h), b.tree.Unlink(ctx, fsrpc.RootNode, "rpc"))
}

// files has another process do it.
func (b *bench) files(ctx context.Context, o order, r *report) error {
	if b.io == nil {
		cmd := exec.CommandContext(ctx, "/proc/self/exe", ioArg)
		cmd.Stderr = os.Stdout
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		b.io, b.ioAck = json.NewEncoder(in), json.NewDecoder(out)
	}
	if err := b.io.Encode(o); err != nil {
		return err
	}
	if err := b.ioAck.Decode(r); err != nil {
		return err
	}
	if r.Err != "" {
		return errors.New(r.Err)
	}
	return nil
}

// serveIO is the other process.
func serveIO() error {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	buf := make([]byte, piece)
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			return err
		}
		r := report{}
		var err error
		if o.Op == "lane" {
			r.Sum, err = o.io(o.Bytes, buf)
		} else if o.Op == "small" {
			r.Figures, err = small()
		} else if o.Op == "fuse-write" {
			err = writeFile(o.Bytes, buf)
		} else {
			r.Sum, err = readFile(o, buf)
		}
		if err != nil {
			r.Err = err.Error()
		}
		if err := out.Encode(r); err != nil {
			return err
		}
	}
}

func readFile(o order, buf []byte) (sum uint64, err error) {
	fd, err := unix.Open(benchFile, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(fd) }()
	for o.Bytes > 0 {
		n, err := unix.Read(fd, buf)
		if err != nil || n == 0 {
			return 0, fmt.Errorf("%d bytes before the end: %w", o.Bytes, err)
		}
		if o.Op == "fuse-sum" {
			sum = addUp(sum, buf[:n])
		}
		o.Bytes -= n
	}
	return sum, nil
}

// addUp is a checksum that is quick under emulation; n is a multiple of 8.
func addUp(sum uint64, b []byte) uint64 {
	for ; len(b) >= 8; b = b[8:] {
		sum = sum*31 + binary.LittleEndian.Uint64(b)
	}
	return sum
}

func writeFile(n int, buf []byte) error {
	fd, err := unix.Open(benchOut, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	for done := 0; done < n; {
		for i := 0; i < len(buf); i += 4096 {
			binary.LittleEndian.PutUint64(buf[i:], uint64(done+i))
		}
		k, err := unix.Write(fd, buf[:min(len(buf), n-done)])
		if err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		done += k
	}
	return unix.Close(fd)
}
