package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"winvm/transport/agentrpc"
	"winvm/transport/fsrpc"
	"winvm/transport/mux"
	"winvm/transport/rpc"
)

var pingCommand = &cli.Command{
	Name:      "ping",
	Usage:     "measure round trips to an agent: the raw port, yamux, bulk streams, RPC",
	ArgsUsage: "SOCKET|DEVICE",
	Description: `The other end is a host agent (hostagent serve), or the controller agent of a VM whose
port is on a socket, whoever has made it. raw is a resync record and its answer, yamux and
bulk a stream that is opened and refused, rpc a request that does nothing.`,
	Flags: append([]cli.Flag{
		&cli.IntFlag{Name: "count", Aliases: []string{"n"}, Value: 20, Usage: "measure `N` times"},
	}, peerFlags...),
	Action: runPing,
}

// pingStream is a stream that no agent knows.
const pingStream = "serialdbg/ping"

// unknownOp is an operation that no agent knows.
const unknownOp = 0xffff

func runPing(c *cli.Context) error {
	name, err := oneArg(c, "a SOCKET or DEVICE")
	if err != nil {
		return err
	}
	n := c.Int("count")
	if n <= 0 || n > 1e6 {
		return errors.New("--count must be 1 to 1000000")
	}
	p, err := connect(c, name)
	if err != nil {
		return err
	}
	defer p.close()
	fmt.Fprintf(c.App.Writer, "the other end is the %v agent, build %q, protocol version %d, epoch %08x\n",
		p.self.Other(), p.PeerVersion(), p.Version(), p.Epoch())
	tell := func(layer string, took []time.Duration) {
		slices.Sort(took)
		if len(took) > 0 {
			fmt.Fprintf(c.App.Writer, "%-6s %5d  min %s  median %s  max %s\n", layer, len(took),
				millis(took[0]), millis(took[len(took)/2]), millis(took[len(took)-1]))
		}
	}
	tell("raw", p.raw)
	for _, l := range []struct {
		name string
		trip func(context.Context) error
	}{
		{"yamux", func(ctx context.Context) error { return refused(p.Open(ctx, pingStream)) }},
		{"bulk", func(ctx context.Context) error { return refused(p.OpenBulk(ctx, pingStream)) }},
	} {
		took, err := measure(c, n, l.trip)
		if err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		tell(l.name, took)
	}
	call, done, err := p.caller(c.Context)
	if err != nil {
		return err
	}
	defer done()
	took, err := measure(c, n, call)
	if err != nil {
		return fmt.Errorf("rpc: %w", err)
	}
	tell("rpc", took)
	return nil
}

func millis(d time.Duration) string {
	return fmt.Sprintf("%.3f ms", float64(d)/float64(time.Millisecond))
}

// measure makes round trips, each of which may take --timeout.
func measure(c *cli.Context, n int, trip func(context.Context) error) ([]time.Duration, error) {
	out := make([]time.Duration, 0, n)
	for range n {
		ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
		begin := time.Now()
		err := trip(ctx)
		took := time.Since(begin)
		cancel()
		if err != nil {
			return nil, err
		}
		out = append(out, took)
	}
	return out, nil
}

// refused waits for the other end to close a stream that it doesn't want.
func refused(conn io.ReadWriteCloser, err error) error {
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if d, ok := conn.(interface{ SetReadDeadline(time.Time) error }); ok {
		_ = d.SetReadDeadline(time.Now().Add(time.Minute))
	}
	_, err = conn.Read(make([]byte, 1))
	if errors.Is(err, io.EOF) || errors.Is(err, mux.ErrReset) {
		return nil
	}
	if err == nil {
		err = errors.New("a stream of an unknown name was answered")
	}
	return err
}

// caller returns a call that does nothing at the other end.
func (p *peer) caller(ctx context.Context) (call func(context.Context) error, done func(), err error) {
	stream, open := agentrpc.StreamAgent, p.Open
	if p.self == mux.SideGuest {
		stream, open = fsrpc.StreamName(fsrpc.ShareXchg), p.OpenBulk
	}
	conn, err := open(ctx, stream)
	if err != nil {
		return nil, nil, err
	}
	client := rpc.NewClient(conn, agentrpc.MaxMessage)
	call = func(ctx context.Context) error {
		_, err := client.Call(ctx, unknownOp, nil, nil, nil)
		// EPROTO: a share wants to be attached to first, which is an answer as well.
		if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.EPROTO) {
			return nil
		}
		if err == nil {
			err = errors.New("an operation that doesn't exist was carried out")
		}
		return err
	}
	if err = call(ctx); err != nil && p.self == mux.SideGuest { // a host agent without xchg
		_ = client.Close()
		if conn, err = p.OpenBulk(ctx, fsrpc.StreamName(fsrpc.ShareStore)); err != nil {
			return nil, nil, err
		}
		client = rpc.NewClient(conn, agentrpc.MaxMessage)
	}
	return call, func() { _ = client.Close() }, nil
}
