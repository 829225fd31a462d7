package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// What gridloom doctor ends with, beside what every command does. They are a
// promise to scripts.
const (
	exitWarning  = 4
	exitCritical = 5
)

// jsonDoctor is what gridloom doctor found.
type jsonDoctor struct {
	Type     string                  `json:"type"`     // "doctor"
	Node     string                  `json:"node"`     // that answered
	Severity string                  `json:"severity"` // the worst of the findings, or "ok"
	Findings []jsonFinding           `json:"findings"`
	Nodes    []jsonDoctorNode        `json:"nodes"`
	Drives   []jsonDriveProbe        `json:"drives"`
	Peers    []jsonPeerProbe         `json:"peers"` // the matrix, a pair each
	Certs    []jsonDoctorCertificate `json:"certificates"`
}

// jsonFinding is one thing that somebody should know, and what to do about it.
type jsonFinding struct {
	Severity string `json:"severity"` // "info", "warning", "critical"
	Check    string `json:"check"`    // "node", "index", "clock", "drive", "peer", "certificate", "version"
	Node     string `json:"node,omitempty"`
	Subject  string `json:"subject,omitempty"` // the drive, the other node, the listener, the group
	Message  string `json:"message"`
	Advice   string `json:"advice"`
}

type jsonDoctorNode struct {
	Node        string   `json:"node"`
	State       string   `json:"state"`
	Version     string   `json:"version,omitempty"`
	ClockOffset *float64 `json:"clock_offset_seconds,omitempty"` // to the median of all
}

type jsonDriveProbe struct {
	Node    string   `json:"node"`
	Drive   string   `json:"drive"`
	Path    string   `json:"path"`
	State   string   `json:"state"`
	Seconds *float64 `json:"probe_seconds,omitempty"`
	Error   string   `json:"error,omitempty"`
}

type jsonPeerProbe struct {
	Node        string   `json:"node"` // that asked
	Peer        string   `json:"peer"`
	RTT         *float64 `json:"rtt_seconds,omitempty"`
	ClockOffset *float64 `json:"clock_offset_seconds,omitempty"` // the peer's minus the node's
	Error       string   `json:"error,omitempty"`
}

type jsonDoctorCertificate struct {
	Node      string `json:"node"`
	Listener  string `json:"listener"`
	NotBefore string `json:"not_before"`
	NotAfter  string `json:"not_after"`
	Issuer    string `json:"issuer"`
}

func (a *app) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what is wrong with the mesh, and what to do",
		Long: `Have every node of the mesh write 4 KiB to each of its drives, sync it and read
it back, ask every other node for the time, and say what its certificates and its
version are. What is wrong is told, the worst first, each with what to do about
it, and below that what was measured: how long each drive took, and the round
trip between all pairs of nodes, the shortest of three.

  check        warning                            critical
  node                                            down, or can't do its work
  index                                           a group without a leader
  clock        1 s from the median                10 s: of three or more, it doesn't lead
  drive        degraded, read_only, over 100 ms   offline, suspect, no answer, over 1 s
  peer         a round trip over 50 ms            over 250 ms, or no answer
  certificate  less than a week left              less than a day, expired, not valid yet
  version      not all nodes run the same

It takes the permission cluster.read, as the roles metrics and admin have it: what
it writes is a file of its own, at most one to a drive in two seconds.

Exit codes: 0 nothing or merely something to know, 4 a warning, 5 something
critical; those of every other command when the node at --endpoint can't be
asked.`,
		Example: `  gridloom doctor
  gridloom doctor --json | jq -r '.findings[] | [.severity, .message, .advice] | @tsv'`,
		Args: arguments(0, 0),
	}
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, _ []string) error {
		ctx, cancel := c.call(ctx)
		defer cancel()
		found, err := c.metrics.Diagnose(ctx, &gridloomv1.DiagnoseRequest{})
		if rpcCode(err) == codes.PermissionDenied {
			return fmt.Errorf("%w; the permission that it takes is cluster.read, which the roles metrics and admin have", err)
		}
		if err != nil {
			return err
		}
		cluster, err := c.cluster.GetCluster(ctx, &gridloomv1.GetClusterRequest{})
		if err != nil {
			return err
		}
		j := doctorJSON(found)
		j.Findings = findings(j, found, cluster.GetGroups(), programVersion(), time.Now())
		j.Severity = worst(j.Findings)
		if err := a.out.print(j, func() string { return doctorText(j) }); err != nil {
			return err
		}
		switch j.Severity {
		case "warning":
			return &reported{exitWarning}
		case "critical":
			return &reported{exitCritical}
		}
		return nil
	})
}

func doctorJSON(r *gridloomv1.DiagnoseResponse) jsonDoctor {
	j := jsonDoctor{
		Type: "doctor", Node: r.GetNode(), Nodes: []jsonDoctorNode{}, Drives: []jsonDriveProbe{},
		Peers: []jsonPeerProbe{}, Certs: []jsonDoctorCertificate{},
	}
	for _, n := range r.GetNodes() {
		node := jsonDoctorNode{Node: n.GetNode(), State: enumWord(n.GetState(), "NODE_STATE_"), Version: n.GetVersion(), ClockOffset: n.ClockOffsetSeconds}
		j.Nodes = append(j.Nodes, node)
		for _, d := range n.GetDrives() {
			j.Drives = append(j.Drives, jsonDriveProbe{
				Node: n.GetNode(), Drive: d.GetId(), Path: d.GetPath(), State: enumWord(d.GetState(), "DRIVE_STATE_"),
				Seconds: d.Seconds, Error: d.GetError(),
			})
		}
		for _, p := range n.GetPeers() {
			j.Peers = append(j.Peers, jsonPeerProbe{
				Node: n.GetNode(), Peer: p.GetNode(), RTT: p.RttSeconds, ClockOffset: p.ClockOffsetSeconds, Error: p.GetError(),
			})
		}
		for _, c := range n.GetCertificates() {
			j.Certs = append(j.Certs, jsonDoctorCertificate{
				Node: n.GetNode(), Listener: c.GetListener(), Issuer: c.GetIssuer(),
				NotBefore: stamp(c.GetNotBefore().AsTime()), NotAfter: stamp(c.GetNotAfter().AsTime()),
			})
		}
	}
	return j
}

// doctorText is the findings, and the tables of what was measured.
func doctorText(j jsonDoctor) string {
	var b strings.Builder
	up := 0
	for _, n := range j.Nodes {
		if n.State == "up" {
			up++
		}
	}
	fmt.Fprintf(&b, "Looked at %s (%d up), %s, %s between nodes and %s, from %s.\n\n", count(int64(len(j.Nodes)), "node"), up,
		count(int64(len(j.Drives)), "drive"), count(int64(len(j.Peers)), "link"), count(int64(len(j.Certs)), "certificate"), shown(j.Node))
	if len(j.Findings) == 0 {
		b.WriteString("All is well.\n")
	}
	for _, f := range j.Findings {
		fmt.Fprintf(&b, "%-9s %s\n          %s\n", strings.ToUpper(f.Severity), shown(f.Message), shown(f.Advice))
	}
	if len(j.Drives) > 0 {
		b.WriteString("\n" + drivesProbedText(j.Drives))
	}
	if len(j.Peers) > 0 {
		b.WriteString("\n" + matrixText(j))
	}
	return b.String()
}

func drivesProbedText(drives []jsonDriveProbe) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tPATH\tSTATE\tWRITE+SYNC+READ")
	for _, d := range drives {
		took := orDash(shown(d.Error))
		if d.Seconds != nil {
			took = timeOf(*d.Seconds)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", shown(d.Node), orDash(shown(d.Path)), orDash(d.State), took)
	}
	w.Flush()
	return b.String()
}

// matrixText is the round trips, from the node of each line to that of each
// column.
func matrixText(j jsonDoctor) string {
	rtt := map[[2]string]string{}
	for _, p := range j.Peers {
		rtt[[2]string{p.Node, p.Peer}] = "no answer"
		if p.RTT != nil {
			rtt[[2]string{p.Node, p.Peer}] = timeOf(*p.RTT)
		}
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprint(w, "ROUND TRIP")
	for _, to := range j.Nodes {
		fmt.Fprint(w, "\t"+shown(to.Node))
	}
	fmt.Fprintln(w)
	for _, from := range j.Nodes {
		fmt.Fprint(w, shown(from.Node))
		for _, to := range j.Nodes {
			fmt.Fprint(w, "\t"+orDash(rtt[[2]string{from.Node, to.Node}]))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	return b.String()
}
