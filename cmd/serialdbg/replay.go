package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"winvm/transport/capture"
	"winvm/transport/fsrpc"
	"winvm/transport/inspect"
)

var replayCommand = &cli.Command{
	Name:      "replay",
	Usage:     "make a capture's requests again, of another host agent, and tell which are answered otherwise",
	ArgsUsage: "CAPTURE SOCKET|DEVICE",
	Description: `The guest's requests of all shares are made one after the other, in the order in which they
were made then, but for attaches. Nodes and handles are those that the host agent gives out now. Contents that
went through shared memory are not in a capture: such writes are made with zeros.
It writes to xchg and outputs what the guest has written: serve a copy.
The exit status is 1 if an answer has another errno, or another length.`,
	Flags:  peerFlags,
	Action: runReplay,
}

// maxReplayed bounds what is kept of a capture.
const maxReplayed = 1 << 30

// A recordedCall is a request of a capture, and what was answered.
type recordedCall struct {
	stream   string
	op       uint16
	body     []byte
	inSlot   int
	answered bool
	errno    uint16
	response []byte
	length   int
}

func runReplay(c *cli.Context) error {
	if c.NArg() != 2 {
		return fmt.Errorf("replay takes two arguments, a CAPTURE and a SOCKET or DEVICE; it was given %d", c.NArg())
	}
	calls, err := recordedCalls(c, c.Args().First())
	if err != nil {
		return err
	}
	if len(calls) == 0 {
		return fmt.Errorf("%s: there are no requests of shares whose names are known in it", c.Args().First())
	}
	p, err := connect(c, c.Args().Get(1))
	if err != nil {
		return err
	}
	defer p.close()
	r := &replayer{peer: p, trees: map[string]*mappedTree{}, stores: map[string]*fsrpc.StoreClient{}, room: make([]byte, fsrpc.MaxFrame)}
	defer r.close()
	made, skipped, differ := 0, 0, 0
	for i, call := range calls {
		what, err := r.call(c.Context, &call)
		switch {
		case errors.Is(err, errSkipped):
			skipped++
			continue
		case err != nil:
			return fmt.Errorf("request %d, %s %s: %w", i+1, call.stream, fsrpc.OpName(call.op), err)
		case what != "":
			differ++
			fmt.Fprintf(c.App.Writer, "%d %s %s: %s\n", i+1, call.stream, fsrpc.OpName(call.op), what)
		}
		made++
	}
	fmt.Fprintf(c.App.Writer, "%d requests made, %d left out, %d answered otherwise\n", made, skipped, differ)
	if differ > 0 {
		return errors.New("not all was answered as it was then")
	}
	return nil
}

// recordedCalls reads the calls of a capture, in the order of the requests.
func recordedCalls(c *cli.Context, name string) ([]recordedCall, error) {
	src, err := open(c.Context, c, name, 0)
	if err != nil {
		return nil, err
	}
	defer src.close()
	type key struct {
		link, epoch, stream, tag uint32
	}
	var calls []recordedCall
	open := map[key]int{}
	total := 0
	d := inspect.NewDecoder(func(e *inspect.Event) {
		if !strings.HasPrefix(e.Stream, fsrpc.StreamName("")) || e.Frame == nil || total > maxReplayed {
			return
		}
		total += len(e.Frame.Body)
		k := key{e.Link, e.Epoch, e.StreamID, e.Tag}
		if e.Kind == inspect.KindRequest {
			open[k] = len(calls)
			calls = append(calls, recordedCall{stream: e.Stream, op: e.Frame.Op, body: bytes.Clone(e.Frame.Body), inSlot: int(e.Frame.InSlot)})
		} else if i, ok := open[k]; ok && calls[i].op == e.Frame.Op {
			delete(open, k)
			calls[i].answered, calls[i].errno, calls[i].length = true, e.Frame.Errno, e.Frame.Length
			calls[i].response = bytes.Clone(e.Frame.Body)
		}
	})
	err = src.each(c.Context, func(p *capture.Packet) error { d.Packet(p); return nil }, func(err error) {
		fmt.Fprintf(c.App.ErrWriter, "serialdbg: %s: %v\n", name, err)
	})
	if err != nil && !errors.Is(err, capture.ErrCut) && !errors.Is(err, capture.ErrDamaged) {
		return nil, err
	}
	if total > maxReplayed {
		return nil, fmt.Errorf("%s: more than %d bytes of requests and responses", name, maxReplayed)
	}
	return calls, nil
}

var errSkipped = errors.New("not made")

type replayer struct {
	peer   *peer
	trees  map[string]*mappedTree
	stores map[string]*fsrpc.StoreClient
	room   []byte
}

func (r *replayer) close() {
	for _, t := range r.trees {
		_ = t.Close()
	}
	for _, s := range r.stores {
		_ = s.Close()
	}
}

// call makes a request again, and tells in what the answer is another.
func (r *replayer) call(ctx context.Context, call *recordedCall) (differs string, err error) {
	share := strings.TrimPrefix(call.stream, fsrpc.StreamName(""))
	name := fsrpc.OpName(call.op)
	if name == "" || name == "attach" || call.inSlot > fsrpc.MaxData {
		return "", errSkipped
	}
	tail := make([]byte, call.inSlot)
	var body []byte
	var t *mappedTree
	if share == fsrpc.ShareStore {
		s := r.stores[share]
		if s == nil {
			if s, err = r.peer.store(ctx); err != nil {
				return "", err
			}
			r.stores[share] = s
		}
		body, err = fsrpc.CarryStore(ctx, s, call.op, call.body, tail, r.room)
	} else {
		if t = r.trees[share]; t == nil {
			client, err := r.peer.tree(ctx, share)
			if err != nil {
				return "", err
			}
			t = newMappedTree(client)
			r.trees[share] = t
		}
		body, err = fsrpc.Carry(ctx, t, call.op, call.body, tail, r.room)
	}
	if errors.Is(err, errUnknownID) {
		return "", errSkipped
	}
	if cerr := r.peer.Err(); cerr != nil {
		return "", cerr
	}
	errno := fsrpc.ToErrno(err)
	if t != nil && err == nil && call.answered && call.errno == 0 {
		if err := t.learn(call.op, call.response, body); err != nil {
			return "", err
		}
	}
	switch {
	case !call.answered:
		return "", nil
	case uint16(errno) != call.errno:
		return fmt.Sprintf("%s now, %s then", errnoText(errno), errnoText(syscall.Errno(call.errno))), nil
	case errno == 0 && len(body) != call.length && !slices.Contains([]string{"readdir", "sections", "metadata"}, name):
		return fmt.Sprintf("%d bytes now, %d then", len(body), call.length), nil
	}
	return "", nil
}

func errnoText(e syscall.Errno) string {
	switch name := unix.ErrnoName(e); {
	case e == 0:
		return "success"
	case name != "":
		return name
	default:
		return fmt.Sprintf("errno %d", e)
	}
}
