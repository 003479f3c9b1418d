package setup_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"winvm/hostagent/event"
	"winvm/hostagent/guest"
	"winvm/hostagent/image"
	"winvm/hostagent/install"
	"winvm/hostagent/pair"
	"winvm/hostagent/qemu"
	"winvm/hostagent/setup"
	"winvm/transport/needs"
)

const testKey = "BCDFG-HJKMN-PQRTV-WXY23-46789"

// newConfig is an install of a profile, with limits for a stand-in. old and new are
// texts of the profile's file.
func newConfig(t *testing.T, profile string, change ...string) (setup.Config, *bytes.Buffer) {
	t.Helper()
	cache := needs.Env(t, "WINVM_CACHE_DIR", "the cache with the controller's root file system")
	libexec := needs.Env(t, "WINVM_LIBEXEC_DIR", "the directory with the controller agent")
	source, err := guest.Source(profile)
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`memory_mib: [0-9]+`).ReplaceAllString(string(source), "memory_mib: 512")
	text = strings.NewReplacer("disk_gib: 64", "disk_gib: 2", "disk_gib: 52", "disk_gib: 2", "disk_gib: 48", "disk_gib: 2",
		"disk_gib: 32", "disk_gib: 2", "disk_gib: 16", "disk_gib: 2", "disk_gib: 4\n", "disk_gib: 2\n", "  cpus: 2", "  cpus: 1").Replace(text)
	text = strings.NewReplacer(change...).Replace(text)
	p, err := guest.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	logs := filepath.Join(dir, "logs")
	if err := os.Mkdir(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	told := &bytes.Buffer{}
	c := setup.Config{
		Store: image.NewStore(dir), CacheDir: cache, Name: "test", Profile: p, Source: []byte(text),
		QEMU: needs.Tool(t, qemu.DefaultBinary), Accelerator: func(context.Context, string) (string, error) { return "tcg", nil },
		Agent: filepath.Join(libexec, "controlleragent"), Build: "test", WorkDir: filepath.Join(dir, "work"), LogDir: logs,
		Report: event.NewReporter(event.Text(told, false)), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if p.Setup.SSHD == guest.OpenSSH {
		c.OpenSSHZip, c.OpenSSHSHA256 = fakeOpenSSH(t)
	} else {
		c.CygwinMirror = fakeCygwin(t)
	}
	if p.UEFI() {
		if _, err := os.Stat(pair.FirmwareVars); err != nil {
			needs.Missing(t, "UEFI for guests: %v: install ovmf", err)
		}
	}
	return c, told
}

func fullKernel(t *testing.T) string {
	t.Helper()
	return needs.Env(t, "WINVM_TEST_FULL_KERNEL", "the vmlinuz of Debian's linux-image-amd64, as tools/setup/kernel.sh amd64 prints it")
}

// From the vendor's medium to an SSH server, on each firmware and each kind of answer
// file.
func TestInstall(t *testing.T) {
	for _, test := range []struct {
		profile string
		medium  standin
	}{
		{"windows-11", standin{answer: guest.AutoUnattend, askKey: true, arch: "9", ed: "Professional", build: "22631"}},
		{"windows-10", standin{answer: guest.AutoUnattend, askKey: true, key: testKey, arch: "9", ed: "Professional", build: "19045"}},
		{"windows-xp", standin{answer: guest.WinntSIF, key: testKey, old: true}},
	} {
		t.Run(test.profile, func(t *testing.T) {
			kernel := fullKernel(t)
			c, told := newConfig(t, test.profile)
			c.ProductKey = test.medium.key
			c.ISO = makeStandin(t, kernel, test.medium)
			i, err := setup.Install(t.Context(), c)
			if err != nil {
				t.Fatalf("%v\n%s", err, told)
			}
			checkInstalled(t, c, i, told.String(), test.medium)
		})
	}
}

func checkInstalled(t *testing.T, c setup.Config, i *image.Image, told string, m standin) {
	t.Helper()
	last := 0
	for _, stage := range []string{"firmware", "copying", "first boot", "sshd is up"} {
		at := strings.Index(told[last:], "install: "+stage)
		if at < 0 {
			t.Errorf("no stage %s after the one before in:\n%s", stage, told)
			continue
		}
		last += at
	}
	if strings.Contains(told, "asks for a key") != m.askKey {
		t.Errorf("the boot loader's question: %s", told)
	}
	if err := i.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	st, err := os.Stat(i.Path(pair.Guest, pair.GuestDisk))
	if err != nil || st.Mode().Perm() != 0o444 || i.Files["guest/"+pair.GuestDisk].SHA256 == "" {
		t.Errorf("the disk: mode %v, %v, %+v", st.Mode(), err, i.Files)
	}
	if p, err := install.ProfileOf(i); err != nil || p.Name != c.Profile.Name {
		t.Errorf("the profile: %v, %v", p.Name, err)
	}
	// Nothing of the media is left, and no secret where others can read it.
	s, err := install.ReadSecrets(i)
	if err != nil {
		t.Fatal(err)
	}
	_ = filepath.WalkDir(i.Dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Base(p) == "secrets.json" {
			return err
		}
		if strings.HasSuffix(p, ".iso") || strings.HasSuffix(p, ".img") {
			t.Errorf("left: %s", p)
		}
		if st, err := d.Info(); err == nil && st.Size() < 1<<20 && bytes.Contains(get(t, p), []byte(s.SMBPassword)) {
			t.Errorf("%s has a secret", p)
		}
		return nil
	})
	// A second install of the name is the first.
	again, err := setup.Install(t.Context(), c)
	if err != nil || !again.Created.Equal(i.Created) {
		t.Errorf("again: %v", err)
	}
}
