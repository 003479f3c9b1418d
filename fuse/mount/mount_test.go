package mount_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"winvm/fuse/mount"
	"winvm/transport/needs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// empty is a file system that holds nothing; looking up "hang" hangs until it is cut.
type empty struct {
	fuse.RawFileSystem
	entered chan struct{}
	cut     chan struct{}
}

func newEmpty() *empty {
	return &empty{fuse.NewDefaultRawFileSystem(), make(chan struct{}, 1), make(chan struct{})}
}

func (e *empty) GetAttr(_ <-chan struct{}, _ *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	out.Mode, out.Nlink = unix.S_IFDIR|0o755, 1
	return fuse.OK
}

func (e *empty) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, _ *fuse.EntryOut) fuse.Status {
	if name == "hang" {
		e.entered <- struct{}{}
		<-e.cut
		return fuse.EIO
	}
	return fuse.ENOENT
}

func (e *empty) end() {
	select {
	case <-e.cut:
	default:
		close(e.cut)
	}
}

func line(t *testing.T, dir string) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(mounts)) {
		if strings.Contains(l, " "+dir+" ") {
			return l
		}
	}
	return ""
}

func use(t *testing.T, dir string, opts mount.Options, want ...string) {
	t.Helper()
	needs.FUSE(t)
	e := newEmpty()
	opts.Cut = e.end
	m, err := mount.New(dir, e, opts)
	if err != nil {
		t.Fatal(err)
	}
	l := line(t, m.Dir())
	for _, w := range want {
		if !strings.Contains(l, w) {
			t.Errorf("mounted as %q, without %q", l, w)
		}
	}
	go func() { _, _ = os.Lstat(filepath.Join(dir, "hang")) }()
	<-e.entered
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := m.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := m.Close(ctx); err != nil {
		t.Errorf("again: %v", err)
	}
	if l := line(t, m.Dir()); l != "" {
		t.Errorf("still mounted: %s", l)
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	}
}

func TestDirect(t *testing.T) {
	needs.Root(t)
	use(t, t.TempDir(), mount.Options{Source: "some-source", AllowOther: true},
		"some-source ", " fuse.winvm rw,", "default_permissions", "allow_other", "nosuid", "nodev")
	use(t, t.TempDir(), mount.Options{ReadOnly: true}, " ro,", "max_read=1048576")
}

// Without CAP_SYS_ADMIN fusermount3 mounts, and unmounts.
func TestFusermount(t *testing.T) {
	needs.Root(t)
	needs.Tool(t, "fusermount3")
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var all, less [2]unix.CapUserData
	if err := unix.Capget(&hdr, &all[0]); err != nil {
		t.Fatal(err)
	}
	less = all
	less[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
	if err := unix.Capset(&hdr, &less[0]); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Capset(&hdr, &all[0]); err != nil {
			t.Error(err)
		}
	}()
	use(t, t.TempDir(), mount.Options{Source: "some-source", AllowOther: true},
		"some-source ", "fuse.winvm", "default_permissions", "allow_other")
	use(t, t.TempDir(), mount.Options{ReadOnly: true}, " ro,")
}

// A copy of the mount in another mount namespace does not keep it alive.
func TestOtherNamespace(t *testing.T) {
	needs.Root(t)
	needs.FUSE(t)
	unshare := needs.Tool(t, "unshare")
	m, err := mount.New(t.TempDir(), newEmpty(), mount.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(unshare, "--mount", "--propagation", "private", "sh", "-c", "echo ready; read x")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		_ = cmd.Wait()
	}()
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := m.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestReadAhead(t *testing.T) {
	needs.Root(t)
	needs.FUSE(t)
	dir := t.TempDir()
	m, err := mount.New(dir, newEmpty(), mount.Options{ReadAhead: 2 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(t.Context()) }()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(fmt.Sprintf("/sys/class/bdi/0:%d/read_ahead_kb", unix.Minor(st.Dev)))
	if err != nil {
		needs.Missing(t, "no bdi in sysfs: %v", err)
	}
	if strings.TrimSpace(string(got)) != "2048" {
		t.Errorf("read_ahead_kb is %s", got)
	}
}
