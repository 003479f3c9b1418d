// Package outdiff compares two outputs, file by file, and names every difference:
// where it is, of what kind it is, and at which byte it begins.
//
// Compared is what an output is made of: names, kinds, contents, the targets of
// symbolic links, and whether a file is executable. Times and owners are not: the
// guest's clock has moved on by a different moment in every run, and Nix drops them
// as well.
//
// Both trees are a guest's work: nothing in them is followed or executed, what is
// neither file, directory nor symbolic link is not opened, and memory is bounded by
// a directory's names.
package outdiff

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Kinds of a Difference.
const (
	KindMissing    = "missing"    // only the first has it
	KindAdded      = "added"      // only the second has it
	KindType       = "type"       // a file here, a directory there
	KindExecutable = "executable" // the x bit
	KindTarget     = "target"     // of a symbolic link
	KindSize       = "size"       // one is the beginning of the other
	KindContent    = "content"
)

// A Difference is one of two trees.
type Difference struct {
	Path string `json:"path"` // below the output; "." is the output itself
	Kind string `json:"kind"`
	// Offset is the first byte that differs, for content and size.
	Offset *int64 `json:"offset,omitempty"`
	First  string `json:"first,omitempty"` // what the first has, for people
	Second string `json:"second,omitempty"`
}

func (d Difference) String() string {
	text := fmt.Sprintf("%q: ", d.Path)
	switch d.Kind {
	case KindMissing:
		return text + "the second build did not make it"
	case KindAdded:
		return text + "only the second build made it"
	case KindSize:
		return text + fmt.Sprintf("%s then %s: equal up to byte %d", d.First, d.Second, *d.Offset)
	case KindContent:
		return text + fmt.Sprintf("content differs from byte %d on (%s then %s)", *d.Offset, d.First, d.Second)
	}
	return text + fmt.Sprintf("%s: %s then %s", d.Kind, d.First, d.Second)
}

// Compare returns what differs between the outputs at first and second, in the
// order of their paths. It gives up after limit differences, of which there may
// then be more.
func Compare(first, second string, limit int) ([]Difference, error) {
	c := &comparison{roots: [2]string{first, second}, limit: limit}
	err := c.entry(".")
	if errors.Is(err, errEnough) {
		err = nil
	}
	return c.found, err
}

// errEnough ends a comparison that has found its limit.
var errEnough = errors.New("enough differences")

type comparison struct {
	roots [2]string
	limit int
	found []Difference
}

func (c *comparison) path(side int, rel string) string { return filepath.Join(c.roots[side], rel) }

func (c *comparison) add(d Difference) error {
	if c.found = append(c.found, d); len(c.found) >= c.limit {
		return errEnough
	}
	return nil
}

// entry compares one name and all that is below it.
func (c *comparison) entry(rel string) error {
	var info [2]os.FileInfo
	for side := range info {
		var err error
		if info[side], err = os.Lstat(c.path(side, rel)); err != nil {
			return err
		}
	}
	a, b := info[0].Mode(), info[1].Mode()
	if a.Type() != b.Type() {
		return c.add(Difference{Path: rel, Kind: KindType, First: typeName(a), Second: typeName(b)})
	}
	switch {
	case a.IsDir():
		return c.directory(rel)
	case a.Type() == os.ModeSymlink:
		return c.link(rel)
	case a.IsRegular():
		return c.file(rel, info)
	}
	return nil // of the same kind, and nothing more is to be known
}

func typeName(m os.FileMode) string {
	switch {
	case m.IsRegular():
		return "file"
	case m.IsDir():
		return "directory"
	case m.Type() == os.ModeSymlink:
		return "symbolic link"
	}
	return "special file"
}

func (c *comparison) directory(rel string) error {
	var names [2][]string
	for side := range names {
		entries, err := os.ReadDir(c.path(side, rel))
		if err != nil {
			return err
		}
		for _, e := range entries {
			names[side] = append(names[side], e.Name())
		}
		slices.Sort(names[side])
	}
	a, b := names[0], names[1]
	for len(a) > 0 || len(b) > 0 {
		var err error
		switch {
		case len(b) == 0 || len(a) > 0 && a[0] < b[0]:
			err = c.add(Difference{Path: filepath.Join(rel, a[0]), Kind: KindMissing})
			a = a[1:]
		case len(a) == 0 || b[0] < a[0]:
			err = c.add(Difference{Path: filepath.Join(rel, b[0]), Kind: KindAdded})
			b = b[1:]
		default:
			err = c.entry(filepath.Join(rel, a[0]))
			a, b = a[1:], b[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) link(rel string) error {
	var target [2]string
	for side := range target {
		var err error
		if target[side], err = os.Readlink(c.path(side, rel)); err != nil {
			return err
		}
	}
	if target[0] == target[1] {
		return nil
	}
	return c.add(Difference{Path: rel, Kind: KindTarget, First: fmt.Sprintf("%q", target[0]), Second: fmt.Sprintf("%q", target[1])})
}

func (c *comparison) file(rel string, info [2]os.FileInfo) error {
	if x := [2]bool{info[0].Mode()&0o111 != 0, info[1].Mode()&0o111 != 0}; x[0] != x[1] {
		if err := c.add(Difference{Path: rel, Kind: KindExecutable, First: yesNo(x[0]), Second: yesNo(x[1])}); err != nil {
			return err
		}
	}
	var files [2]*os.File
	for side := range files {
		// What lay there may have been replaced: nothing is followed or waited for.
		f, err := os.OpenFile(c.path(side, rel), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		files[side] = f
	}
	at, same, err := firstDifference(files[0], files[1])
	if err != nil || same {
		return err
	}
	kind := KindContent
	if at == min(info[0].Size(), info[1].Size()) {
		kind = KindSize
	}
	size := func(i os.FileInfo) string { return fmt.Sprintf("%d bytes", i.Size()) }
	return c.add(Difference{Path: rel, Kind: kind, Offset: &at, First: size(info[0]), Second: size(info[1])})
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// block is how much of a file is compared at once.
const block = 256 << 10

// firstDifference is the offset of the first byte that only one of two files has, or
// that is another.
func firstDifference(a, b io.Reader) (at int64, same bool, err error) {
	bufA, bufB := make([]byte, block), make([]byte, block)
	for {
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		for _, err := range []error{errA, errB} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return 0, false, err
			}
		}
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			i := 0
			for i < min(n, m) && bufA[i] == bufB[i] {
				i++
			}
			return at + int64(i), false, nil
		}
		if at += int64(n); n < block {
			return at, true, nil
		}
	}
}
