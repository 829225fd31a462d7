package replica

import (
	"context"
	"fmt"
	"log/slog"

	"go.etcd.io/raft/v3"
)

// raftLogger is raft's way into our log. What raft finds worth an info is of
// interest to those who debug it.
type raftLogger struct{ log *slog.Logger }

var _ raft.Logger = raftLogger{}

// Debug implements raft.Logger.
func (l raftLogger) Debug(v ...any) {}

// Debugf implements raft.Logger.
func (l raftLogger) Debugf(string, ...any) {}

// Info implements raft.Logger.
func (l raftLogger) Info(v ...any) { l.log.Debug(fmt.Sprint(v...)) }

// Infof implements raft.Logger.
func (l raftLogger) Infof(format string, v ...any) { l.printf(slog.LevelDebug, format, v...) }

// Warning implements raft.Logger.
func (l raftLogger) Warning(v ...any) { l.log.Warn(fmt.Sprint(v...)) }

// Warningf implements raft.Logger.
func (l raftLogger) Warningf(format string, v ...any) { l.printf(slog.LevelWarn, format, v...) }

// Error implements raft.Logger.
func (l raftLogger) Error(v ...any) { l.log.Error(fmt.Sprint(v...)) }

// Errorf implements raft.Logger.
func (l raftLogger) Errorf(format string, v ...any) { l.printf(slog.LevelError, format, v...) }

// Fatal implements raft.Logger.
func (l raftLogger) Fatal(v ...any) { panic(fmt.Sprint(v...)) }

// Fatalf implements raft.Logger.
func (l raftLogger) Fatalf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }

// Panic implements raft.Logger.
func (l raftLogger) Panic(v ...any) { panic(fmt.Sprint(v...)) }

// Panicf implements raft.Logger.
func (l raftLogger) Panicf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }

func (l raftLogger) printf(level slog.Level, format string, v ...any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, fmt.Sprintf(format, v...))
	}
}
