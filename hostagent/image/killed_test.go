package image

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// stateFiles are what a suspended state of these tests has; each has the state's
// version for content.
var stateFiles = []string{"controller.state", "guest.memory", "guest.state"}

// checkWhole checks that there is an image with a whole state, the old one or the new
// one, and returns its version.
func checkWhole(t *testing.T, s *Store) string {
	t.Helper()
	i, err := s.Load("wine")
	if err != nil {
		t.Fatal(err)
	}
	if i.State == nil {
		return ""
	}
	if err := i.Check(i.State.QEMU); err != nil {
		t.Error(err)
	}
	if err := i.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	for f := range i.State.Files {
		want := i.State.QEMU
		if want == "before" {
			want = f // by the helper of the other tests
		}
		if b, err := os.ReadFile(i.StatePath(f)); err != nil || string(b) != want {
			t.Errorf("%s has %q, %v; the image says %q", f, b, err, i.State.QEMU)
		}
	}
	return i.State.QEMU
}

// A process that replaces the state over and over is killed up to 200 times at random
// moments, most of them within a replacement.
// Whenever that is, the old state counts or the new one does, and is whole; and what
// the killed ones left is gone after the next.
func TestSuspendKilledAtRandomMoments(t *testing.T) {
	kills := 200
	if testing.Short() {
		kills = 20
	}
	state := t.TempDir()
	s := NewStore(state)
	i := create(t, s, "wine")
	begun := time.Now()
	for range 5 {
		suspend(t, s, i, "before")
	}
	window := int64(3 * time.Since(begun) / 5) // three replacements, on a disk as it is now
	versions := map[string]bool{}
	half := 0
	done := 0
	for limit := time.Now().Add(10 * time.Second); done < kills && (done < 40 || time.Now().Before(limit)); done++ { // the disk may be slow
		kill := startHelper(t, "suspend", state)
		time.Sleep(time.Duration(rand.Int64N(window)))
		kill()
		versions[checkWhole(t, s)] = true
		if n := len(ls(t, s.Dir("wine"))); n > 5 { // controller, guest, image.json, secrets.json, the state
			half++
		}
		if t.Failed() {
			t.Fatal("after this kill")
		}
	}
	if len(versions) < done/20 || half < done/20 {
		t.Errorf("%d kills met only %d states, and only %d replacements: this test shows little", done, len(versions), half)
	}
	t.Logf("%d kills: %d different states, %d with something half-made beside it", done, len(versions), half)
	suspend(t, s, i, "at last")
	wantNames(t, "after a whole one", ls(t, i.Dir), "controller", "guest", "image.json", "secrets.json", i.State.Dir)
}
