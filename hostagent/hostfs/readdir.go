package hostfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"

	"golang.org/x/sys/unix"

	"winvm/transport/fsrpc"
)

// listBuf is how much of a directory is read at a time.
const listBuf = 32 << 10

// dirent is one record of getdents64(2).
type dirent struct {
	name string
	ino  uint64
	next int64
	kind uint32 // S_IFMT, 0 if the file system doesn't tell
}

// parseDirent takes one record off buf, which the kernel filled.
func parseDirent(buf []byte) (dirent, []byte) {
	n := int(binary.NativeEndian.Uint16(buf[16:]))
	name := buf[19:n]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	return dirent{
		name: string(name),
		ino:  binary.NativeEndian.Uint64(buf),
		next: int64(binary.NativeEndian.Uint64(buf[8:])),
		kind: uint32(buf[18]) << 12,
	}, buf[n:]
}

func getdents(fd int, buf []byte) ([]byte, error) {
	for {
		n, err := unix.Getdents(fd, buf)
		if err != unix.EINTR {
			return buf[:max(n, 0)], err
		}
	}
}

// Readdir implements fsrpc.Tree.
func (fs *FS) Readdir(ctx context.Context, id fsrpc.HandleID, off uint64, limit int, attrs bool) ([]fsrpc.DirEntry, error) {
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case off > math.MaxInt64 || limit < 0:
		return nil, unix.EINVAL
	}
	h, err := fs.handle(id)
	if err != nil {
		return nil, err
	}
	defer h.mu.RUnlock()
	if !h.dir {
		return nil, unix.ENOTDIR
	}
	h.seek.Lock()
	found, err := fs.list(h, int64(off), min(limit, fsrpc.MaxListing))
	h.seek.Unlock()
	if err != nil {
		return nil, err
	}
	out := make([]fsrpc.DirEntry, len(found))
	for i, d := range found {
		out[i] = fs.entry(h, d, attrs)
	}
	return out, nil
}

// list reads entries from off on, at least one if there is one. h.seek is held.
func (fs *FS) list(h *handle, off int64, limit int) ([]dirent, error) {
	if h.pos != off || off == 0 {
		if _, err := unix.Seek(h.fd, off, unix.SEEK_SET); err != nil {
			return nil, err
		}
	}
	h.pos = -1
	var out []dirent
	buf := make([]byte, max(1024, min(limit, listBuf)))
	for {
		got, err := getdents(h.fd, buf)
		if errors.Is(err, unix.ENOENT) { // the directory was removed
			return out, nil
		}
		if err != nil || len(got) == 0 {
			return out, err
		}
		for len(got) > 0 {
			var d dirent
			d, got = parseDirent(got)
			if fs.hidden(h, d.name) {
				continue
			}
			limit -= fsrpc.EntryOverhead + len(d.name)
			if limit < 0 && len(out) > 0 {
				return out, nil
			}
			out = append(out, d)
			if len(got) == 0 {
				h.pos = d.next
			}
		}
		if limit <= 0 && len(out) > 0 {
			return out, nil
		}
		h.pos = -1
	}
}

// hidden: what a listing leaves out.
func (fs *FS) hidden(h *handle, name string) bool {
	if name == "." || name == ".." || len(name) > fsrpc.MaxName {
		return true
	}
	return fs.names != nil && h.node == fsrpc.RootNode && !fs.names[name]
}

// spare reports whether a listing may take nodes: only half of them, since whoever asks
// for a file by its name can't do without.
func (fs *FS) spare() bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return len(fs.nodes) < (fs.cfg.MaxNodes+1)/2
}

// entry completes a listed name, with a lookup reference if attrs.
func (fs *FS) entry(h *handle, d dirent, attrs bool) fsrpc.DirEntry {
	e := fsrpc.DirEntry{Name: d.name, Next: uint64(d.next), Attr: fsrpc.Attr{Ino: d.ino, Mode: d.kind}}
	if attrs && fs.spare() {
		if _, a, err := fs.find(h.fd, d.name); err == nil {
			e.Attr = a
			return e
		}
		// Gone, another device, or no room for more nodes: the name alone.
	}
	if d.kind == 0 {
		var st unix.Stat_t
		if unix.Fstatat(h.fd, d.name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			e.Attr.Mode = st.Mode & unix.S_IFMT
		}
	}
	return e
}
