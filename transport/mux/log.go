package mux

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"github.com/hashicorp/yamux"
)

// maxYamuxLogs is how many of yamux's messages a session may log: the peer can
// cause as many as it likes.
const maxYamuxLogs = 20

// yamuxLogger hands yamux's messages to slog.
type yamuxLogger struct {
	log  *slog.Logger
	conn *recordConn
	n    atomic.Int64
}

var _ yamux.Logger = (*yamuxLogger)(nil)

func (l *yamuxLogger) Printf(format string, v ...any) { l.print(fmt.Sprintf(format, v...)) }
func (l *yamuxLogger) Print(v ...any)                 { l.print(fmt.Sprint(v...)) }
func (l *yamuxLogger) Println(v ...any)               { l.print(fmt.Sprint(v...)) }

func (l *yamuxLogger) print(msg string) {
	n := l.n.Add(1)
	if n > maxYamuxLogs {
		return
	}
	level := slog.LevelInfo
	switch {
	case l.conn.why() != nil:
		level = slog.LevelDebug // what fails after the end has a known cause
	case strings.HasPrefix(msg, "[ERR]"):
		level = slog.LevelError
	case strings.HasPrefix(msg, "[WARN]"):
		level = slog.LevelWarn
	}
	_, text, found := strings.Cut(msg, "yamux: ")
	if !found {
		text = msg
	}
	l.log.Log(context.Background(), level, "yamux", "msg", text, "last", n == maxYamuxLogs)
}
