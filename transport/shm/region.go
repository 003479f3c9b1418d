package shm

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A Region is the memory, mapped into this process. Its methods may be called by
// any goroutine.
type Region struct {
	mem  []byte
	file *os.File // host's side only

	mu      sync.Mutex
	current *Lane
	free    []uint32 // slots that a call may take; the last one was used last
	users   int      // handlers at work on a slot (serving side)
	lent    uint64   // how often there was one
	closed  bool
}

// Create makes a region of size bytes, a multiple of SlotSize. Its file can be mapped
// by others, but made neither smaller nor larger.
func Create(size int) (*Region, error) {
	if err := checkSize(size); err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("winvm-lane", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make the shared memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "winvm-lane")
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, errors.Join(fmt.Errorf("shared memory of %d bytes: %w", size, err), f.Close())
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return nil, errors.Join(fmt.Errorf("seal the shared memory: %w", err), f.Close())
	}
	r, err := mapFile(f, 0, size)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r.file = f
	return r, nil
}

// Map maps a region's file a second time, as the other side sees it. It is how
// both sides can be in one process.
func Map(f *os.File) (*Region, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("shared memory: %w", err)
	}
	if err := checkSize(int(st.Size())); err != nil {
		return nil, err
	}
	return mapFile(f, 0, int(st.Size()))
}

func checkSize(size int) error {
	if size < MinSize || size > MaxSize || size%SlotSize != 0 {
		return fmt.Errorf("%w: %d bytes: want %d to %d, in whole MiB", ErrRefused, size, MinSize, MaxSize)
	}
	return nil
}

func mapFile(f *os.File, offset int64, size int) (*Region, error) {
	mem, err := unix.Mmap(int(f.Fd()), offset, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of shared memory from %s: %w", size, f.Name(), err)
	}
	r := &Region{mem: mem}
	for i := r.slots(); i > 0; i-- {
		r.free = append(r.free, uint32(i-1))
	}
	return r, nil
}

// slots is how many there are.
func (r *Region) slots() int { return len(r.mem)/SlotSize - headerSize/SlotSize }

// Size is how many bytes the region has.
func (r *Region) Size() int { return len(r.mem) }

// Lent is how many requests have used a slot so far, on the serving side.
func (r *Region) Lent() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lent
}

// File is the memory's file, to be inherited by QEMU; nil if this side didn't make it.
func (r *Region) File() *os.File { return r.file }

func (r *Region) slot(n uint32, length int) []byte {
	at := headerSize + int(n)*SlotSize
	return r.mem[at : at+length : at+length]
}

// Close unmaps the region. Nothing of it may be in use any more.
func (r *Region) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	err := unix.Munmap(r.mem)
	if r.file != nil {
		err = errors.Join(err, r.file.Close())
	}
	return err
}

// Offer makes the region the lane of a session, on the side that made it, before the
// peer knows of the session. While a handler of a session before is at work on a slot
// there is no lane: nil, and the peer finds none either.
func (r *Region) Offer(id ID) *Lane {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.users > 0 {
		id = ID{}
	}
	if !r.closed {
		putHeader(r.mem[:headerLen], len(r.mem), id)
	}
	if id == (ID{}) {
		return nil
	}
	return r.begin()
}

// Accept makes the region the lane of a session, on the other side, if the peer has
// offered it for this very session.
func (r *Region) Accept(id ID) (*Lane, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, fmt.Errorf("%w: it is closed", ErrRefused)
	}
	var head [headerLen]byte
	copy(head[:], r.mem) // then check: the peer can change it meanwhile
	if err := checkHeader(head[:], len(r.mem), id); err != nil {
		return nil, err
	}
	return r.begin(), nil
}

// begin ends the lane before and takes its slots back. The caller holds mu.
func (r *Region) begin() *Lane {
	if r.current != nil {
		r.free = append(r.free, r.current.lost...)
		r.current.lost = nil
	}
	r.current = &Lane{r: r}
	return r.current
}
