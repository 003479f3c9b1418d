package soak

import (
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// do does one operation, chosen at random. It returns what the tree is afterwards, also
// if it failed.
func (w *worker) do() (post tree, what string, err error) {
	post = w.tree.clone()
	ops := []struct {
		weight int
		f      func(tree) (string, error)
	}{
		{20, w.create},
		{10, w.openFile},
		{30, w.write},
		{5, w.truncate},
		{5, w.fsync},
		{12, w.closeFile},
		{15, w.read},
		{8, w.stat},
		{8, w.rename},
		{8, w.unlink},
		{3, w.mkdir},
		{2, w.rmdir},
		{3, w.link},
		{3, w.symlink},
		{5, w.list},
		{5, w.mapped},
		{3, w.times},
	}
	total := 0
	for _, o := range ops {
		total += o.weight
	}
	n := w.rnd.IntN(total)
	for _, o := range ops {
		if n -= o.weight; n < 0 {
			what, err = o.f(post)
			return post, what, err
		}
	}
	return post, "", nil
}

// create writes a whole file, of a new name or over an old one.
func (w *worker) create(post tree) (string, error) {
	path := w.freshPath()
	what := "create " + path
	old, exists := post[path]
	flags := os.O_CREATE | os.O_WRONLY | os.O_TRUNC
	switch {
	case exists && !old.isFile():
		return what, nil
	case !exists:
		if w.rnd.IntN(2) == 0 {
			flags |= os.O_EXCL
		}
		old = entry{file: &file{}}
		post[path] = old
	default:
		old.file.truncate(0)
	}
	o := &open{file: old.file} // which another descriptor may have open, too
	f, err := os.OpenFile(w.p(path), flags, 0o644)
	if err != nil {
		return what, o.tell(err)
	}
	data := w.bytes(w.size())
	what += fmt.Sprintf(" of %d bytes", len(data))
	for off := 0; off < len(data); {
		n := min(len(data)-off, 1+w.rnd.IntN(60000))
		old.file.write(off, data[off:off+n])
		if _, err := f.WriteAt(data[off:off+n], int64(off)); err != nil {
			_ = f.Close()
			return fmt.Sprintf("%s: write at %d", what, off), o.tell(err)
		}
		off += n
	}
	if err := f.Close(); err != nil {
		return what + ": close", o.tell(err)
	}
	saved := w.tree
	w.tree = post
	ok := w.hostHas(o, what)
	w.tree = saved
	if !ok {
		return what, errBroken
	}
	return what, nil
}

func (w *worker) openFile(tree) (string, error) {
	path, file, ok := w.someFile()
	if !ok || len(w.opens) >= 4 || slices.ContainsFunc(w.opens, func(o *open) bool { return o.file == file }) {
		return "", nil
	}
	flags := os.O_RDWR
	end := w.rnd.IntN(4) == 0
	if end {
		flags |= os.O_APPEND
	}
	f, err := os.OpenFile(w.p(path), flags, 0)
	if err == nil {
		w.opens = append(w.opens, &open{f, file, end, path})
	}
	return fmt.Sprintf("open %s of %d bytes", path, len(file.data)), err
}

func (w *worker) someOpen() *open {
	if len(w.opens) == 0 {
		return nil
	}
	return w.opens[w.rnd.IntN(len(w.opens))]
}

func (w *worker) write(tree) (string, error) {
	o := w.someOpen()
	if o == nil {
		return "", nil
	}
	data := w.bytes(w.size())
	what := fmt.Sprintf("write %d bytes to %s", len(data), o.path)
	if o.end {
		what += " at the end"
		o.file.write(len(o.file.data), data)
		_, err := o.f.Write(data)
		return what, o.tell(err)
	}
	off := w.rnd.IntN(len(o.file.data) + 5000)
	what += fmt.Sprintf(" at %d", off)
	o.file.write(off, data)
	if w.behind && o.file.behind == 0 {
		o.file.behind = w.host.sessions.Load()
	}
	_, err := o.f.WriteAt(data, int64(off))
	_ = o.tell(err)
	if err == nil && w.rnd.IntN(3) == 0 { // what this descriptor reads is what it wrote
		got := make([]byte, len(data))
		if _, err = o.f.ReadAt(got, int64(off)); err == nil {
			if d := difference(got, data); d != "" {
				err = fmt.Errorf("read back: %s: %w", d, errBroken)
			}
		}
	}
	return what, err
}

// tell notes that an error of this file was told.
func (o *open) tell(err error) error {
	if err != nil {
		o.file.told = true
	}
	return err
}

func (w *worker) truncate(tree) (string, error) {
	o := w.someOpen()
	if o == nil {
		return "", nil
	}
	size := w.rnd.IntN(len(o.file.data) + 3000)
	o.file.truncate(size)
	return fmt.Sprintf("truncate %s to %d", o.path, size), o.tell(o.f.Truncate(int64(size)))
}

func (w *worker) fsync(tree) (string, error) {
	o := w.someOpen()
	if o == nil {
		return "", nil
	}
	err := o.tell(o.f.Sync())
	if err == nil && !w.hostHas(o, "fsync") {
		err = errBroken
	}
	return "fsync " + o.path, err
}

func (w *worker) closeFile(tree) (string, error) {
	o := w.someOpen()
	if o == nil {
		return "", nil
	}
	w.opens = slices.DeleteFunc(w.opens, func(x *open) bool { return x == o })
	err := o.tell(o.f.Close())
	if err == nil && !w.hostHas(o, "close") {
		err = errBroken
	}
	return "close " + o.path, err
}

func (w *worker) read(tree) (string, error) {
	path, file, ok := w.someFile()
	if !ok {
		return "", nil
	}
	got, err := os.ReadFile(w.p(path))
	if err == nil {
		err = w.shown(file, difference(got, file.data), func() string { return file.explains(got) })
	}
	return fmt.Sprintf("read %s of %d bytes", path, len(file.data)), err
}

func (w *worker) stat(tree) (string, error) {
	path, file, ok := w.someFile()
	if !ok {
		return "", nil
	}
	st, err := os.Lstat(w.p(path))
	if err == nil && st.Size() != int64(len(file.data)) {
		d := fmt.Sprintf("%d bytes, want %d", st.Size(), len(file.data))
		err = w.shown(file, d, func() string { return file.explainsSize(int(st.Size())) })
	}
	return "stat " + path, err
}

// shown says what it means that the mount showed a file in a way that differs from the model
// (d), if it does. Changes that no close or fsync has confirmed can be lost with their session
// (docs/semantics.md): then the worker must be told when it closes the file, which recover
// looks at. explains tells what those changes can't be the reason for.
func (w *worker) shown(f *file, d string, explains func() string) error {
	switch {
	case d == "":
		return nil
	case !f.mayLack(w.host.sessions.Load()):
		return fmt.Errorf("%s: %w", d, errBroken)
	}
	if e := explains(); e != "" {
		return fmt.Errorf("%s, and what was lost with the session does not explain it: %s: %w", d, e, errBroken)
	}
	f.lost = true
	w.n.lost.Add(1)
	return fmt.Errorf("%s, lost with the session: %w", d, unix.EIO)
}

func (w *worker) rename(post tree) (string, error) {
	from, e, ok := w.some(func(string, entry) bool { return true })
	to := w.freshPath()
	if !ok || from == to || under(to, from) || under(from, to) {
		return "", nil
	}
	if old, exists := post[to]; exists {
		if old.isDir() || e.isDir() || old.file != nil && old.file == e.file {
			return "", nil
		}
		delete(post, to)
	}
	post.move(from, to)
	return "rename " + from + " " + to, os.Rename(w.p(from), w.p(to))
}

func (w *worker) unlink(post tree) (string, error) {
	path, _, ok := w.some(func(_ string, e entry) bool { return !e.isDir() })
	if !ok {
		return "", nil
	}
	delete(post, path)
	return "unlink " + path, unix.Unlink(w.p(path)) // os.Remove would try a second call
}

func (w *worker) mkdir(post tree) (string, error) {
	path := w.freshPath()
	if _, exists := post[path]; exists {
		return "", nil
	}
	post[path] = entry{}
	return "mkdir " + path, os.Mkdir(w.p(path), 0o755)
}

func (w *worker) rmdir(post tree) (string, error) {
	path, _, ok := w.some(func(p string, e entry) bool {
		return e.isDir() && len(w.tree.pick(func(q string, _ entry) bool { return under(q, p) })) == 0
	})
	if !ok {
		return "", nil
	}
	delete(post, path)
	return "rmdir " + path, unix.Rmdir(w.p(path))
}

func (w *worker) link(post tree) (string, error) {
	from, file, ok := w.someFile()
	to := w.freshPath()
	if _, exists := post[to]; exists || !ok {
		return "", nil
	}
	post[to] = entry{file: file}
	return "link " + from + " " + to, os.Link(w.p(from), w.p(to))
}

func (w *worker) symlink(post tree) (string, error) {
	path := w.freshPath()
	if _, exists := post[path]; exists {
		return "", nil
	}
	target := fmt.Sprintf("../to/%d", w.rnd.Uint32())
	post[path] = entry{target: target}
	return "symlink " + path, os.Symlink(target, w.p(path))
}

func (w *worker) list(tree) (string, error) {
	dir, _, ok := w.some(func(_ string, e entry) bool { return e.isDir() })
	if !ok {
		return "", nil
	}
	list, err := os.ReadDir(w.p(dir))
	want := w.tree.pick(func(p string, _ entry) bool {
		return under(p, dir) && !slices.Contains([]byte(p[len(dir)+1:]), '/')
	})
	if err == nil && len(list) != len(want) {
		err = fmt.Errorf("%d names, want %d: %w", len(list), len(want), errBroken)
	}
	for i := 0; err == nil && i < len(list); i++ {
		if dir+"/"+list[i].Name() != want[i] {
			err = fmt.Errorf("%q, want %q: %w", list[i].Name(), want[i], errBroken)
		}
	}
	return "list " + dir, err
}

// mapped writes through a shared mapping.
func (w *worker) mapped(tree) (what string, err error) {
	path, file, ok := w.someFile()
	if !ok || len(file.data) == 0 {
		return "", nil
	}
	what = "map " + path
	off := w.rnd.IntN(len(file.data))
	r := mapRequest{Path: w.p(path), Want: file.data, Off: off, Data: w.bytes(min(len(file.data)-off, 1+w.rnd.IntN(9000)))}
	what += fmt.Sprintf(", of %d bytes, write %d at %d", len(r.Want), len(r.Data), off)
	a, err := w.mapper.do(r)
	if err != nil {
		return what, err
	}
	if a.Wrote {
		file.write(off, r.Data)
	}
	switch {
	case a.Differs:
		return what, w.shown(file, difference(a.Got, file.data), func() string { return file.explains(a.Got) })
	case a.Text != "":
		return what, fmt.Errorf("%s: %w", a.Text, errBroken)
	case a.Errno != 0:
		file.told = true
		return what, a.Errno
	case !w.hostHas(&open{file: file}, "msync"):
		return what, errBroken
	}
	return what, nil
}

func (w *worker) times(tree) (string, error) {
	path, _, ok := w.someFile()
	if !ok {
		return "", nil
	}
	at := time.Unix(w.rnd.Int64N(1<<31), w.rnd.Int64N(1e9))
	err := os.Chtimes(w.p(path), at, at)
	if err == nil {
		var st os.FileInfo
		if st, err = os.Lstat(w.p(path)); err == nil && !st.ModTime().Equal(at) {
			err = fmt.Errorf("mtime %v, want %v: %w", st.ModTime(), at, errBroken)
		}
	}
	return "utimens " + path, err
}
