package work

import (
	"fmt"
	"time"
)

// Kind is what to do.
type Kind string

// The kinds of jobs.
const (
	Read  Kind = "read"  // a file from its beginning to its end in Block bytes a call
	Write Kind = "write" // a new file of Bytes in Block bytes a call, fsync, close
	Rand  Kind = "rand"  // Count reads of Block bytes at random places of a file
	Walk  Kind = "walk"  // every directory of a tree listed, every entry lstat'ed
	Files Kind = "files" // every regular file of a tree opened, read, closed
	Tar   Kind = "tar"   // a tree into a tar archive that goes nowhere
	Storm Kind = "storm" // Count files created, then renamed, then removed
	Tiny  Kind = "tiny"  // Count small files opened, read, closed, each for the first time
	Sum   Kind = "sum"   // the checksum of a file or of a tree
	Flush Kind = "flush" // a file's bytes go to where they are kept
	Exec  Kind = "exec"  // the program Path run with Args, which makes the file Out
)

// A Job is one measurement.
type Job struct {
	Kind  Kind
	Path  string // of the file, or of the tree's or a new files' directory
	Block int    `json:",omitempty"`
	Count int    `json:",omitempty"`
	Bytes int64  `json:",omitempty"`
	Seed  uint64 `json:",omitempty"` // of random places and of what is written
	// Load is a file that somebody else reads over and over meanwhile.
	Load string   `json:",omitempty"`
	Args []string `json:",omitempty"`
	Out  string   `json:",omitempty"`
}

// A Result is what came of a job.
type Result struct {
	Seconds float64   `json:",omitempty"` // all of it
	Each    []float64 `json:",omitempty"` // of each of Count, for Tiny; create, rename, remove for Storm
	Entries int       `json:",omitempty"` // files, or entries of the tree
	Bytes   int64     `json:",omitempty"` // read or written
	Sum     uint32    `json:",omitempty"` // checksum of names, sizes, contents: what the job has seen
}

// Run does a job.
func Run(j Job) (Result, error) {
	do := map[Kind]func(Job) (Result, error){
		Read: read, Write: write, Rand: randomly, Walk: walk, Files: files,
		Tar: archive, Storm: storm, Tiny: tiny, Sum: sum, Flush: flush, Exec: execute,
	}[j.Kind]
	if do == nil {
		return Result{}, fmt.Errorf("no job of the kind %q", j.Kind)
	}
	if j.Block < 0 || j.Block > 16<<20 || j.Count < 0 || j.Count > 1<<20 || j.Bytes < 0 {
		return Result{}, fmt.Errorf("%s: block %d, count %d, bytes %d: out of bounds", j.Kind, j.Block, j.Count, j.Bytes)
	}
	r, err := do(j)
	if err != nil {
		return r, fmt.Errorf("%s %s: %w", j.Kind, j.Path, err)
	}
	return r, nil
}

// seconds since begin.
func seconds(begin time.Time) float64 { return time.Since(begin).Seconds() }
