package controlleragent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"winvm/controlleragent/mounts"
	"winvm/controlleragent/samba"
	"winvm/controlleragent/sshexec"
	"winvm/controlleragent/touched"
	"winvm/transport/agentrpc"
	"winvm/transport/fsrpc"
	"winvm/transport/mux"
	"winvm/transport/rpc"
	"winvm/transport/shm"
	"winvm/transport/virtioserial"
)

// sambaDir is where smbd keeps its state: in memory, and so in the snapshot.
const sambaDir = "/run/winvm-samba"

// An agent is what outlives sessions.
type agent struct {
	mounts *mounts.Mounts
	store  string // where the share nixstore is mounted
	smbd   *samba.Server
	guest  *sshexec.Guest
	build  string
	log    *slog.Logger
}

// Run mounts, starts smbd and serves sessions until ctx ends.
func Run(ctx context.Context, cfg agentrpc.Config, build string, log *slog.Logger) error {
	guest, err := sshexec.New(cfg.Guest, log)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	defer guest.Close()
	m, err := mounts.Mount(mounts.Config{StoreDir: cfg.StoreDir, XchgDir: cfg.XchgDir, User: cfg.Samba.User}, log)
	if err != nil {
		return err
	}
	defer func() {
		if err := m.Close(); err != nil {
			log.Error("unmount", "err", err)
		}
	}()
	smbd, err := samba.Start(ctx, samba.Config{
		Dir:         sambaDir,
		Port:        445,
		MinProtocol: cfg.Samba.MinProtocol,
		User:        cfg.Samba.User,
		Password:    cfg.Samba.Password,
		Shares: []samba.Share{
			{Name: fsrpc.ShareStore, Path: cfg.StoreDir},
			{Name: fsrpc.ShareXchg, Path: cfg.XchgDir, ReadOnlyAttribute: true},
		},
	}, log)
	if err != nil {
		return err
	}
	defer smbd.Stop()
	a := &agent{mounts: m, store: cfg.StoreDir, smbd: smbd, guest: guest, build: build, log: log}
	return a.serveSessions(ctx, cfg.Port)
}

func (a *agent) serveSessions(ctx context.Context, portName string) error {
	path, err := virtioserial.Wait(ctx, "", portName)
	if err != nil {
		return err
	}
	port, err := virtioserial.Open(path)
	if err != nil {
		return err
	}
	lane, err := shm.Find("")
	if errors.Is(err, shm.ErrNone) {
		a.log.Info("all goes over the channel", "err", err)
	} else if err != nil {
		a.log.Warn("all goes over the channel", "err", err)
	}
	ep, err := mux.NewEndpoint(port, mux.Config{Logger: a.log, Build: a.build, Lane: lane})
	if err != nil {
		return errors.Join(err, port.Close())
	}
	defer func() { _ = ep.Close() }()
	a.log.Info("waiting for a host agent", "port", path)
	for {
		s, err := ep.Accept(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, mux.ErrLink):
			return err
		case err != nil:
			a.log.Warn("no session", "err", err)
			continue
		}
		a.log.Info("session begins", "peer", s.PeerVersion())
		err = a.serve(ctx, s)
		a.mounts.Detach()
		a.log.Info("session ended", "err", err)
	}
}

// serve serves one session until it ends.
func (a *agent) serve(ctx context.Context, s *mux.Session) error {
	ctx, cancel := context.WithCancel(ctx)
	h := &handler{agent: a, session: s}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer func() { _ = s.Close() }()
	defer h.endTrack()
	for {
		name, conn, err := s.Accept(ctx)
		if err != nil {
			return err
		}
		wg.Go(func() { a.serveStream(ctx, h, name, conn) })
	}
}

func (a *agent) serveStream(ctx context.Context, h *handler, name string, conn net.Conn) {
	switch name {
	case agentrpc.StreamAgent:
		limits := rpc.Limits{MaxRequest: agentrpc.MaxMessage, InFlight: 8}
		if err := rpc.Serve(ctx, conn, agentrpc.Dispatch(h), fsrpc.ToErrno, limits, a.log); err != nil && ctx.Err() == nil {
			a.log.Warn("agent stream", "err", err)
		}
	case agentrpc.StreamExec:
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		defer stop()
		a.guest.Serve(ctx, agentrpc.NewExecConn(conn))
	default:
		a.log.Warn("a stream of an unknown name was opened", "name", name)
		_ = conn.Close()
	}
}

// A handler carries out the requests of one session.
type handler struct {
	*agent
	session *mux.Session

	mu      sync.Mutex
	watch   *touched.Watch // nil: nothing is noted
	list    []agentrpc.TouchedFile
	partial bool
}

var _ agentrpc.Handler = (*handler)(nil)

func (h *handler) Hello(_ context.Context, r agentrpc.HelloRequest) (agentrpc.HelloResponse, error) {
	if r.Version != agentrpc.Version {
		return agentrpc.HelloResponse{}, fmt.Errorf("the host agent speaks version %d, the controller agent in the image %d: `hostagent suspend` brings the image up to date", r.Version, agentrpc.Version)
	}
	if err := reseed(r.Seed); err != nil {
		return agentrpc.HelloResponse{}, err
	}
	return agentrpc.HelloResponse{Version: agentrpc.Version, Build: h.build}, nil
}

func (h *handler) Attach(ctx context.Context, r agentrpc.AttachRequest) (agentrpc.AttachResponse, error) {
	begin := time.Now()
	var shares mounts.Shares
	for _, name := range r.Shares {
		conn, err := h.session.OpenBulk(ctx, fsrpc.StreamName(name))
		if err != nil {
			return agentrpc.AttachResponse{}, fmt.Errorf("share %q: %w", name, err)
		}
		if err := attach(ctx, &shares, name, conn); err != nil {
			_ = conn.Close()
			return agentrpc.AttachResponse{}, fmt.Errorf("share %q: %w", name, err)
		}
	}
	if err := h.mounts.Attach(ctx, shares); err != nil {
		return agentrpc.AttachResponse{}, err
	}
	return agentrpc.AttachResponse{Took: time.Since(begin)}, nil
}

func attach(ctx context.Context, s *mounts.Shares, name string, conn net.Conn) (err error) {
	switch name {
	case fsrpc.ShareStore:
		s.Store, err = fsrpc.AttachStore(ctx, conn)
	case fsrpc.ShareOutputs:
		s.Outputs, err = fsrpc.AttachTree(ctx, conn)
	case fsrpc.ShareXchg:
		s.Xchg, err = fsrpc.AttachTree(ctx, conn)
	default:
		err = errors.New("the controller has no mount for it")
	}
	return err
}

func (h *handler) Guest(ctx context.Context, r agentrpc.GuestRequest) (agentrpc.GuestResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Wait)
	defer cancel()
	return h.guest.Connect(ctx), nil
}

func (h *handler) Sync(ctx context.Context) error { return h.mounts.Sync(ctx) }

func (h *handler) Ping(ctx context.Context) error { return h.guest.Ping(ctx) }

func (h *handler) Warm(ctx context.Context) (agentrpc.WarmResponse, error) {
	begin := time.Now()
	files, bytes, err := h.mounts.Warm(ctx)
	return agentrpc.WarmResponse{Files: files, Bytes: bytes, Took: time.Since(begin)}, err
}

// Track begins anew if it was begun before.
func (h *handler) Track(context.Context) error {
	h.endTrack()
	w, err := touched.Start(h.store)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watch = w
	return nil
}

func (h *handler) endTrack() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watch != nil {
		_ = h.watch.Close()
		h.watch, h.list = nil, nil
	}
}

func (h *handler) Touched(_ context.Context, r agentrpc.TouchedRequest) (agentrpc.TouchedResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watch == nil {
		return agentrpc.TouchedResponse{}, errors.New("nothing was noted: there was no request to")
	}
	if r.First == 0 {
		files, partial := h.watch.Files()
		h.list, h.partial = make([]agentrpc.TouchedFile, 0, len(files)), partial
		for _, f := range files {
			h.list = append(h.list, agentrpc.TouchedFile{Path: f.Path, Read: f.Read})
		}
	}
	rest := h.list[min(max(r.First, 0), len(h.list)):]
	return agentrpc.TouchedResponse{Files: rest[:agentrpc.TouchedPart(rest)], Partial: h.partial}, nil
}

func (h *handler) Quiesce(context.Context) error {
	h.mounts.Detach()
	return nil
}

func (h *handler) Info(ctx context.Context) (agentrpc.InfoResponse, error) {
	status, err := h.smbd.Status(ctx)
	if err != nil {
		return agentrpc.InfoResponse{}, err
	}
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return agentrpc.InfoResponse{}, err
	}
	return agentrpc.InfoResponse{
		Guest:     h.guest.State(),
		SMBStatus: status,
		SMBPid:    h.smbd.Pid(),
		Mounts:    string(table),
	}, nil
}

func (h *handler) Watch(ctx context.Context) (agentrpc.WatchResponse, error) {
	select {
	case <-ctx.Done():
		return agentrpc.WatchResponse{}, ctx.Err()
	case <-h.smbd.Done():
		return agentrpc.WatchResponse{Failure: fmt.Sprintf("the SMB server in the controller VM ended: %v", h.smbd.Err())}, nil
	case err := <-h.guest.Lost():
		return agentrpc.WatchResponse{Failure: fmt.Sprintf("the SSH connection to the guest ended: %v", err)}, nil
	}
}
