package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxRemembered bounds the file with the version, in bytes; it has some 200.
const maxRemembered = 4 << 10

// remembered is what the file says: whose version it is, and which.
type remembered struct {
	Binary  string `json:"binary"`
	Dev     uint64 `json:"dev"`
	Ino     uint64 `json:"ino"`
	Size    int64  `json:"size"`
	Mtime   int64  `json:"mtime_ns"`
	Ctime   int64  `json:"ctime_ns"`
	Version string `json:"version"`
}

// RememberedVersion is [Version] of a binary that file may know already, from a time
// when the binary was the same file with the same times: a process less to start.
// Whatever is wrong with file, the binary is asked; that it can't be written is no error.
func RememberedVersion(ctx context.Context, binary, file string) (string, error) {
	key, err := identify(binary)
	if err != nil { // Version says it better
		return Version(ctx, binary)
	}
	if known, ok := recallVersion(file); ok {
		key.Version = known.Version
		if known == key {
			return known.Version, nil
		}
	}
	if key.Version, err = Version(ctx, binary); err != nil {
		return "", err
	}
	rememberVersion(file, key)
	return key.Version, nil
}

// identify says which file a binary is.
func identify(binary string) (remembered, error) {
	path, err := exec.LookPath(binary)
	if err != nil {
		return remembered{}, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return remembered{}, err
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return remembered{}, err
	}
	return remembered{
		Binary: path, Dev: st.Dev, Ino: st.Ino, Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(),
	}, nil
}

func recallVersion(file string) (r remembered, ok bool) {
	if st, err := os.Stat(file); err != nil || !st.Mode().IsRegular() || st.Size() > maxRemembered {
		return r, false
	}
	data, err := os.ReadFile(file)
	return r, err == nil && json.Unmarshal(data, &r) == nil && r.Version != ""
}

// rememberVersion writes a new file, which takes the old one's place.
func rememberVersion(file string, r remembered) {
	data, err := json.Marshal(r)
	if err != nil || os.MkdirAll(filepath.Dir(file), 0o755) != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
}
