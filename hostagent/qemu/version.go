package qemu

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
	"time"
)

// Release is a QEMU's version, taken apart.
type Release struct {
	Major, Minor, Micro int
	// Full is the version with the distribution's package in brackets, as the
	// binary prints it: "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)". A state is loaded
	// only by a QEMU with an equal one.
	Full string
}

// MinRelease is the oldest QEMU that works: -netdev dgram is of 7.2.
var MinRelease = Release{Major: 7, Minor: 2, Full: "7.2"}

// AtLeast reports whether v is major.minor or newer.
func (v Release) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

func (v Release) String() string { return v.Full }

var versionPattern = regexp.MustCompile(`^QEMU emulator version ((\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?[^\r\n]*)`)

// ParseRelease reads what `qemu-system-x86_64 --version` prints.
func ParseRelease(output string) (Release, error) {
	m := versionPattern.FindStringSubmatch(output)
	if m == nil {
		return Release{}, fmt.Errorf("no QEMU version in %.200q", output)
	}
	v := Release{Full: m[1]}
	for i, field := range []*int{&v.Major, &v.Minor, &v.Micro} {
		*field, _ = strconv.Atoi(m[i+2]) // the pattern leaves digits or nothing
	}
	return v, nil
}

// Version asks a QEMU binary for its version, as text that is to be stored with a state
// and compared: "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)".
func Version(ctx context.Context, binary string) (string, error) {
	r, err := ReadRelease(ctx, binary)
	return r.Full, err
}

// ReadRelease asks a QEMU binary for its version, and refuses one that is older than
// [MinRelease]. It costs a process (20-40 ms).
func ReadRelease(ctx context.Context, binary string) (Release, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var out limitedBuffer
	cmd := exec.CommandContext(ctx, binary, "--version")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Run(); err != nil {
		return Release{}, fmt.Errorf("ask %s for its version: %w (is QEMU installed? Debian: qemu-system-x86)%s",
			binary, err, said(out.String()))
	}
	v, err := ParseRelease(out.String())
	if err != nil {
		return Release{}, fmt.Errorf("%s --version: %w", binary, err)
	}
	if !v.AtLeast(MinRelease.Major, MinRelease.Minor) {
		return v, fmt.Errorf("%s is QEMU %s: %s or newer is needed", binary, v, MinRelease)
	}
	return v, nil
}

func said(output string) string {
	if output = string(bytes.TrimSpace([]byte(output))); output == "" {
		return ""
	}
	return fmt.Sprintf("; it said %.200q", output)
}

// limitedBuffer keeps the first few KiB and swallows the rest.
// The buffer is a field, not embedded: io.Copy would find its ReadFrom, which has
// no limit.
type limitedBuffer struct{ buf bytes.Buffer }

var _ io.Writer = (*limitedBuffer)(nil)

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if room := 4096 - b.buf.Len(); room > 0 {
		b.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (b *limitedBuffer) String() string { return b.buf.String() }
