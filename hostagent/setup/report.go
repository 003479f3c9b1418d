package setup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"winvm/hostagent/image"
	"winvm/hostagent/install"
)

// Limits of a report.
const (
	maxReportFile  = 16 << 20
	maxReportFiles = 100
)

// errSecret is a file of a report that has a secret in it.
var errSecret = errors.New("it has a secret of the image in it, so it is not packed")

// Report packs what an image keeps of its install, for somebody else to look at: the
// answer file, screenshots, the serial port's lines, the profile, versions. It is a
// tar.gz. A file with one of the image's secrets in it is an error.
func Report(i *image.Image, version string, w io.Writer) error {
	s, err := install.ReadSecrets(i)
	if err != nil {
		return err
	}
	secrets := [][]byte{[]byte(s.SMBPassword)}
	for _, key := range []string{s.ClientKey, s.HostKey} {
		for line := range bytes.Lines([]byte(key)) {
			if line = bytes.TrimSpace(line); len(line) > 40 {
				secrets = append(secrets, line)
			}
		}
	}
	about, err := json.MarshalIndent(map[string]any{"hostagent": version, "image": i.Meta}, "", "  ")
	if err != nil {
		return err
	}
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	add := func(name string, data []byte) error {
		for _, secret := range secrets {
			if bytes.Contains(data, secret) {
				return fmt.Errorf("%s: %w", name, errSecret)
			}
		}
		h := &tar.Header{Name: i.Name + "/" + name, Mode: 0o644, Size: int64(len(data)), ModTime: i.Created.Truncate(time.Second)}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err := t.Write(data)
		return err
	}
	if err := add("about.json", about); err != nil {
		return err
	}
	files, err := filepath.Glob(i.Path(keptDir, "*"))
	if err != nil {
		return err
	}
	for _, f := range append([]string{i.Path(install.ProfileFile)}, files[:min(len(files), maxReportFiles)]...) {
		data, err := readBounded(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue // an image of a recipe
		}
		if err != nil {
			return err
		}
		if err := add(filepath.Base(f), data); err != nil {
			return err
		}
	}
	return errors.Join(t.Close(), z.Close())
}

// readBounded reads a file, the end of it if it is too long.
func readBounded(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	from := max(0, st.Size()-maxReportFile)
	return io.ReadAll(io.NewSectionReader(f, from, maxReportFile))
}
