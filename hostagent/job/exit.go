package job

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A Stage is how far winvm-run.exe came.
type Stage string

// The stages.
const (
	StageJob   Stage = "job"   // the job file could not be read
	StageCwd   Stage = "cwd"   // the working directory could not be entered
	StageSpawn Stage = "spawn" // the command could not be started
	StageDone  Stage = "done"  // the command ran; Code is its exit code
)

// Windows error codes that mean that there is no such file.
const (
	errorFileNotFound = 2
	errorPathNotFound = 3
)

// Exit is what the exit file says.
type Exit struct {
	Stage Stage
	Code  uint32
	Error uint32 // GetLastError of the stage that failed
}

// NotFound reports whether the command does not exist.
func (e Exit) NotFound() bool {
	return e.Stage == StageSpawn && (e.Error == errorFileNotFound || e.Error == errorPathNotFound)
}

// Agrees reports whether an SSH exit status of that many significant bits is the
// same exit as the file's.
func (e Exit) Agrees(status uint32, bits int) bool {
	if bits >= 32 {
		return status == e.Code
	}
	mask := uint32(1)<<bits - 1
	if e.Code != 0 && e.Code&mask == 0 {
		// Wine makes 1 of a failure whose low bits would read as success (256, say).
		return status&mask == 1
	}
	return status&mask == e.Code&mask || e.crashed() && status&mask != 0
}

// crashed reports whether the code is an NTSTATUS error: severity 3 with the
// reserved bit 28 clear ([MS-ERREF] 2.3), which leaves out -1 and its neighbours.
// What a Unix process makes of one in its eight bits is not fixed.
func (e Exit) crashed() bool { return e.Code>>30 == 3 && e.Code>>28&1 == 0 }

// ErrExitFile is wrapped by the errors of exit files that can't be believed.
var ErrExitFile = errors.New("exit file")

// ParseExit decodes an exit file.
func ParseExit(b []byte) (Exit, error) {
	if len(b) > MaxExit {
		return Exit{}, fmt.Errorf("%w of %d bytes", ErrExitFile, len(b))
	}
	lines := strings.Split(string(b), "\n")
	// Without the last newline it isn't whole.
	if len(lines) != 5 || lines[4] != "" || strings.TrimRight(lines[0], "\r") != "winvm-exit 1" {
		return Exit{}, fmt.Errorf("%w is not of the form expected: %q", ErrExitFile, b)
	}
	var e Exit
	for i, key := range []string{"stage", "code", "error"} {
		v, ok := strings.CutPrefix(strings.TrimRight(lines[i+1], "\r"), key+"=")
		if !ok {
			return Exit{}, fmt.Errorf("%w: line %d is not %s=: %q", ErrExitFile, i+2, key, lines[i+1])
		}
		if key == "stage" {
			e.Stage = Stage(v)
			continue
		}
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			return Exit{}, fmt.Errorf("%w: %s: %w", ErrExitFile, key, err)
		}
		if key == "code" {
			e.Code = uint32(n)
		} else {
			e.Error = uint32(n)
		}
	}
	switch e.Stage {
	case StageJob, StageCwd, StageSpawn, StageDone:
		return e, nil
	default:
		return Exit{}, fmt.Errorf("%w: stage %q", ErrExitFile, e.Stage)
	}
}
