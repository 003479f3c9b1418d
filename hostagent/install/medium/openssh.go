package medium

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"debug/pe"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
)

// Errors that callers tell apart.
var (
	ErrDigest  = errors.New("not the file that was asked for")
	ErrOpenSSH = errors.New("not a zip of Win32-OpenSSH")
	ErrDrivers = errors.New("not an ISO with the drivers")
)

// Limits of the zip.
const (
	maxZip      = 256 << 20
	maxZipFile  = 64 << 20
	maxZipTotal = 256 << 20
	maxZipFiles = 2000
)

var digestPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)

// CheckDigest says whether s can be a SHA-256.
func CheckDigest(s string) error {
	if !digestPattern.MatchString(s) {
		return fmt.Errorf("%q is not a SHA-256: want 64 hexadecimal digits in small letters", s)
	}
	return nil
}

// OpenSSH reads the zip of a Win32-OpenSSH release, whose SHA-256 must be the given
// one, and returns its files without the directory that they are in. arch is x86_64
// or i686.
func OpenSSH(file, digest, arch string) (Files, error) {
	if err := CheckDigest(digest); err != nil {
		return nil, err
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("the zip of OpenSSH: %w", err)
	}
	defer func() { _ = f.Close() }()
	// Read once, so that what was checked is what is used.
	data, err := io.ReadAll(io.LimitReader(f, maxZip+1))
	if err != nil {
		return nil, fmt.Errorf("the zip of OpenSSH: %w", err)
	}
	if len(data) > maxZip {
		return nil, fmt.Errorf("%w: %s is larger than %d bytes", ErrOpenSSH, file, maxZip)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != digest {
		return nil, fmt.Errorf("%w: %s has SHA-256 %x instead of %s", ErrDigest, file, sum, digest)
	}
	out, err := unzip(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrOpenSSH, file, err)
	}
	if err := checkServer(out, arch); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrOpenSSH, file, err)
	}
	return out, nil
}

func unzip(data []byte) (Files, error) {
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	if len(z.File) > maxZipFiles {
		return nil, fmt.Errorf("%d files", len(z.File))
	}
	out, total := Files{}, 0
	for _, e := range z.File {
		if strings.HasSuffix(e.Name, "/") {
			continue
		}
		name := path.Clean(strings.ReplaceAll(e.Name, `\`, "/"))
		_, inside, ok := strings.Cut(name, "/")
		if !ok || !pathPattern.MatchString(name) || strings.HasPrefix(name, "../") {
			return nil, fmt.Errorf("it has %q: want files in one directory", e.Name)
		}
		r, err := e.Open()
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(io.LimitReader(r, maxZipFile+1))
		_ = r.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name, err)
		}
		if total += len(b); len(b) > maxZipFile || total > maxZipTotal {
			return nil, fmt.Errorf("%s: too large", e.Name)
		}
		out[inside] = File{Data: b}
	}
	return out, nil
}

// machines are the values of a PE file's header.
var machines = map[string]uint16{"x86_64": pe.IMAGE_FILE_MACHINE_AMD64, "i686": pe.IMAGE_FILE_MACHINE_I386}

func checkServer(files Files, arch string) error {
	for _, name := range []string{"sshd.exe", "install-sshd.ps1"} {
		if _, ok := files[name]; !ok {
			return fmt.Errorf("it has no %s", name)
		}
	}
	p, err := pe.NewFile(bytes.NewReader(files["sshd.exe"].Data))
	if err != nil {
		return fmt.Errorf("sshd.exe: %w", err)
	}
	if p.Machine != machines[arch] {
		return fmt.Errorf("sshd.exe is of another architecture (%#x) than %s", p.Machine, arch)
	}
	return nil
}
