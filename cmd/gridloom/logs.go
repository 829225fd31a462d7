package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// jsonLine is a line of a node's log.
type jsonLine struct {
	Type       string            `json:"type"` // "log"
	Node       string            `json:"node"`
	Time       string            `json:"time"`
	Level      string            `json:"level"` // "debug", "info", "warn", "error"
	Message    string            `json:"message"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

func (a *app) logsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Show the nodes' logs, and follow them",
		Long: `Show the last lines of the log of every node of the mesh, one node after the
other, and with -f those to come, until interrupted.

A node keeps its last 1,000 lines of info and above in memory, whatever --log-level
it was started with; lines of debug are there only while they are followed, or
where the node logs them anyway. It takes an admin over all buckets, or the root
key. Lines that come faster than they are shown are lost, and their number is told
on standard error, as is a node that can't be asked. With -f a node that joins is
shown within 5 s.`,
		Example: `  gridloom logs --node node2
  gridloom logs -f --level warn
  gridloom logs -f --tail 0 --json | jq -r 'select(.attributes.drive).message'`,
		Args: arguments(0, 0),
	}
	node := nodeFlag(cmd)
	follow := cmd.Flags().BoolP("follow", "f", false, "go on with what is logged from now on")
	tail := cmd.Flags().Int("tail", 100, "begin with the last `N` lines of each node, at most 1000")
	level := cmd.Flags().String("level", "info", "only lines of `LEVEL` and above: debug, info, warn or error")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, _ []string) error {
		least, ok := gridloomv1.LogLevel_value["LOG_LEVEL_"+strings.ToUpper(*level)]
		if !ok || least == 0 {
			return usageErrorf("--level: %q is none of debug, info, warn, error", *level)
		}
		if *tail < 0 || *tail > 1000 {
			return usageErrorf("--tail: %d is not within 0 to 1000", *tail)
		}
		r := &gridloomv1.WatchLogsRequest{Node: *node, Level: gridloomv1.LogLevel(least), Tail: int32(*tail), Follow: *follow}
		if *tail == 0 {
			r.Tail = -1
		}
		return a.showLogs(ctx, c, r)
	})
}

func (a *app) showLogs(ctx context.Context, c *client, r *gridloomv1.WatchLogsRequest) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := gridloomv1.NewDiagnosticsServiceClient(c.conn).WatchLogs(ctx, r)
	if err != nil {
		return err
	}
	news := news{a: a, what: "line"}
	for {
		m, err := stream.Recv()
		if err != nil {
			return watched(ctx, err)
		}
		news.hear(m.GetNode(), m.GetDropped(), m.GetError())
		if m.GetLine() == nil {
			continue
		}
		j := lineJSON(m.GetNode(), m.GetLine())
		if err := a.out.print(j, func() string { return lineText(&j, m.GetLine().GetAttributes()) }); err != nil {
			return err
		}
	}
}

func lineJSON(node string, l *gridloomv1.LogLine) jsonLine {
	j := jsonLine{
		Type: "log", Node: node, Time: l.GetLoggedAt().AsTime().UTC().Format(time.RFC3339Nano),
		Level: enumWord(l.GetLevel(), "LOG_LEVEL_"), Message: l.GetMessage(),
	}
	for _, at := range l.GetAttributes() {
		if j.Attributes == nil {
			j.Attributes = map[string]string{}
		}
		j.Attributes[at.GetName()] = at.GetValue()
	}
	return j
}

// lineText is a line, with its attributes in their order.
func lineText(j *jsonLine, attributes []*gridloomv1.LogAttribute) string {
	var b strings.Builder
	at := j.Time
	if t, err := time.Parse(time.RFC3339Nano, j.Time); err == nil {
		at = t.Local().Format("2006-01-02T15:04:05.000Z07:00")
	}
	fmt.Fprintf(&b, "%s  %-8s  %-5s  %s", at, shown(j.Node), strings.ToUpper(j.Level), shown(j.Message))
	for _, a := range attributes {
		value := a.GetValue()
		if value == "" || strings.ContainsAny(value, " =\"\n\t") {
			value = strconv.Quote(value)
		}
		fmt.Fprintf(&b, " %s=%s", shown(a.GetName()), shown(value))
	}
	b.WriteByte('\n')
	return b.String()
}
