package api

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/gridloom/gridloom/gen/gridloom/v1"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/observability"
)

// Diagnostics shows what the nodes are doing. Both calls give send what comes, one
// at a time, from the caller's goroutine, until ctx ends or send fails; they ask
// the node of the filter's name, this one ("local"), or all (""). Their errors are
// *fault.Error, the context's, or send's.
type Diagnostics interface {
	WatchCalls(ctx context.Context, f CallFilter, send func(CallEvent) error) error
	// WatchLogs ends by itself when it has given the lines there are, unless it
	// is to follow.
	WatchLogs(ctx context.Context, f LogFilter, send func(LogEvent) error) error
}

// CallFilter chooses calls: those that fit all that is set.
type CallFilter struct {
	Node        string
	APIs        []string
	Statuses    []string // statuses, classes, kinds of errors, or "error" for all that failed
	MinDuration time.Duration
}

// Fits tells whether a call is one that is wanted.
func (f *CallFilter) Fits(c *observability.Call) bool {
	return c.Duration >= f.MinDuration &&
		(len(f.APIs) == 0 || slices.Contains(f.APIs, c.API)) &&
		(len(f.Statuses) == 0 || slices.ContainsFunc(f.Statuses, func(s string) bool {
			return s == c.Status || s == c.Class || c.Kind != "" && (s == c.Kind || s == anyError)
		}))
}

// anyError stands for all statuses of what has failed.
const anyError = "error"

// CallEvent is a call, or news of a node.
type CallEvent struct {
	Node    string
	Call    *observability.Call // nil: news of the node
	Dropped int64               // calls lost there so far
	Err     string              // why no more comes from there; "" while some does
}

// LogFilter chooses lines.
type LogFilter struct {
	Node   string
	Level  slog.Level
	Tail   int // of the last lines
	Follow bool
}

// LogEvent is a line, or news of a node.
type LogEvent struct {
	Node    string
	Line    *observability.Line // nil: news of the node
	Dropped int64
	Err     string
}

// diagnosticsService implements pb.DiagnosticsServiceServer.
type diagnosticsService struct {
	pb.UnimplementedDiagnosticsServiceServer
	diagnostics Diagnostics
}

func errNotShown() error {
	return fault.New(fault.Unimplemented, "node", "shows nothing of what it does")
}

// tailDefault is how many of the last lines are shown to who doesn't say.
const tailDefault = 100

func (s *diagnosticsService) WatchCalls(r *pb.WatchCallsRequest, stream grpc.ServerStreamingServer[pb.WatchCallsResponse]) error {
	if s.diagnostics == nil {
		return errNotShown()
	}
	f := CallFilter{Node: r.GetNode(), APIs: r.GetApi(), Statuses: r.GetStatus(), MinDuration: r.GetMinDuration().AsDuration()}
	if f.MinDuration < 0 {
		return fault.New(fault.InvalidArgument, "min_duration", "%v is negative", f.MinDuration)
	}
	if err := checkFew("api", f.APIs); err != nil {
		return err
	}
	if err := checkAPIs(f.APIs); err != nil {
		return err
	}
	if err := checkFew("status", f.Statuses); err != nil {
		return err
	}
	for _, status := range f.Statuses {
		if !isStatusName(status) {
			return fault.New(fault.InvalidArgument, "status", "%q is no status: give one of HTTP (404), a class (4xx), a gRPC code (NotFound), a kind of error (object_not_found), or error for all that failed", status)
		}
	}
	return s.diagnostics.WatchCalls(stream.Context(), f, func(e CallEvent) error {
		return stream.Send(&pb.WatchCallsResponse{Node: e.Node, Call: protoCall(e.Call), Dropped: e.Dropped, Error: e.Err})
	})
}

// filterMax is how many names a filter may have.
const filterMax = 64

func checkFew(field string, names []string) error {
	if len(names) > filterMax {
		return fault.New(fault.InvalidArgument, field, "has %d names; %d are allowed", len(names), filterMax)
	}
	return nil
}

// isStatusName tells whether a call may have that status, class or kind.
func isStatusName(name string) bool {
	if _, ok := fault.Parse(name); ok || name == anyError {
		return true
	}
	if n, err := strconv.Atoi(name); err == nil {
		return n >= 100 && n < 600
	}
	if len(name) == 3 && name[0] >= '1' && name[0] <= '5' && strings.HasSuffix(name, "xx") {
		return true
	}
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		if code.String() == name {
			return true
		}
	}
	return false
}

func protoCall(c *observability.Call) *pb.Call {
	if c == nil {
		return nil
	}
	return &pb.Call{
		Api: c.API, Protocol: c.Proto, Method: plain(c.Method),
		StartedAt: timestamppb.New(c.Start), Ttfb: durationpb.New(c.TTFB), Duration: durationpb.New(c.Duration),
		Status: c.Status, Class: c.Class, Error: c.Kind, ReceivedBytes: c.Received, SentBytes: c.Sent,
		Bucket: plain(c.Bucket), Key: plain(c.Key), User: plain(c.User), TraceId: c.TraceID,
	}
}

// plain makes a text that protobuf takes.
func plain(text string) string { return strings.ToValidUTF8(text, "\uFFFD") }

func (s *diagnosticsService) WatchLogs(r *pb.WatchLogsRequest, stream grpc.ServerStreamingServer[pb.WatchLogsResponse]) error {
	if s.diagnostics == nil {
		return errNotShown()
	}
	f := LogFilter{Node: r.GetNode(), Tail: int(r.GetTail()), Follow: r.GetFollow()}
	switch {
	case f.Tail == -1:
		f.Tail = 0
	case f.Tail == 0:
		f.Tail = tailDefault
	case f.Tail < 0 || f.Tail > observability.MaxLines:
		return fault.New(fault.InvalidArgument, "tail", "%d is not within -1 to %d", f.Tail, observability.MaxLines)
	}
	level, ok := map[pb.LogLevel]slog.Level{
		pb.LogLevel_LOG_LEVEL_UNSPECIFIED: slog.LevelInfo, pb.LogLevel_LOG_LEVEL_DEBUG: slog.LevelDebug,
		pb.LogLevel_LOG_LEVEL_INFO: slog.LevelInfo, pb.LogLevel_LOG_LEVEL_WARN: slog.LevelWarn, pb.LogLevel_LOG_LEVEL_ERROR: slog.LevelError,
	}[r.GetLevel()]
	if !ok {
		return fault.New(fault.InvalidArgument, "level", "%d is none of debug, info, warn, error", r.GetLevel())
	}
	f.Level = level
	return s.diagnostics.WatchLogs(stream.Context(), f, func(e LogEvent) error {
		return stream.Send(&pb.WatchLogsResponse{Node: e.Node, Line: protoLine(e.Line), Dropped: e.Dropped, Error: e.Err})
	})
}

func protoLine(l *observability.Line) *pb.LogLine {
	if l == nil {
		return nil
	}
	line := &pb.LogLine{LoggedAt: timestamppb.New(l.Time), Level: protoLevel(l.Level), Message: plain(l.Message)}
	for _, a := range l.Attrs {
		line.Attributes = append(line.Attributes, &pb.LogAttribute{Name: plain(a.Name), Value: plain(a.Value)})
	}
	return line
}

func protoLevel(l slog.Level) pb.LogLevel {
	switch {
	case l < slog.LevelInfo:
		return pb.LogLevel_LOG_LEVEL_DEBUG
	case l < slog.LevelWarn:
		return pb.LogLevel_LOG_LEVEL_INFO
	case l < slog.LevelError:
		return pb.LogLevel_LOG_LEVEL_WARN
	}
	return pb.LogLevel_LOG_LEVEL_ERROR
}
