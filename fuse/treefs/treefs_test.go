package treefs

import (
	"errors"
	"math"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/goleak"

	"winvm/transport/fsrpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTimes(t *testing.T) {
	for _, ns := range []int64{0, 1, 1e9, 999_999_999, -1, -1e9, -1_000_000_001, 1234567890123456789, math.MaxInt64, math.MinInt64 + 3e9} {
		sec, nsec := split(ns)
		if got := join(sec, nsec); nsec > 999_999_999 || got != ns && ns < math.MaxInt64-1e9 {
			t.Errorf("%d: %d s %d ns, back %d", ns, int64(sec), nsec, got)
		}
	}
	for sec, want := range map[int64]int64{math.MaxInt64: math.MaxInt64, math.MinInt64: math.MinInt64, -1 << 40: math.MinInt64} {
		if got := join(uint64(sec), 5); got != want {
			t.Errorf("%d s: %d ns", sec, got)
		}
	}
}

func TestNodeids(t *testing.T) {
	f := New(Config{Tag: 1 << 62})
	defer f.Close()
	seen := map[uint64]bool{}
	for _, epoch := range []uint64{1, 2, epochMask} {
		for _, n := range []fsrpc.NodeID{2, 3, maxNode} {
			id := f.nodeid(&session{epoch: epoch}, n)
			if seen[id] || f.epochOf(id) != epoch || nodeOf(id) != n || id>>62 != 1 {
				t.Errorf("epoch %d node %d: nodeid %#x", epoch, n, id)
			}
			seen[id] = true
		}
		if id := f.nodeid(&session{epoch: epoch}, fsrpc.RootNode); id != fuse.FUSE_ROOT_ID {
			t.Errorf("root is %#x", id)
		}
	}
}

// What the kernel takes for an errno; another would leave the request hanging.
func TestStatus(t *testing.T) {
	for err, want := range map[error]fuse.Status{
		syscall.ENOENT: fuse.ENOENT, syscall.ENOSYS: fuse.ENOTSUP, syscall.Errno(512): fuse.EIO,
		syscall.Errno(1 << 30): fuse.EIO, syscall.Errno(0): fuse.EIO, errors.New("x"): fuse.EIO,
	} {
		if got := Status(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}

func TestSlot(t *testing.T) {
	var s Slot[int]
	one := 1
	if _, st := s.Wait(nil, time.Millisecond); st != fuse.EIO {
		t.Errorf("empty: %v", st)
	}
	cancel := make(chan struct{})
	close(cancel)
	if _, st := s.Wait(cancel, time.Hour); st != fuse.EINTR {
		t.Errorf("cancelled: %v", st)
	}
	wait := func() <-chan fuse.Status {
		got := make(chan fuse.Status, 1)
		go func() {
			_, st := s.Wait(nil, time.Hour)
			got <- st
		}()
		return got
	}
	w := wait()
	s.Swap(&one)
	if st := <-w; !st.Ok() {
		t.Errorf("arrived: %v", st)
	}
	if s.Swap(nil) != &one || s.Now() != nil {
		t.Error("Swap(nil)")
	}
	w = wait()
	s.Close()
	if st := <-w; st != fuse.EIO {
		t.Errorf("closed: %v", st)
	}
	if s.Swap(&one); s.Now() != nil {
		t.Error("a closed slot took something")
	}
}

func TestRealNameReply(t *testing.T) {
	for _, attr := range []string{"", "user.x", realNameAttr} {
		if _, ok := RealNameQuery(attr); ok {
			t.Errorf("%q asks for a name", attr)
		}
	}
	if n, ok := RealNameQuery(realNameAttr + "x"); !ok || n != "x" {
		t.Error("not seen")
	}
	buf := []byte("??????")
	if n, st := RealNameReply("name", buf); n != 5 || !st.Ok() || string(buf[:5]) != "name\x00" {
		t.Errorf("%d %v %q", n, st, buf)
	}
	if n, st := RealNameReply("name", buf[:4]); n != 5 || st != fuse.ERANGE {
		t.Errorf("%d %v", n, st)
	}
}
