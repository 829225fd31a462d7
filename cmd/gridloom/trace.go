package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// jsonCall is a call as it is shown. Durations are seconds.
type jsonCall struct {
	Type     string  `json:"type"` // "call"
	Node     string  `json:"node"`
	Started  string  `json:"started_at"`
	API      string  `json:"api"`
	Protocol string  `json:"protocol"`
	Method   string  `json:"method,omitempty"`
	Status   string  `json:"status"`
	Class    string  `json:"class"`
	Error    string  `json:"error,omitempty"`
	TTFB     float64 `json:"ttfb_seconds"`
	Duration float64 `json:"duration_seconds"`
	Received int64   `json:"received_bytes"`
	Sent     int64   `json:"sent_bytes"`
	Bucket   string  `json:"bucket,omitempty"`
	Key      string  `json:"key,omitempty"`
	User     string  `json:"user,omitempty"`
	TraceID  string  `json:"trace_id,omitempty"`
}

func (a *app) traceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trace",
		Short: "Show calls as they happen",
		Long: `Show the calls to every node of the mesh as they end, until interrupted: when
each was made, at which node, what for, how it ended, how long its client waited
for the first byte and in all, and how many bytes came and went.

It takes an admin over all buckets, or the root key. While nobody watches it
costs the nodes nothing; and whoever watches slows no call: calls that come
faster than they are shown are lost, and their number is told on standard error,
as is a node that can't be asked. A node that joins is shown within 5 s.`,
		Example: `  gridloom trace
  gridloom trace --status error
  gridloom trace --node node2 --api GetObject --min-latency 200ms
  gridloom trace --status 5xx --status canceled --json | jq -r '[.node,.api,.error]|@tsv'`,
		Args: arguments(0, 0),
	}
	node := nodeFlag(cmd)
	apis := cmd.Flags().StringArray("api", nil, "only calls of the API `NAME` (GetObject, PutObject, ListObjects); repeatable")
	statuses := cmd.Flags().StringArray("status", nil, "only calls that ended with `STATUS`: one of HTTP (404), a class (4xx), a gRPC code (NotFound), a kind of error (object_not_found), or error for all that failed; repeatable")
	slow := cmd.Flags().Duration("min-latency", 0, "only calls that took at least `DURATION`")
	times := cmd.Flags().Int("count", 0, "end after `N` calls; 0 never")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, _ []string) error {
		switch {
		case *slow < 0:
			return usageErrorf("--min-latency: %v is negative", *slow)
		case *times < 0:
			return usageErrorf("--count: %d is negative", *times)
		}
		w := &callWatch{a: a, news: news{a: a, what: "call"}, left: *times}
		return w.run(ctx, c, &gridloomv1.WatchCallsRequest{Node: *node, Api: *apis, Status: *statuses, MinDuration: durationpb.New(*slow)})
	})
}

func nodeFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("node", "", "only the node `NAME`; local is the one at --endpoint (default all)")
}

// callWatch shows calls.
type callWatch struct {
	a    *app
	news news
	left int // calls still to be shown; 0: all
	head bool
}

func (w *callWatch) run(ctx context.Context, c *client, r *gridloomv1.WatchCallsRequest) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := gridloomv1.NewDiagnosticsServiceClient(c.conn).WatchCalls(ctx, r)
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return watched(ctx, err)
		}
		w.news.hear(m.GetNode(), m.GetDropped(), m.GetError())
		if m.GetCall() == nil {
			continue
		}
		j := callJSON(m.GetNode(), m.GetCall())
		if err := w.a.out.print(j, func() string { return w.text(&j) }); err != nil {
			return err
		}
		if w.left > 0 {
			if w.left--; w.left == 0 {
				return nil
			}
		}
	}
}

// watched is the error of a stream that goes on until it is interrupted, which
// is how it should end.
func watched(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// news tells on standard error what is to be known of the nodes.
type news struct {
	a    *app
	what string
	lost map[string]int64
	gone map[string]bool
}

func (n *news) hear(node string, dropped int64, why string) {
	if n.lost == nil {
		n.lost, n.gone = map[string]int64{}, map[string]bool{}
	}
	if why != "" {
		n.gone[node] = true
		fmt.Fprintf(n.a.stderr, "%s: nothing is shown of it: %s\n", shown(node), shown(why))
		return
	}
	if n.gone[node] {
		delete(n.gone, node)
		delete(n.lost, node) // it counts anew
		fmt.Fprintf(n.a.stderr, "%s: it is shown again\n", shown(node))
	}
	if more := dropped - n.lost[node]; more > 0 {
		n.lost[node] = dropped
		fmt.Fprintf(n.a.stderr, "%s: %s lost, as they came faster than they are shown\n", shown(node), count(more, n.what))
	}
}

func callJSON(node string, c *gridloomv1.Call) jsonCall {
	return jsonCall{
		Type: "call", Node: node, Started: c.GetStartedAt().AsTime().UTC().Format(time.RFC3339Nano), API: c.GetApi(), Protocol: c.GetProtocol(), Method: c.GetMethod(),
		Status: c.GetStatus(), Class: c.GetClass(), Error: c.GetError(),
		TTFB: c.GetTtfb().AsDuration().Seconds(), Duration: c.GetDuration().AsDuration().Seconds(),
		Received: c.GetReceivedBytes(), Sent: c.GetSentBytes(),
		Bucket: c.GetBucket(), Key: c.GetKey(), User: c.GetUser(), TraceID: c.GetTraceId(),
	}
}

const callColumns = "%-12s  %-8s  %-4s  %-18s  %-16s  %8s  %8s  %9s  %9s  %s\n"

// text is a line, and before the first the columns' names.
func (w *callWatch) text(j *jsonCall) string {
	line := ""
	if !w.head {
		w.head = true
		line = fmt.Sprintf(callColumns, "TIME", "NODE", "BY", "API", "STATUS", "TTFB", "TOOK", "IN", "OUT", "WHAT")
	}
	at, err := time.Parse(time.RFC3339Nano, j.Started)
	if err != nil {
		at = time.Time{}
	}
	what := j.Bucket
	if j.Key != "" {
		what += "/" + j.Key
	}
	var about []string
	for _, part := range []string{what, j.Error, byUser(j.User)} {
		if part != "" {
			about = append(about, shown(part))
		}
	}
	return line + fmt.Sprintf(callColumns, at.Local().Format("15:04:05.000"), shown(j.Node), j.Protocol, shown(j.API), j.Status,
		brief(j.TTFB), brief(j.Duration), byteSize(j.Received), byteSize(j.Sent), strings.Join(about, "  "))
}

func byUser(user string) string {
	if user == "" {
		return ""
	}
	return "by " + user
}

// brief is a duration in seconds with three digits.
func brief(seconds float64) string {
	switch d := time.Duration(seconds * float64(time.Second)); {
	case d < time.Millisecond:
		return fmt.Sprintf("%dµs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%.3gms", float64(d)/float64(time.Millisecond))
	default:
		return fmt.Sprintf("%.3gs", seconds)
	}
}
