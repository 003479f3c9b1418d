// Package cygwin finds out which of Cygwin's packages an installation needs, from a
// setup.ini and a local copy of a mirror, without a network: Parse reads the list,
// List.Closure follows requires, depends2 and provides, Package.Verify compares a
// package's file with the size and the digest that the list has.
//
// The files come from the user and are what they claim only if their digests fit;
// setup.ini itself is taken on trust. All of it is bounded.
package cygwin

import (
	"bufio"
	"context"
	"crypto/md5" //nolint:gosec // old lists have nothing better
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Errors that callers tell apart.
var (
	ErrList    = errors.New("bad setup.ini")
	ErrMissing = errors.New("package of Cygwin is missing")
	ErrDigest  = errors.New("package of Cygwin is not what setup.ini says")
)

// Limits.
const (
	maxLine     = 1 << 20
	maxPackages = 100_000
	maxList     = 256 << 20
)

// A Package is one of a list, in its current version.
type Package struct {
	Name     string
	Version  string
	Category []string
	Needs    []string // of requires and depends2, without versions
	Provides []string
	Path     string // below the mirror; "" = nothing to install
	Size     int64
	Digest   string // hexadecimal: MD5, SHA-256 or SHA-512, by its length
}

// A List is a setup.ini.
type List struct {
	Arch      string
	Packages  map[string]*Package
	providers map[string][]string
}

// Parse reads a setup.ini.
func Parse(r io.Reader) (*List, error) {
	p := &parser{list: &List{Packages: map[string]*Package{}, providers: map[string][]string{}}}
	lines := bufio.NewScanner(io.LimitReader(r, maxList))
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for lines.Scan() {
		p.number++
		if err := p.line(strings.TrimRight(lines.Text(), "\r")); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrList, p.number, err)
		}
	}
	switch err := lines.Err(); {
	case err != nil:
		return nil, fmt.Errorf("%w: line %d: %w", ErrList, p.number+1, err)
	case p.quoted:
		return nil, fmt.Errorf("%w: a quotation mark is not closed", ErrList)
	case len(p.list.Packages) == 0:
		return nil, fmt.Errorf("%w: it has no package", ErrList)
	}
	p.list.index()
	return p.list, nil
}

func (l *List) index() {
	for name, p := range l.Packages {
		for _, v := range p.Provides {
			l.providers[v] = append(l.providers[v], name)
		}
	}
	for _, names := range l.providers {
		slices.Sort(names)
	}
}

type parser struct {
	list    *List
	at      *Package
	current bool // in the package's current version, not in [prev] or [test]
	quoted  bool // in a text of more than one line
	number  int
}

var (
	nameRE   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,127}$`)
	digestRE = regexp.MustCompile(`^([0-9a-f]{32}|[0-9a-f]{64}|[0-9a-f]{128})$`)
)

func (p *parser) line(s string) error {
	if p.quoted {
		p.quoted = strings.Count(s, `"`)%2 == 0
		return nil
	}
	switch {
	case s == "" || s[0] == '#':
		return nil
	case s[0] == '@':
		name := strings.TrimSpace(s[1:])
		if !nameRE.MatchString(name) {
			return fmt.Errorf("package name %q", name)
		}
		if len(p.list.Packages) >= maxPackages {
			return fmt.Errorf("more than %d packages", maxPackages)
		}
		// One that is there twice: the last stanza counts.
		p.at, p.current = &Package{Name: name}, true
		p.list.Packages[name] = p.at
		return nil
	case s[0] == '[':
		p.current = false
		return nil
	}
	key, value, ok := strings.Cut(s, ":")
	if !ok {
		return fmt.Errorf("want KEY: VALUE, @ NAME or [SECTION], not %.40q", s)
	}
	p.quoted = strings.Count(value, `"`)%2 == 1
	value = strings.TrimSpace(value)
	if p.at == nil {
		if key == "arch" {
			p.list.Arch = value
		}
		return nil
	}
	return p.field(key, value)
}

func (p *parser) field(key, value string) error {
	a := p.at
	switch key { // of the package, wherever they stand
	case "category":
		a.Category = strings.Fields(value)
		return nil
	case "requires":
		a.Needs = append(a.Needs, strings.Fields(value)...)
		return nil
	}
	if !p.current {
		return nil
	}
	switch key {
	case "version":
		a.Version = value
	case "depends2", "depends":
		needs, err := relations(value)
		if err != nil {
			return err
		}
		a.Needs = append(a.Needs, needs...)
	case "provides":
		provides, err := relations(value)
		if err != nil {
			return err
		}
		a.Provides = append(a.Provides, provides...)
	case "install":
		return a.install(value)
	}
	return nil
}

// relations reads a list like "a, b (>= 1.0), c".
func relations(s string) ([]string, error) {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(part), " ")
		if name == "" {
			continue
		}
		if !nameRE.MatchString(name) {
			return nil, fmt.Errorf("package name %q", name)
		}
		out = append(out, name)
	}
	return out, nil
}

// install reads "PATH SIZE DIGEST".
func (a *Package) install(s string) error {
	words := strings.Fields(s)
	if len(words) != 3 {
		return fmt.Errorf("package %s: install: want PATH SIZE DIGEST", a.Name)
	}
	size, err := strconv.ParseInt(words[1], 10, 64)
	switch {
	case err != nil || size < 0:
		return fmt.Errorf("package %s: size %q", a.Name, words[1])
	case !digestRE.MatchString(words[2]):
		return fmt.Errorf("package %s: digest %q: want MD5, SHA-256 or SHA-512 in hexadecimal", a.Name, words[2])
	case !filepath.IsLocal(words[0]) || filepath.Clean(words[0]) != words[0] || strings.ContainsAny(words[0], `\:`):
		return fmt.Errorf("package %s: path %q leaves the mirror", a.Name, words[0])
	}
	a.Path, a.Size, a.Digest = words[0], size, words[2]
	return nil
}

// base is the category that setup.exe always installs.
const base = "Base"

// Closure returns the named packages, those of the category Base, and all that they
// need, sorted by name.
func (l *List) Closure(names ...string) ([]*Package, error) {
	type todo struct{ name, by string }
	var queue []todo
	for _, n := range names {
		queue = append(queue, todo{n, "asked for"})
	}
	for n, p := range l.Packages {
		if slices.Contains(p.Category, base) {
			queue = append(queue, todo{n, "of category " + base})
		}
	}
	slices.SortFunc(queue, func(a, b todo) int { return strings.Compare(a.name, b.name) })
	have := map[string]*Package{}
	var errs []error
	for len(queue) > 0 {
		next := queue[0]
		queue = queue[1:]
		p := l.find(next.name)
		if p == nil {
			errs = append(errs, fmt.Errorf("%w: %s (%s): setup.ini has no such package, and none that provides it", ErrMissing, next.name, next.by))
			continue
		}
		if have[p.Name] != nil {
			continue
		}
		have[p.Name] = p
		for _, n := range p.Needs {
			queue = append(queue, todo{n, "needed by " + p.Name})
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	out := make([]*Package, 0, len(have))
	for _, p := range have {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *Package) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// find is the package of that name, or the first by name that provides it.
func (l *List) find(name string) *Package {
	if p := l.Packages[name]; p != nil {
		return p
	}
	if by := l.providers[name]; len(by) > 0 {
		return l.Packages[by[0]]
	}
	return nil
}

// Verify compares the package's file below mirror with what the list says, and
// returns its path. A package without a file gives "".
func (a *Package) Verify(ctx context.Context, mirror string) (string, error) {
	if a.Path == "" {
		return "", nil
	}
	path := filepath.Join(mirror, a.Path)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("%w: %s: there is no %s", ErrMissing, a.Name, path)
	}
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := map[int]func() hash.Hash{32: md5.New, 64: sha256.New, 128: sha512.New}[len(a.Digest)]()
	n, err := io.Copy(h, io.LimitReader(&reader{ctx, f}, a.Size+1))
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	if n != a.Size {
		return "", fmt.Errorf("%w: %s: %s has not the size %d", ErrDigest, a.Name, path, a.Size)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != a.Digest {
		return "", fmt.Errorf("%w: %s: %s has digest %s instead of %s", ErrDigest, a.Name, path, got, a.Digest)
	}
	return path, nil
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
