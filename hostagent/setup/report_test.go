package setup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"winvm/hostagent/image"
	"winvm/hostagent/install"
)

func TestReport(t *testing.T) {
	i := &image.Image{Meta: image.Meta{Name: "w"}, Dir: t.TempDir()}
	if err := Report(i, "1", io.Discard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no secrets: got %v", err)
	}
	s, err := install.NewSecrets()
	if err != nil {
		t.Fatal(err)
	}
	if err := install.WriteSecrets(i.Dir, s); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		p := i.Path(name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("profile.yaml", "name: x")
	write("install/guest.console", "lines")
	write("install/screen-1.png", "PNG")
	var b bytes.Buffer
	if err := Report(i, "1.2.3", &b); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		names = append(names, h.Name)
	}
	if got := strings.Join(names, " "); got != "w/about.json w/profile.yaml w/guest.console w/screen-1.png" {
		t.Errorf("got %s", got)
	}
	for _, secret := range []string{s.SMBPassword, s.HostKey, s.ClientKey} {
		write("install/guest.console", "before "+secret+" after")
		if err := Report(i, "1", io.Discard); !errors.Is(err, errSecret) || strings.Contains(err.Error(), s.SMBPassword) {
			t.Errorf("a secret: got %v", err)
		}
	}
}
