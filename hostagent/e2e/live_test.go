package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"winvm/hostagent/event"
	"winvm/hostagent/export"
	"winvm/hostagent/guest"
	"winvm/hostagent/hostfs"
	"winvm/hostagent/image"
	"winvm/hostagent/job"
	"winvm/hostagent/nixstore"
	"winvm/hostagent/pair"
	"winvm/hostagent/qemu"
	"winvm/hostagent/session"
	"winvm/transport/agentrpc"
	"winvm/transport/fsrpc"
)

// connections are what lives on through a suspend: TCP connections, and the SMB
// sessions and tree connects on them.
type connections struct {
	SSHLocal, SSHRemote string
	Smbd                int
	Sessions            map[string]string // by id: who, and from where
	Trees               map[string]string // by id: session, share, when
}

// look asks the controller agent for its connections.
func look(ctx context.Context, t *testing.T, s *session.Session) connections {
	t.Helper()
	info, err := s.Agent.Info(ctx)
	must(t, err)
	var status struct {
		Sessions map[string]struct {
			ID             string `json:"session_id"`
			RemoteMachine  string `json:"remote_machine"`
			Hostname       string `json:"hostname"`
			SessionDialect string `json:"session_dialect"`
			Username       string `json:"username"`
			Server         struct {
				PID string `json:"pid"`
			} `json:"server_id"`
		} `json:"sessions"`
		Tcons map[string]struct {
			Service   string `json:"service"`
			Session   string `json:"session_id"`
			Connected string `json:"connected_at"`
		} `json:"tcons"`
	}
	if err := json.Unmarshal([]byte(info.SMBStatus), &status); err != nil {
		t.Fatalf("smbstatus: %v: %s", err, info.SMBStatus)
	}
	c := connections{
		SSHLocal: info.Guest.Local, SSHRemote: info.Guest.Remote, Smbd: info.SMBPid,
		Sessions: map[string]string{}, Trees: map[string]string{},
	}
	for id, x := range status.Sessions {
		// The host name of smbstatus has the client's TCP port.
		c.Sessions[id] = fmt.Sprint(x.ID, x.Username, x.RemoteMachine, x.Hostname, x.SessionDialect, x.Server.PID)
	}
	for id, x := range status.Tcons {
		if x.Service != "IPC$" {
			c.Trees[id] = fmt.Sprint(x.Session, x.Service, x.Connected)
		}
	}
	return c
}

// revived gives f a session in a revived pair whose store has x and whose xchg is
// an empty directory.
func revived(t *testing.T, f func(ctx context.Context, s *session.Session, xchg string)) {
	t.Helper()
	revivedWith(t, func(xchg fsrpc.Tree) fsrpc.Tree { return xchg }, f)
}

// revivedWith is revived with something between the guest and xchg.
func revivedWith(t *testing.T, between func(xchg fsrpc.Tree) fsrpc.Tree, f func(ctx context.Context, s *session.Session, xchg string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	log := slog.New(slog.DiscardHandler)
	i, err := image.NewStore(filepath.Dir(sharedImages(t))).Load(imageName)
	must(t, err)
	p, err := guest.Find(i.Guest)
	must(t, err)
	dir := i.Path(i.State.Dir)
	controller, windows := pair.Machines(i, p, i.State.Accel, qemu.DefaultBinary, dir, i.State.LaneMiB, true)
	vms, err := pair.Revive(ctx, pair.Config{
		Controller: controller, Guest: windows, StateDir: dir, LogDir: t.TempDir(),
		Timeline: event.NewTimeline(time.Now()), Log: log,
	})
	must(t, err)
	defer vms.Kill()

	storeDir, xchgDir := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(storeDir, "a-1", "x"), "from the store\n")
	store, err := nixstore.New(storeDir, []string{"a-1"})
	must(t, err)
	defer func() { _ = store.Close() }()
	xchg, err := hostfs.New(hostfs.Config{Root: xchgDir, Logger: log})
	must(t, err)
	defer func() { _ = xchg.Close() }()
	s, err := session.Dial(ctx, vms.Link(), vms.Lane, export.Shares{Store: store, Xchg: between(xchg)}, "test", log)
	must(t, err)
	defer s.Abort()
	must(t, s.Attach(ctx))
	f(ctx, s, xchgDir)
}

// The connections between the two VMs live on: in every revive there is the same
// SSH connection, from the same port, and the same SMB sessions with the same tree
// connects; and when the guest has used all of them there are still no others.
func TestConnectionsLiveOn(t *testing.T) {
	var first connections
	for n := range 2 {
		revived(t, func(ctx context.Context, s *session.Session, xchg string) {
			before := look(ctx, t, s)
			if n == 0 {
				first = before
			}
			t.Logf("revive %d: %+v", n, before)
			if before.SSHLocal == "" || before.SSHRemote == "" || len(before.Sessions) == 0 || len(before.Trees) != 2 {
				t.Fatalf("what there should be is not there: %+v", before)
			}
			var out bytes.Buffer
			exit, err := s.Run(ctx, session.Exec{
				ExecStart: agentrpc.ExecStart{Command: `type S:\a-1\x& copy S:\a-1\x X:\y >nul& type X:\y`},
				Stdout:    &out, Stderr: &out,
			})
			must(t, err)
			if exit.Status == nil || *exit.Status != 0 || lf(out.String()) != "from the store\nfrom the store\n" {
				t.Errorf("the command said %q and exited with %v", out.String(), exit)
			}
			must(t, s.Agent.Sync(ctx))
			if b, err := os.ReadFile(filepath.Join(xchg, "y")); err != nil || string(b) != "from the store\n" {
				t.Errorf("the host has %q, %v", b, err)
			}
			if after := look(ctx, t, s); !reflect.DeepEqual(after, before) {
				t.Errorf("after the command the connections are others:\nbefore %+v\nafter  %+v", before, after)
			}
			if !reflect.DeepEqual(before, first) {
				t.Errorf("in revive %d the connections are others:\nfirst %+v\nnow   %+v", n, first, before)
			}
			for id, who := range before.Sessions {
				if !strings.Contains(who, guest.GuestIPv4) {
					t.Errorf("session %s is not the guest's: %s", id, who)
				}
			}
		})
	}
}

// What was parked before the suspend can be attached to once.
func TestParkedOnce(t *testing.T) {
	revived(t, func(ctx context.Context, s *session.Session, _ string) {
		for n, want := range []string{"", "no command is parked"} {
			limited, cancel := context.WithTimeout(ctx, 20*time.Second)
			c, err := s.Start(limited, agentrpc.ExecStart{Attach: job.Runner})
			must(t, err)
			must(t, c.Input([]byte("1 X:\\nosuch\nx")))
			_, err = c.Wait(limited, session.Exec{})
			cancel()
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("attached %d: %v, want %q", n, err, want)
			}
		}
	})
}
