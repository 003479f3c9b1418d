package manifest

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"winvm/transport/wire"
)

// A Cache keeps the manifests of store paths that Nix vouches for in a directory of
// files, one for each. Nothing in it is needed, and anything of it can be removed at any
// time: what is missing or damaged is made anew. Several processes can use one
// directory. A nil Cache keeps nothing.
//
// A file is found by store directory, name and NAR hash, so one that was made of other
// files can't be met:
//
//	"WVMANI1\n" | SHA-256 of what follows | storeDir | name | NAR hash | encoding
//
// with strings as package wire has them.
type Cache struct {
	dir   string
	limit int64
	added atomic.Int64 // bytes written since the directory was last looked at
}

// Limits of a cache.
const (
	cacheMagic = "WVMANI1\n"
	cacheLimit = 256 << 20 // bytes of files
	// cacheRoom is how much is written between two looks at all there is.
	cacheRoom = cacheLimit / 8
	// cacheLeast is the smallest manifest that is worth a file.
	cacheLeast = 16
)

// NewCache keeps manifests in a directory, which is made when there is something to
// keep.
func NewCache(dir string) *Cache {
	c := &Cache{dir: dir, limit: cacheLimit}
	c.added.Store(cacheRoom) // look at it once in this process's life
	return c
}

func (c *Cache) path(storeDir, name, nar string) string {
	sum := sha256.Sum256([]byte(storeDir + "\x00" + name + "\x00" + nar))
	return filepath.Join(c.dir, hex.EncodeToString(sum[:16])+".manifest")
}

func cacheHead(storeDir, name, nar string) []byte {
	var e wire.Encoder
	e.String(storeDir)
	e.String(name)
	e.String(nar)
	return e.Bytes()
}

// get returns a manifest that is kept, or nil.
func (c *Cache) get(storeDir, name, nar string) *Manifest {
	if c == nil || nar == "" {
		return nil
	}
	path := c.path(storeDir, name, nar)
	b, err := os.ReadFile(path)
	head := cacheHead(storeDir, name, nar)
	const fixed = len(cacheMagic) + sha256.Size
	if err != nil || len(b) < fixed+len(head) || string(b[:len(cacheMagic)]) != cacheMagic {
		return nil
	}
	sum := sha256.Sum256(b[fixed:])
	if !bytes.Equal(sum[:], b[len(cacheMagic):fixed]) || !bytes.HasPrefix(b[fixed:], head) {
		return nil
	}
	m := &Manifest{Name: name, NAR: nar}
	if m.seal(b[fixed+len(head):]) != nil {
		return nil
	}
	now := time.Now() // the longest unused go first
	_ = os.Chtimes(path, now, now)
	return m
}

// put keeps a manifest, if it is one that stays true. That it can't be kept is
// nobody's trouble.
func (c *Cache) put(storeDir string, m *Manifest) {
	if c == nil || m.NAR == "" || len(m.Skipped) > 0 || m.Section.Len() < cacheLeast {
		return
	}
	head := cacheHead(storeDir, m.Name, m.NAR)
	h := sha256.New()
	h.Write(head)
	h.Write(m.Encoded)
	b := slices.Concat([]byte(cacheMagic), h.Sum(nil), head, m.Encoded)
	if int64(len(b)) > c.limit/4 || os.MkdirAll(c.dir, 0o700) != nil {
		return
	}
	if c.added.Add(int64(len(b))) > cacheRoom {
		c.added.Store(0)
		c.prune(c.limit - c.limit/4)
	}
	f, err := os.CreateTemp(c.dir, ".new-*")
	if err != nil {
		return
	}
	_, err = f.Write(b)
	if err = cmp.Or(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), c.path(storeDir, m.Name, m.NAR))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
}

// leftover is the age at which a file that was never renamed has lost its writer.
const leftover = time.Hour

// prune removes the longest unused files until the others have no more than limit
// bytes.
func (c *Cache) prune(limit int64) {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return
	}
	var files []fs.FileInfo
	var total int64
	for _, e := range entries {
		st, err := e.Info()
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		if filepath.Ext(e.Name()) != ".manifest" {
			if time.Since(st.ModTime()) > leftover {
				_ = os.Remove(filepath.Join(c.dir, e.Name()))
			}
			continue
		}
		files = append(files, st)
		total += st.Size()
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, f := range files {
		if total <= limit {
			return
		}
		_ = os.Remove(filepath.Join(c.dir, f.Name()))
		total -= f.Size()
	}
}
