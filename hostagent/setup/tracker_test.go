package setup

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"winvm/hostagent/guest"
	"winvm/hostagent/install/answer"
)

func limits() guest.Limits {
	m := func(n int) guest.Duration { return guest.Duration{Duration: time.Duration(n) * time.Minute} }
	return guest.Limits{Firmware: m(1), Setup: m(2), Copying: m(60), FirstBoot: m(60), FirstLogon: m(60), SSHD: m(5), Stuck: m(10)}
}

const mb = 1 << 20

func TestTracker(t *testing.T) {
	tr := NewTracker(limits())
	at := time.Duration(0)
	step := func(s Sample, want Stage) {
		t.Helper()
		at += 10 * time.Second
		s.At = at
		before := tr.Stage()
		news, err := tr.Observe(s)
		if err != nil || tr.Stage() != want || news != (want != before) {
			t.Fatalf("got stage %v, new %v, %v; want %v", tr.Stage(), news, err, want)
		}
	}
	step(Sample{CDRead: 60_000}, Firmware)
	step(Sample{CDRead: 5 * mb}, Setup)
	step(Sample{CDRead: 100 * mb}, Setup)
	step(Sample{CDRead: 200 * mb, DiskMade: 8 * mb}, Copying)
	step(Sample{CDRead: 300 * mb, DiskMade: 90 * mb}, Copying)
	step(Sample{CDRead: 300 * mb, DiskMade: 90 * mb, Resets: 1}, FirstBoot)
	step(Sample{CDRead: 300 * mb, DiskMade: 99 * mb, Resets: 2}, FirstBoot)
	logon := "noise\r\n" + answer.StageFirstLogon + "\r\n"
	step(Sample{DiskMade: 99 * mb, Resets: 2, Console: logon}, FirstLogon)
	step(Sample{DiskMade: 99 * mb, Resets: 2, Console: logon + answer.StageSSHD + "\r\n"}, SSHD)
	step(Sample{DiskMade: 99 * mb, Resets: 2, SSH: true}, Done)
	if len(tr.Took) != 6 || tr.Took["copying"] != 20*time.Second {
		t.Errorf("took %v", tr.Took)
	}
}

// A copy that is over between two samples counts all the same.
func TestTrackerQuickCopy(t *testing.T) {
	tr := NewTracker(limits())
	for i, s := range []Sample{{CDRead: 5 * mb}, {CDRead: 30 * mb, DiskMade: 30 * mb, Resets: 1}, {CDRead: 30 * mb, DiskMade: 30 * mb, Resets: 1}} {
		s.At = time.Duration(i) * time.Second
		if _, err := tr.Observe(s); err != nil || tr.Stage() != []Stage{Setup, Copying, FirstBoot}[i] {
			t.Errorf("sample %d: got %v, %v", i, tr.Stage(), err)
		}
	}
}

func TestTrackerErrors(t *testing.T) {
	for name, c := range map[string]struct {
		samples []Sample
		is      error
		says    string
	}{
		"stage too long": {[]Sample{{At: 0, Screen: "a"}, {At: 50 * time.Second, Screen: "b"}, {At: 61 * time.Second, Screen: "c"}}, ErrTooLong, "stage firmware has taken more than 1m"},
		"stuck": {[]Sample{
			{At: 1 * time.Second, CDRead: 2 * mb},
			{At: 2 * time.Second, CDRead: 2 * mb, DiskMade: 2 * mb},
			{At: 9 * time.Minute, CDRead: 2 * mb, DiskMade: 2 * mb},
			{At: 11 * time.Minute, CDRead: 2 * mb, DiskMade: 2 * mb},
		}, ErrStuck, "stage copying"},
		"script failed": {[]Sample{{At: 1, Console: "x\n" + answer.FailedLine + "no \x1b[31msshd\r\n"}}, ErrFailed, `"no \x1b[31msshd"`},
		"sshd never comes": {[]Sample{
			{At: 1 * time.Second, Console: answer.StageSSHD},
			{At: 2 * time.Minute, Console: answer.StageSSHD, Screen: "a"},
			{At: 5*time.Minute + 2*time.Second, Console: answer.StageSSHD, Screen: "b"},
		}, ErrTooLong, "stage sshd"},
	} {
		tr := NewTracker(limits())
		var err error
		for i, s := range c.samples {
			if _, err = tr.Observe(s); err != nil && i < len(c.samples)-1 {
				t.Errorf("%s: sample %d: %v", name, i, err)
			}
		}
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
}

func TestTrackerResetLoop(t *testing.T) {
	tr := NewTracker(limits())
	var err error
	for i := range loopResets + 1 {
		if _, err = tr.Observe(Sample{At: time.Duration(i) * time.Second, Resets: i, Screen: fmt.Sprint(i)}); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrResetLoop) {
		t.Errorf("got %v", err)
	}
	// Resets of an install that goes on.
	tr = NewTracker(limits())
	for i := range 20 {
		if _, err := tr.Observe(Sample{At: time.Duration(i) * time.Second, Resets: i, DiskMade: int64(i) * 10 * mb}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAsksForKey(t *testing.T) {
	for text, want := range map[string]bool{
		"Press any key to boot from CD or DVD.....": true, "SeaBIOS\nPress any key to boot from CD.. ": true, "": false, "Press any key to continue": false,
	} {
		if asksForKey(text) != want {
			t.Errorf("%q: not %v", text, want)
		}
	}
}
