// Package usage says what a build has used of its inputs, from what the controller agent has
// noted, and which of them it could have done without.
//
// Used is an input of which something was read, or of which a file below its top was opened.
// That its top was opened alone doesn't count, since a listing of the store does that to
// every input. What a program learns from a name that doesn't exist, or from a listing
// of the whole store, can't be seen.
package usage

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"winvm/hostagent/manifest"
	"winvm/transport/agentrpc"
	"winvm/transport/wire"
)

// A Report is what a build has used, and made.
type Report struct {
	StoreDir string  `json:"store_dir"`
	Inputs   []Input `json:"inputs"`
	Files    []File  `json:"files"`   // of the inputs, that were opened
	Written  []File  `json:"written"` // the output
	// Partial is set if more was touched than could be noted: an input that
	// isn't used here may have been.
	Partial bool `json:"partial"`
}

// An Input is a store path of the build's closure.
type Input struct {
	Name   string `json:"name"`
	Used   bool   `json:"used"`
	Files  int    `json:"files"` // that it has, without directories and links
	Bytes  uint64 `json:"bytes"` // that those have
	Opened int    `json:"opened"`
	Read   int    `json:"read"`
	// ReadBytes is the size of the files that were read, if only in part.
	ReadBytes uint64 `json:"read_bytes"`
}

// A File is one of an input or of the output.
type File struct {
	Path  string `json:"path"`
	Read  bool   `json:"read,omitempty"`
	Bytes uint64 `json:"bytes"` // its size
}

// New makes a Report. What is touched and isn't an input's is left out.
func New(storeDir string, inputs []*manifest.Manifest, touched []agentrpc.TouchedFile, partial bool) Report {
	r := Report{StoreDir: storeDir, Partial: partial, Inputs: make([]Input, len(inputs)), Files: []File{}, Written: []File{}}
	byName := make(map[string]int, len(inputs))
	for i, m := range inputs {
		in := Input{Name: m.Name}
		for e := range m.Section.Len() {
			if m.Section.Kind(e) == wire.KindFile {
				in.Files++
				in.Bytes += m.Section.Size(e)
			}
		}
		r.Inputs[i] = in
		byName[m.Name] = i
	}
	for _, t := range touched {
		name, rest, below := strings.Cut(t.Path, "/")
		i, ok := byName[name]
		if !ok {
			continue
		}
		in, sec := &r.Inputs[i], inputs[i].Section
		entry, ok := find(sec, rest)
		if !ok {
			continue
		}
		in.Used = in.Used || below || t.Read
		if sec.Kind(entry) != wire.KindFile {
			continue
		}
		f := File{Path: t.Path, Read: t.Read, Bytes: sec.Size(entry)}
		r.Files = append(r.Files, f)
		in.Opened++
		if t.Read {
			in.Read++
			in.ReadBytes += f.Bytes
		}
	}
	return r
}

// find returns the entry of a path within a section.
func find(sec *wire.Section, path string) (entry uint32, ok bool) {
	if path == "" {
		return 0, true
	}
	for part := range strings.SplitSeq(path, "/") {
		if sec.Kind(entry) != wire.KindDir {
			return 0, false
		}
		if entry, ok = sec.Lookup(entry, part); !ok {
			return 0, false
		}
	}
	return entry, true
}

// AddWritten adds the files below an output.
func (r *Report) AddWritten(output string) error {
	return filepath.WalkDir(output, func(p string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(filepath.Dir(output), p)
		if err == nil {
			r.Written = append(r.Written, File{Path: rel, Bytes: uint64(info.Size())})
		}
		return err
	})
}

// Trimmed returns the inputs that would have done.
func (r *Report) Trimmed() []string {
	var out []string
	for _, in := range r.Inputs {
		if in.Used || r.Partial {
			out = append(out, filepath.Join(r.StoreDir, in.Name))
		}
	}
	return out
}

// Write writes report.json and report.txt into a directory, which it makes.
func (r *Report) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "report.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	var text strings.Builder
	if err := r.Print(&text); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "report.txt"), []byte(text.String()), 0o644)
}

// Print writes the inputs as a table, the most read first, and sums.
func (r *Report) Print(w io.Writer) error {
	list := slices.Clone(r.Inputs)
	slices.SortStableFunc(list, func(a, b Input) int {
		return cmp.Or(cmp.Compare(b.ReadBytes, a.ReadBytes), cmp.Compare(b.Opened, a.Opened), cmp.Compare(a.Name, b.Name))
	})
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "files\topened\tread\tbytes\tread, bytes\t input")
	unused := 0
	var written uint64
	for _, in := range list {
		note := ""
		if !in.Used {
			unused++
			note = " (not used)"
		}
		fmt.Fprintf(tw, "%d\t%d\t%d\t%d\t%d\t %s%s\n", in.Files, in.Opened, in.Read, in.Bytes, in.ReadBytes, in.Name, note)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, f := range r.Written {
		written += f.Bytes
	}
	fmt.Fprintf(w, "%d of %d inputs were not used; %d files of %d bytes were written\n", unused, len(list), len(r.Written), written)
	if r.Partial {
		fmt.Fprintln(w, "more files were touched than could be noted: this is not all")
	}
	return nil
}
