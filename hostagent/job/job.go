// Package job is the agreement with winvm-run.exe, the program that starts a
// build's command in the guest (hostagent/guest/windows/run.c): the job file that
// says what to run, the exit file that says what came of it, and Windows' rules for
// command lines.
//
// The job is written to winvm-run.exe's standard input (Input), announced by one line:
//
//	LENGTH DIRECTORY\n
//	fields, each ended by a NUL byte: "winvm-job 1", working directory ("" = keep),
//	command line, number of environment entries, the entries ("K=V" sets, "K" unsets),
//	"end"
//
// DIRECTORY is the job's own in the share xchg. There is an empty file to which
// winvm-run.exe writes what came of it:
//
//	.winvm/<id>/exit   lines "winvm-exit 1", "stage=...", "code=...", "error=..."
//
// So neither a shell's quoting nor a length limit touches what the user asked for.
package job

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Dir is the directory of jobs below xchg.
const Dir = ".winvm"

// Limits of a job.
const (
	// MaxCommandLine is CreateProcess's, in UTF-16 units, with the final NUL.
	MaxCommandLine = 32767
	// MaxJob is the longest job winvm-run.exe takes.
	MaxJob = 8 << 20
	// MaxExit is the longest exit file that is read.
	MaxExit = 4 << 10
)

// A Job is one command to run.
type Job struct {
	Dir  string // working directory in the guest; "" keeps the runner's
	Args []string
	Env  []string // "K=V" sets, "K" unsets
}

// ErrInvalid is wrapped by the errors of jobs that can't be run as they are.
var ErrInvalid = errors.New("invalid job")

// Runner is the name that winvm-run.exe is parked under. It changes with what Input
// and the exit file are like.
const Runner = "winvm-run 2"

// ExitFile is the name of the exit file in a job's directory.
const ExitFile = "exit"

// Input is what winvm-run.exe is told: an encoded job, and the path in the guest of
// its directory. The job begins when it has the last byte, so all others can be
// sent ahead.
func Input(dir string, job []byte) []byte {
	return append(fmt.Appendf(nil, "%d %s\n", len(job), dir), job...)
}

// Encode returns the job's fields.
func (j Job) Encode() ([]byte, error) {
	line, err := CommandLine(j.Args)
	if err != nil {
		return nil, err
	}
	fields := []string{"winvm-job 1", j.Dir, line, strconv.Itoa(len(j.Env))}
	for _, e := range j.Env {
		if name, _, _ := strings.Cut(e, "="); name == "" {
			return nil, fmt.Errorf("%w: environment entry %q has no name", ErrInvalid, e)
		}
	}
	fields = append(append(fields, j.Env...), "end")
	var b strings.Builder
	for _, f := range fields {
		if strings.IndexByte(f, 0) >= 0 {
			return nil, fmt.Errorf("%w: NUL byte in %.200q", ErrInvalid, f)
		}
		if !utf8.ValidString(f) { // Windows has it as UTF-16
			return nil, fmt.Errorf("%w: %.200q is not UTF-8", ErrInvalid, f)
		}
		b.WriteString(f)
		b.WriteByte(0)
	}
	if b.Len() > MaxJob {
		return nil, fmt.Errorf("%w: command and environment have %d bytes, at most %d are possible", ErrInvalid, b.Len(), MaxJob)
	}
	return []byte(b.String()), nil
}

// CommandLine joins arguments so that CommandLineToArgvW and the C runtime split
// them again as they were. cmd.exe has rules of its own: for `cmd /c LINE` and
// `cmd /k LINE` everything after the switch is passed on as it is.
func CommandLine(args []string) (string, error) {
	if len(args) == 0 || args[0] == "" {
		return "", fmt.Errorf("%w: no command", ErrInvalid)
	}
	var b strings.Builder
	raw := false
	for i, a := range args {
		if i > 0 {
			b.WriteByte(' ')
		}
		switch {
		case raw:
			b.WriteString(a)
		case i == 0:
			// The program's name is split by simpler rules: quotes can't be escaped,
			// and CommandLineToArgvW ends it at any control character.
			if strings.Contains(a, `"`) {
				return "", fmt.Errorf("%w: the command's name %q contains a quotation mark", ErrInvalid, a)
			}
			if strings.IndexFunc(a, func(r rune) bool { return r <= ' ' }) >= 0 {
				a = `"` + a + `"`
			}
			b.WriteString(a)
		default:
			b.WriteString(quote(a))
		}
		raw = raw || i > 0 && isCmd(args[0]) && isRunSwitch(a)
	}
	if n := utf16Len(b.String()) + 1; n > MaxCommandLine {
		return "", fmt.Errorf("%w: the command line has %d characters, Windows takes at most %d; put arguments into a file", ErrInvalid, n, MaxCommandLine)
	}
	return b.String(), nil
}

func isCmd(name string) bool {
	name = strings.ToLower(name[strings.LastIndexAny(name, `\/`)+1:])
	return name == "cmd" || name == "cmd.exe"
}

func isRunSwitch(a string) bool { return strings.EqualFold(a, "/c") || strings.EqualFold(a, "/k") }

func utf16Len(s string) int {
	n := 0
	for _, r := range s {
		n++
		if r > 0xffff {
			n++
		}
	}
	return n
}

// quote is the inverse of the Microsoft C runtime's parsing: backslashes are
// doubled before a quotation mark only.
func quote(a string) string {
	if a != "" && !strings.ContainsAny(a, " \t\n\v\"") {
		return a
	}
	var b strings.Builder
	b.WriteByte('"')
	slashes := 0
	for i := range len(a) {
		switch c := a[i]; c {
		case '\\':
			slashes++
			b.WriteByte(c)
		case '"':
			b.WriteString(strings.Repeat(`\`, slashes+1))
			b.WriteByte(c)
			slashes = 0
		default:
			slashes = 0
			b.WriteByte(c)
		}
	}
	b.WriteString(strings.Repeat(`\`, slashes))
	b.WriteByte('"')
	return b.String()
}
