package observability

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"

	"go.opentelemetry.io/otel/trace"
)

// messages are those of lines, with what belongs to them.
func messages(lines []Line) string {
	var all []string
	for _, l := range lines {
		text := l.Level.String() + " " + l.Message
		for _, a := range l.Attrs {
			text += " " + a.Name + "=" + a.Value
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

// TestLines: the last lines are kept as they were logged, whatever the log itself
// leaves out.
func TestLines(t *testing.T) {
	lines := NewLines()
	var out bytes.Buffer
	log := slog.New(lines.Handler(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn}).WithAttrs([]slog.Attr{slog.String("node", "a")})))
	log.Debug("nobody wants this")
	log.With("drive", 1).WithGroup("heal").Info("copied", "bytes", 17, slog.Group("from", "node", "b"))
	log.Warn("failed", "error", errors.New("no space"))
	want := "INFO copied drive=1 heal.bytes=17 heal.from.node=b; WARN failed error=no space"
	if got := messages(lines.Last(slog.LevelInfo, 10)); got != want {
		t.Errorf("kept are %q, want %q", got, want)
	}
	if got := messages(lines.Last(slog.LevelWarn, 10)); got != "WARN failed error=no space" {
		t.Errorf("warnings are %q", got)
	}
	if got := messages(lines.Last(slog.LevelInfo, 1)); got != "WARN failed error=no space" {
		t.Errorf("the last one is %q", got)
	}
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `msg=failed node=a error="no space"`) {
		t.Errorf("the log itself has %q", got)
	}

	for i := range MaxLines + 5 {
		log.Info(fmt.Sprint(i))
	}
	all := lines.Last(slog.LevelInfo, MaxLines+100)
	if len(all) != MaxLines || all[0].Message != "5" || all[MaxLines-1].Message != fmt.Sprint(MaxLines+4) {
		t.Errorf("%d lines are kept, from %q to %q", len(all), all[0].Message, all[len(all)-1].Message)
	}

	log.Error(strings.Repeat("ü", maxLineText), "a", strings.Repeat("x", 2*maxLineText))
	long := lines.Last(slog.LevelError, 1)[0]
	if len(long.Message) > maxLineText+4 || len(long.Attrs[0].Value) > maxLineText+4 || !utf8.ValidString(long.Message) {
		t.Errorf("a long line is kept with %d and %d bytes", len(long.Message), len(long.Attrs[0].Value))
	}
	many := make([]any, 0, 200)
	for i := range 100 {
		many = append(many, fmt.Sprint(i), i)
	}
	log.Error("many", many...)
	if n := len(lines.Last(slog.LevelError, 1)[0].Attrs); n != maxLineAttrs {
		t.Errorf("%d attributes are kept", n)
	}
}

// TestLinesOfATrace: a line of a request says which trace it belongs to.
func TestLinesOfATrace(t *testing.T) {
	lines := NewLines()
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}}))
	slog.New(lines.Handler(slog.DiscardHandler)).WarnContext(ctx, "late", "by", "a second")
	want := "WARN late by=a second trace_id=01000000000000000000000000000000 span_id=0200000000000000"
	if got := messages(lines.Last(slog.LevelInfo, 1)); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestFollowLines: who follows gets what comes of a level, debug too while he is
// there; who is slow loses lines and is told, and nobody waits for him.
func TestFollowLines(t *testing.T) {
	lines := NewLines()
	log := slog.New(lines.Handler(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelWarn})))
	log.Info("before")
	if log.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("lines of debug are made for nobody")
	}
	last, w := lines.Follow(slog.LevelDebug, 5)
	if messages(last) != "INFO before" {
		t.Errorf("it begins with %q", messages(last))
	}
	_, quiet := lines.Follow(slog.LevelError, 0)
	log.Debug("fine", "n", 1)
	log.Error("bad")
	if got := messages([]Line{*<-w.C(), *<-w.C()}); got != "DEBUG fine n=1; ERROR bad" {
		t.Errorf("followed are %q", got)
	}
	if got := *<-quiet.C(); got.Message != "bad" || len(quiet.C()) != 0 {
		t.Errorf("followed are %v and %d more", got, len(quiet.C()))
	}
	if got := messages(lines.Last(slog.LevelDebug, 9)); got != "INFO before; ERROR bad" {
		t.Errorf("kept are %q", got)
	}
	quiet.Close()
	const over = 3
	for range linesQueued + over {
		log.Info("more")
	}
	if w.Dropped() != over || len(w.C()) != linesQueued || len(quiet.C()) != 0 {
		t.Errorf("%d are lost and %d wait, want %d and %d", w.Dropped(), len(w.C()), over, linesQueued)
	}
	w.Close()
	w.Close() // again
	if log.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("lines of debug are made for somebody who is gone")
	}
	for range MaxWatches {
		_, more := lines.Follow(slog.LevelInfo, 0)
		defer more.Close()
	}
	if _, more := lines.Follow(slog.LevelInfo, 0); more != nil {
		t.Error("there is no bound of those who follow")
	}
}
