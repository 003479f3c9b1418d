package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"winvm/bench/work"
)

// Limits of a step; under emulation jobs take seconds.
const (
	mountLimit = 60 * time.Second
	jobLimit   = 3 * time.Minute
)

// Mount mounts a side with cold caches. The result has how long it took until it could
// be used, and for ours how many bytes its process has grown by.
func (l *Lab) Mount(ctx context.Context, s Side) (work.Result, error) {
	return l.mount(ctx, s, l.cfg.Dir)
}

// An Attachment is what it takes until a closure can be used.
type Attachment struct {
	Scan   float64 // seconds: its metadata read on the host
	Attach float64 // seconds: in the controller VM, from the session on
	Memory int64   // bytes that the process there has grown by
}

// Attach mounts our side of another directory, which has store and xchg as well, and
// unmounts it.
func (l *Lab) Attach(ctx context.Context, dir string) (Attachment, error) {
	r, err := l.mount(ctx, Sides[0], dir)
	if err != nil {
		return Attachment{}, err
	}
	a := Attachment{Scan: l.ours.scan.Seconds(), Attach: r.Seconds, Memory: r.Bytes}
	return a, l.Unmount(ctx)
}

func (l *Lab) mount(ctx context.Context, s Side, dir string) (work.Result, error) {
	r := work.Request{Op: work.OpMount, Arg: s.Kind, Option: s.Option}
	serving := make(chan error, 1)
	switch s.Kind {
	case work.SideOurs:
		if l.cfg.Profile {
			r.Option += work.OptionProfile
		}
		var err error
		if l.ours, err = openOurs(ctx, dir, l.cfg.Log); err != nil {
			return work.Result{}, err
		}
		lane := s.Option != work.OptionWire
		go func() { serving <- l.ours.serve(ctx, l.endpoint, lane, l.cfg.Log) }()
	case work.SideSSHFS:
		r.Option = dir
		f, err := l.vm.Port(work.PortSFTP).File()
		if err != nil {
			return work.Result{}, err
		}
		l.sftp, err = startChild(f, nil, sftpServerPath)
		_ = f.Close()
		if err != nil {
			return work.Result{}, fmt.Errorf("%w; Debian: openssh-sftp-server", err)
		}
		serving <- nil
	default:
		serving <- nil
	}
	res, err := l.do(ctx, mountLimit, r)
	if err != nil {
		return res, fmt.Errorf("%s: %w; console: %s", s.Name, err, l.vm.ConsoleTail())
	}
	l.mounted = s
	return res, <-serving
}

// Unmount unmounts what is mounted and drops every cache in the VM.
func (l *Lab) Unmount(ctx context.Context) error {
	_, err := l.do(ctx, mountLimit, work.Request{Op: work.OpUnmount})
	if l.ours != nil {
		err = errors.Join(err, l.ours.close())
		l.ours = nil
	}
	l.sftp.end(syscall.SIGKILL)
	l.sftp = nil
	if err != nil {
		return fmt.Errorf("unmount %s: %w", l.mounted.Name, err)
	}
	return nil
}

// Run does a job on what is mounted. Its path, and its load's, are below the mount.
func (l *Lab) Run(ctx context.Context, j work.Job) (work.Result, error) {
	j.Path = filepath.Join(work.MountDir, j.Path)
	if j.Load != "" {
		j.Load = filepath.Join(work.MountDir, j.Load)
	}
	return l.do(ctx, jobLimit, work.Request{Job: j})
}

// Raw does one of work's raw operations on the bare port, with a load on another one if
// loaded is set.
func (l *Lab) Raw(ctx context.Context, op string, j work.Job, loaded bool) (work.Result, error) {
	if loaded {
		j.Load = work.PortRawLoad
	}
	return l.do(ctx, jobLimit, work.Request{Op: work.OpRaw, Arg: op, Job: j})
}
