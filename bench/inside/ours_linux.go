package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"winvm/bench/work"
	"winvm/controlleragent/mounts"
	"winvm/transport/fsrpc"
	"winvm/transport/mux"
	"winvm/transport/shm"
	"winvm/transport/virtioserial"
)

// serveOursArg makes the program the one that serves our mounts: a process of its own,
// as the controller agent is, and a new one for every mount, so that it has cached
// nothing.
const serveOursArg = "serve-ours"

func mountOurs(r work.Request) (work.Result, func() error, error) {
	cmd := exec.Command("/proc/self/exe", serveOursArg, r.Option)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return work.Result{}, nil, err
	}
	if err := cmd.Start(); err != nil {
		return work.Result{}, nil, err
	}
	var res work.Result
	line, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		_, err = fmt.Sscanf(line, "ready %g %d\n", &res.Seconds, &res.Bytes)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		return res, nil, errors.Join(fmt.Errorf("its server said %q: %w", line, err), cmd.Wait())
	}
	return res, func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		return cmd.Wait()
	}, nil
}

// serveOurs mounts both shares of the session that the host dials, as the controller
// agent does, until it is told to end. It says how long the attachment took, and
// by how much the process has grown by it. With a profile it leaves that in xchg.
func serveOurs(ctx context.Context, option string) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	s, closeLink, err := dialOurs(ctx, !strings.Contains(option, work.OptionWire))
	if err != nil {
		return err
	}
	defer closeLink()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	cfg := mounts.Config{StoreDir: filepath.Join(work.MountDir, "store"), XchgDir: filepath.Join(work.MountDir, "xchg")}
	for _, d := range []string{cfg.StoreDir, cfg.XchgDir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	m, err := mounts.Mount(cfg, log)
	if err != nil {
		return err
	}
	before, begin := resident(), time.Now()
	err = attach(ctx, m, s)
	if err == nil {
		var profile bytes.Buffer
		if strings.Contains(option, work.OptionProfile) {
			if err := pprof.StartCPUProfile(&profile); err != nil {
				return err
			}
		}
		fmt.Printf("ready %g %d\n", time.Since(begin).Seconds(), resident()-before)
		select {
		case <-ctx.Done():
		case <-s.Done():
			err = s.Err()
		}
		if strings.Contains(option, work.OptionProfile) {
			pprof.StopCPUProfile()
			err = errors.Join(err, os.WriteFile(filepath.Join(cfg.XchgDir, work.ProfileFile), profile.Bytes(), 0o644))
		}
	}
	err = errors.Join(err, m.Close())
	_ = s.Close()
	return err
}

// dialOurs is the controller's end of a session, with shared memory or without.
func dialOurs(ctx context.Context, withLane bool) (*mux.Session, func(), error) {
	ctx, cancel := context.WithTimeout(ctx, portPatience)
	defer cancel()
	path, err := virtioserial.Wait(ctx, "", work.PortOurs)
	if err != nil {
		return nil, nil, err
	}
	p, err := virtioserial.Open(path)
	if err != nil {
		return nil, nil, err
	}
	var lane *shm.Region
	if withLane {
		if lane, err = shm.Find(""); err != nil {
			return nil, nil, errors.Join(err, p.Close())
		}
	}
	ep, err := mux.NewEndpoint(p, mux.Config{Lane: lane})
	if err != nil {
		return nil, nil, errors.Join(err, p.Close())
	}
	s, err := ep.Accept(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, ep.Close())
	}
	return s, func() { _ = ep.Close() }, nil
}

func attach(ctx context.Context, m *mounts.Mounts, s *mux.Session) error {
	var shares mounts.Shares
	conn, err := s.OpenBulk(ctx, fsrpc.StreamName(fsrpc.ShareStore))
	if err != nil {
		return err
	}
	if shares.Store, err = fsrpc.AttachStore(ctx, conn); err != nil {
		return err
	}
	if conn, err = s.OpenBulk(ctx, fsrpc.StreamName(fsrpc.ShareXchg)); err != nil {
		return err
	}
	if shares.Xchg, err = fsrpc.AttachTree(ctx, conn); err != nil {
		return err
	}
	return m.Attach(ctx, shares)
}

// resident is the process's resident memory in bytes.
func resident() int64 {
	var size, pages int64
	b, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		_, _ = fmt.Sscan(string(b), &size, &pages)
	}
	return pages * int64(os.Getpagesize())
}
