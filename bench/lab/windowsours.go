package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"winvm/hostagent/export"
	"winvm/hostagent/pair"
	"winvm/hostagent/session"
	"winvm/transport/agentrpc"
)

// machines describes the image's pair, with its memory in dir.
func (i *Image) machines(cfg WindowsConfig, dir string) (pair.Config, error) {
	for _, vm := range []string{pair.Controller, pair.Guest} {
		from, to := filepath.Join(i.initrds, vm+".initrd"), filepath.Join(dir, vm+".initrd")
		if err := os.Link(from, to); err != nil {
			return pair.Config{}, err
		}
	}
	c, g := pair.Machines(i.image, i.profile, string(cfg.Accel), "", dir, pair.LaneMiB, false)
	return pair.Config{Controller: c, Guest: g, StateDir: dir, LogDir: dir, Log: cfg.Log}, nil
}

// startOurs boots the product's pair and opens a session, as a suspend does.
func (w *Windows) startOurs(ctx context.Context, cfg WindowsConfig, i *Image, dir string) (commander, error) {
	c, err := i.machines(cfg, dir)
	if err != nil {
		return nil, err
	}
	p, err := pair.Boot(ctx, c)
	if err != nil {
		return nil, err
	}
	w.atEnd(p.Kill)
	w.vms = append(w.vms, p.Guest, p.Controller)
	o, err := openOurs(ctx, cfg.Dir, cfg.Log)
	if err != nil {
		return nil, err
	}
	w.atEnd(func() { _ = o.close() })
	s, err := session.Dial(ctx, p.Link(), p.Lane, export.Shares{Store: o.store, Xchg: o.tree}, "bench", cfg.Log)
	if err != nil {
		return nil, err
	}
	w.atEnd(s.Abort)
	if err := s.Attach(ctx); err != nil {
		return nil, err
	}
	if _, err := s.WaitGuest(ctx, nil); err != nil {
		return nil, err
	}
	return &sessionCommander{s: s, w: w}, nil
}

// A sessionCommander runs commands as the product does.
type sessionCommander struct {
	s *session.Session
	w *Windows
}

func (c *sessionCommander) run(ctx context.Context, command string) error {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	said := &strings.Builder{}
	exit, err := c.s.Run(ctx, session.Exec{ExecStart: agentrpc.ExecStart{Command: command}, Stdout: said, Stderr: said})
	switch {
	case err != nil:
	case exit.Status == nil:
		err = errors.New("no exit status")
	case *exit.Status != 0:
		err = fmt.Errorf("exit status %d", *exit.Status)
	}
	if err != nil {
		return fmt.Errorf("%w: %s", err, said)
	}
	return nil
}

func (c *sessionCommander) start(command string) (io.Writer, io.Reader, error) {
	in, stdin := io.Pipe()
	stdout, out := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := c.s.Run(ctx, session.Exec{ExecStart: agentrpc.ExecStart{Command: command}, Stdin: in, Stdout: out, Stderr: os.Stderr})
		_ = out.CloseWithError(fmt.Errorf("the program in the guest ended: %w", errors.Join(err, io.EOF)))
	}()
	c.w.atEnd(func() {
		_ = stdin.Close()
		cancel()
		_ = stdout.Close()
		<-done
	})
	return stdin, stdout, nil
}
