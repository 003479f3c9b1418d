package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/urfave/cli/v2"

	"winvm/transport/fsrpc"
	"winvm/transport/mux"
	"winvm/transport/rpc"
	"winvm/transport/virtioserial"
)

var benchCommand = &cli.Command{
	Name:      "bench",
	Usage:     "measure what a link carries: the raw port, a yamux stream, a bulk stream, RPC",
	ArgsUsage: "SOCKET|DEVICE",
	Description: `At the other end has to be serialdbg respond: of a socket's, the process that listens there; of a
VM's port, one inside the VM. One after the other, each in both directions.`,
	Flags: append([]cli.Flag{
		&cli.StringFlag{Name: "size", Value: "64M", Usage: "send `SIZE` bytes each time"},
	}, peerFlags...),
	Action: runBench,
}

var respondCommand = &cli.Command{
	Name:        "respond",
	Usage:       "be the other end of serialdbg bench, once",
	ArgsUsage:   "SOCKET|DEVICE",
	Description: `A socket is made at that path and listened on. The side to be is the guest, or what --as says.`,
	Flags:       []cli.Flag{&cli.StringFlag{Name: "as", Value: "guest", Usage: "be the `SIDE` that the other end isn't: host or guest"}},
	Action:      runRespond,
}

// Streams of respond.
const (
	streamHello = "serialdbg/hello" // answered with helloText
	streamTake  = "serialdbg/take"  // reads n u64 and as many bytes, answers with one
	streamGive  = "serialdbg/give"  // reads n u64, answers with as many bytes
	streamCall  = "serialdbg/call"  // RPC: op 1 takes its body, op 2 gives callSize bytes
	streamRaw   = "serialdbg/raw"   // reads n u64; when the session has ended, the link itself: takes n bytes, gives n

	helloText = "serialdbg respond 1\n"
	callSize  = 128 << 10
	maxBench  = 1 << 40
)

func runBench(c *cli.Context) error {
	name, err := oneArg(c, "a SOCKET or DEVICE")
	if err != nil {
		return err
	}
	size, err := parseSize(c.String("size"))
	if err != nil || size < callSize {
		return fmt.Errorf("--size: at least %d bytes (%w)", callSize, err)
	}
	p, err := connect(c, name)
	if err != nil {
		return err
	}
	defer func() { p.close() }()
	ctx := c.Context
	if err := greet(ctx, p); err != nil {
		return err
	}
	tell := func(what string, took time.Duration) {
		fmt.Fprintf(c.App.Writer, "%-6s %8.1f MB/s\n", what, float64(size)/1e6/took.Seconds())
	}
	for _, l := range []struct {
		name string
		open func(context.Context, string) (net.Conn, error)
	}{{"yamux", p.Open}, {"bulk", p.OpenBulk}} {
		for _, way := range []struct{ name, stream string }{{"to", streamTake}, {"from", streamGive}} {
			took, err := transfer(ctx, l.open, way.stream, size)
			if err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			tell(l.name+" "+way.name, took)
		}
	}
	for op, way := range []string{"to", "from"} {
		took, err := calls(ctx, p, uint16(op+1), size)
		if err != nil {
			return fmt.Errorf("rpc: %w", err)
		}
		tell("rpc "+way, took)
	}
	// Last, since the session ends for it.
	to, from, err := rawTransfer(ctx, p, size)
	if err != nil {
		return fmt.Errorf("raw: %w", err)
	}
	tell("raw to", to)
	tell("raw from", from)
	return nil
}

// greet finds out whether respond is there.
func greet(ctx context.Context, p *peer) error {
	conn, err := p.Open(ctx, streamHello)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	text := make([]byte, len(helloText))
	if _, err := io.ReadFull(conn, text); err != nil || string(text) != helloText {
		return fmt.Errorf("the other end (build %q) isn't serialdbg respond: start that there; serialdbg ping measures agents", p.PeerVersion())
	}
	return nil
}

func sizeHead(size int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(size)) }

func transfer(ctx context.Context, open func(context.Context, string) (net.Conn, error), stream string, size int64) (time.Duration, error) {
	conn, err := open(ctx, stream)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	begin := time.Now()
	if _, err := conn.Write(sizeHead(size)); err != nil {
		return 0, err
	}
	if stream == streamTake {
		err = give(conn, size)
		size = 1
	}
	if err == nil {
		err = takeAll(conn, size)
	}
	return time.Since(begin), err
}

func give(w io.Writer, size int64) error {
	block := make([]byte, 1<<20)
	for size > 0 {
		n, err := w.Write(block[:min(size, int64(len(block)))])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

func takeAll(r io.Reader, size int64) error {
	block := make([]byte, 1<<20)
	for size > 0 {
		n, err := r.Read(block[:min(size, int64(len(block)))])
		if err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

func calls(ctx context.Context, p *peer, op uint16, size int64) (time.Duration, error) {
	conn, err := p.OpenBulk(ctx, streamCall)
	if err != nil {
		return 0, err
	}
	client := rpc.NewClient(conn, fsrpc.MaxFrame)
	defer func() { _ = client.Close() }()
	block := make([]byte, callSize)
	begin := time.Now()
	for done := int64(0); done < size; done += callSize {
		body, into := block, []byte(nil)
		if op == 2 {
			body, into = nil, block
		}
		if _, err := client.Call(ctx, op, body, nil, into); err != nil {
			return 0, err
		}
	}
	return time.Since(begin), nil
}

func rawTransfer(ctx context.Context, p *peer, size int64) (to, from time.Duration, err error) {
	conn, err := p.Open(ctx, streamRaw)
	if err != nil {
		return 0, 0, err
	}
	if _, err := conn.Write(sizeHead(size)); err != nil {
		return 0, 0, err
	}
	if err := takeAll(conn, 1); err != nil {
		return 0, 0, err
	}
	if err := p.Shutdown(ctx); err != nil {
		return 0, 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.link.Close() })
	defer stop()
	clearDeadlines(p.link)
	begin := time.Now()
	if err = give(p.link, size); err == nil {
		err = takeAll(p.link, 1)
	}
	if err != nil {
		return 0, 0, err
	}
	to = time.Since(begin)
	begin = time.Now()
	err = takeAll(p.link, size)
	return to, time.Since(begin), err
}

func clearDeadlines(l mux.Link) {
	_ = l.SetReadDeadline(time.Time{})
	_ = l.SetWriteDeadline(time.Time{})
}

func runRespond(c *cli.Context) error {
	name, err := oneArg(c, "a SOCKET or DEVICE")
	if err != nil {
		return err
	}
	self := mux.SideGuest
	switch c.String("as") {
	case "host":
		self = mux.SideHost
	case "guest":
	default:
		return fmt.Errorf("--as %s: there are host and guest", c.String("as"))
	}
	link, err := awaitLink(c.Context, name)
	if err != nil {
		return err
	}
	p, err := begin(c.Context, link, nil, self)
	if err != nil {
		return err
	}
	defer p.close()
	raw := make(chan int64, 1)
	for {
		stream, conn, err := p.Accept(c.Context)
		if err != nil {
			if !errors.Is(p.Err(), mux.ErrClosed) {
				return err
			}
			break
		}
		go func() { // ends with the session at the latest
			defer conn.Close()
			_ = respond(c.Context, stream, conn, raw)
		}()
	}
	select {
	case size := <-raw:
		stop := context.AfterFunc(c.Context, func() { _ = link.Close() })
		defer stop()
		clearDeadlines(link)
		if err := takeAll(link, size); err != nil {
			return err
		}
		return errors.Join(give(link, 1), give(link, size))
	default:
		return nil
	}
}

// awaitLink opens a device, or makes a socket and waits for who connects.
func awaitLink(ctx context.Context, name string) (mux.Link, error) {
	if link, device, err := openLink(name); err == nil && device {
		return link, nil
	} else if err == nil {
		_ = link.Close()
	}
	l, err := virtioserial.Listen(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	conn, err := l.AcceptUnix()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return conn, err
}

// respond does what a stream of bench's wants.
func respond(ctx context.Context, stream string, conn net.Conn, raw chan<- int64) error {
	switch stream {
	case streamHello:
		_, err := io.WriteString(conn, helloText)
		return err
	case streamCall:
		return rpc.Serve(ctx, conn, func(_ context.Context, op uint16, _, _ []byte, resp *rpc.Response) error {
			if op == 2 {
				resp.Grow(callSize)
			}
			return nil
		}, fsrpc.ToErrno, rpc.Limits{MaxRequest: fsrpc.MaxFrame, InFlight: 4}, slog.New(slog.DiscardHandler))
	case streamTake, streamGive, streamRaw:
	default:
		return nil
	}
	head := make([]byte, 8)
	if _, err := io.ReadFull(conn, head); err != nil {
		return err
	}
	size := int64(min(binary.BigEndian.Uint64(head), maxBench))
	switch stream {
	case streamTake:
		if err := takeAll(conn, size); err != nil {
			return err
		}
		return give(conn, 1)
	case streamGive:
		return give(conn, size)
	default:
		select {
		case raw <- size:
		default:
		}
		return give(conn, 1)
	}
}
