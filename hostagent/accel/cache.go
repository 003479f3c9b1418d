package accel

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"winvm/hostagent/qemu"
)

// How long an answer is believed.
const (
	keepYes = 30 * 24 * time.Hour
	keepNo  = 24 * time.Hour
)

// maxCache bounds the file, in bytes; it has some 500.
const maxCache = 64 << 10

// entry is the file's content. There is one answer: a file that was made elsewhere, or
// before an upgrade, has another key.
type entry struct {
	Key    string    `json:"key"`
	Result Result    `json:"result"`
	When   time.Time `json:"when"`
}

// recall looks the answer up. Whatever is wrong with the file, it just isn't there.
func recall(path, key string, now time.Time) (Result, bool) {
	if path == "" {
		return Result{}, false
	}
	f, err := os.Open(path)
	if err != nil {
		return Result{}, false
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxCache+1))
	var e entry
	if err != nil || len(data) > maxCache || json.Unmarshal(data, &e) != nil || e.Key != key {
		return Result{}, false
	}
	keep := keepNo
	switch e.Result.Accel {
	case qemu.KVM:
		keep = keepYes
	case qemu.TCG:
	default:
		return Result{}, false
	}
	if age := now.Sub(e.When); age < 0 || age > keep {
		return Result{}, false
	}
	e.Result.Remembered = true
	return e.Result, true
}

// remember writes the answer: a new file that takes the old one's place.
func remember(path, key string, r Result, now time.Time) error {
	if path == "" {
		return nil
	}
	data, err := json.MarshalIndent(entry{Key: key, Result: r, When: now.UTC()}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// machineKey names everything that the answer depends on.
func machineKey(qemuVersion, cpu, device string) string {
	machineID, _ := os.ReadFile("/etc/machine-id") // a container may have none
	h := sha256.New()
	for _, part := range []string{
		"winvm accel 1", strings.TrimSpace(string(machineID)), cpuModel(), kernelRelease(), qemuVersion, cpu, deviceText(device),
	} {
		fmt.Fprintf(h, "%q\n", part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// cpuModel is what /proc/cpuinfo says of the first CPU, without what changes all the time.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	var b strings.Builder
	in := bufio.NewScanner(f)
	in.Buffer(nil, 64<<10)
	for in.Scan() && in.Text() != "" { // an empty line ends a CPU
		key, value, _ := strings.Cut(in.Text(), ":")
		switch key = strings.TrimSpace(key); key {
		case "vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags":
			fmt.Fprintf(&b, "%s=%s;", key, strings.TrimSpace(value))
		}
	}
	return b.String()
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Version[:])
}

// deviceText says which device it is and who may open it, not when it was made.
func deviceText(device string) string {
	info, err := os.Stat(device)
	if err != nil {
		return err.Error()
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return info.Mode().String()
	}
	return fmt.Sprintf("%v %d %d:%d", info.Mode(), st.Rdev, st.Uid, st.Gid)
}
