package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// jsonTop is one refresh of gridloom top. Rates are a second, times are seconds,
// ratios 0 to 1.
type jsonTop struct {
	Type   string         `json:"type"` // "top"
	At     string         `json:"at"`   // by this side's clock
	Nodes  []jsonTopNode  `json:"nodes"`
	Drives []jsonTopDrive `json:"drives"`
	APIs   []jsonTopAPI   `json:"apis"`
	Peers  []jsonTopPeer  `json:"peers"`
}

type jsonTopNode struct {
	Node            string  `json:"node"`
	State           string  `json:"state"` // "up", "down"
	Error           string  `json:"error,omitempty"`
	SampledAt       string  `json:"sampled_at,omitempty"` // by the node's clock
	Cores           int32   `json:"cores"`
	BusyRatio       float64 `json:"cpu_busy_ratio"`
	IowaitRatio     float64 `json:"cpu_iowait_ratio"`
	Load1           float64 `json:"load1"`
	MemoryUsed      int64   `json:"memory_used_bytes"`
	MemoryTotal     int64   `json:"memory_total_bytes"`
	ProcessResident int64   `json:"process_resident_bytes"`
	ProcessHeap     int64   `json:"process_heap_bytes"`
	NetReceived     float64 `json:"network_received_bytes_per_second"` // without loopback
	NetSent         float64 `json:"network_sent_bytes_per_second"`
	GridReceived    float64 `json:"grid_received_bytes_per_second"`
	GridSent        float64 `json:"grid_sent_bytes_per_second"`
	BulkReceived    float64 `json:"bulk_received_bytes_per_second"`
	BulkSent        float64 `json:"bulk_sent_bytes_per_second"`
	Requests        float64 `json:"requests_per_second"`
	DrivesHealthy   int     `json:"drives_healthy"`
	Drives          int     `json:"drives"`
}

type jsonTopDrive struct {
	Drive       string  `json:"drive"`
	Node        string  `json:"node"`
	Path        string  `json:"path"`
	Device      string  `json:"device,omitempty"` // without one, the rates are not known
	State       string  `json:"state"`
	Healthy     bool    `json:"healthy"`
	Total       int64   `json:"total_bytes"`
	Used        int64   `json:"used_bytes"`
	Free        int64   `json:"free_bytes"`
	Reads       float64 `json:"reads_per_second"`
	Writes      float64 `json:"writes_per_second"`
	ReadBytes   float64 `json:"read_bytes_per_second"`
	WriteBytes  float64 `json:"written_bytes_per_second"`
	Await       float64 `json:"await_seconds"`
	Utilization float64 `json:"utilization_ratio"`
	Errors      int64   `json:"errors"`
	Timeouts    int64   `json:"timeouts"`
}

type jsonTopAPI struct {
	API          string  `json:"api"`
	Proto        string  `json:"proto"`
	Node         string  `json:"node"`
	Requests     float64 `json:"requests_per_second"`
	ClientErrors float64 `json:"client_errors_per_second"`
	ServerErrors float64 `json:"server_errors_per_second"`
	P50          float64 `json:"ttfb_p50_seconds"`
	P99          float64 `json:"ttfb_p99_seconds"`
}

type jsonTopPeer struct {
	Node     string  `json:"node"` // that tells of it
	Peer     string  `json:"peer"`
	Up       bool    `json:"up"`
	RTT      float64 `json:"rtt_seconds"`
	Received float64 `json:"received_bytes_per_second"`
	Sent     float64 `json:"sent_bytes_per_second"`
	MsgIn    float64 `json:"received_messages_per_second"`
	MsgOut   float64 `json:"sent_messages_per_second"`
	Queued   int64   `json:"queued_bytes"`
	CallsOut int64   `json:"calls_out"`
	CallsIn  int64   `json:"calls_in"`
	Sessions int64   `json:"sessions"`
}

// topOptions are the flags of gridloom top.
type topOptions struct {
	views    []string
	sort     string
	reverse  bool
	interval time.Duration
	once     bool
	node     string
}

func (a *app) topCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch nodes, drives, APIs and peers as they work",
		Long: `Watch what the nodes of the mesh are doing, as it happens: CPU, memory and
network of the nodes, and what of it goes between them; space, load and health of
the drives; requests a second and time to first byte of each API; round trip,
traffic and queue of each connection between nodes. Each node takes a sample a
second.

On a terminal it refreshes in place. n, d, a and p show nodes, drives, APIs or
peers alone, and all of them when pressed again; < and > sort by another column,
r the other way around; q ends it. Elsewhere it prints anew each time. --once
prints one picture and ends.

Requests, errors and rates are of the last second, the times to first byte of
the last ten, and at most a quarter off. A node that has said nothing for three
seconds is down. NET leaves out what a machine says to itself. A drive whose
block device isn't known has - for its rates.

The columns that --sort takes are those shown, in lower case: cpu, req/s, p99.`,
		Example: `  gridloom top
  gridloom top --view apis --sort p99
  gridloom top --once --json | jq '.drives[] | select(.healthy | not)'`,
		Args: arguments(0, 0),
	}
	var o topOptions
	cmd.Flags().StringSliceVar(&o.views, "view", topViews, "show only these: `LIST` of nodes, drives, apis, peers")
	cmd.Flags().StringVar(&o.sort, "sort", "", "sort by this `COLUMN` where there is one: numbers from the largest, words from A")
	cmd.Flags().BoolVar(&o.reverse, "reverse", false, "sort the other way around")
	cmd.Flags().DurationVar(&o.interval, "interval", time.Second, "time between two refreshes; a second is the least")
	cmd.Flags().BoolVar(&o.once, "once", false, "print one picture and end")
	cmd.Flags().StringVar(&o.node, "node", "", "only what this `NODE` tells")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, _ []string) error {
		if err := o.validate(); err != nil {
			return err
		}
		if o.once {
			return a.topOnce(ctx, c, &o)
		}
		return a.topLive(ctx, c, &o)
	})
}

// topViews are the tables, in their order.
var topViews = []string{"nodes", "drives", "apis", "peers"}

func (o *topOptions) validate() error {
	for _, view := range o.views {
		if !slices.Contains(topViews, view) {
			return usageErrorf("--view: %q is none of %s", view, strings.Join(topViews, ", "))
		}
	}
	if len(o.views) == 0 {
		return usageErrorf("--view: is empty; want some of %s", strings.Join(topViews, ", "))
	}
	if o.interval < time.Second {
		return usageErrorf("--interval: %s is less than a second", o.interval)
	}
	if o.sort != "" && !slices.Contains(o.columns(), strings.ToLower(o.sort)) {
		return usageErrorf("--sort: %q is no column of what is shown; there are %s", o.sort, strings.Join(o.columns(), ", "))
	}
	return nil
}

// columns are those of the views that are shown.
func (o *topOptions) columns() (all []string) {
	add := func(view string, names []string) {
		for _, name := range names {
			if slices.Contains(o.views, view) && !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	add("nodes", columnNames(nodeColumns))
	add("drives", columnNames(driveColumns))
	add("apis", columnNames(apiColumns))
	add("peers", columnNames(peerColumns))
	return all
}

// topOnce asks for the last samples.
func (a *app) topOnce(ctx context.Context, c *client, o *topOptions) error {
	ctx, cancel := c.call(ctx)
	defer cancel()
	reply, err := c.metrics.GetResourceMetrics(ctx, &gridloomv1.GetResourceMetricsRequest{Node: o.node, Subsystem: o.subsystems()})
	if err != nil {
		return err
	}
	return a.printTop(topOf(time.Now(), reply.GetNodes(), o), o)
}

func (a *app) printTop(j jsonTop, o *topOptions) error {
	return a.out.print(j, func() string { return topText(j, o) })
}

// subsystems are what the views need; the nodes' view has something of all.
func (o *topOptions) subsystems() (all []string) {
	if slices.Contains(o.views, "nodes") {
		return nil
	}
	for view, subsystem := range map[string]string{"drives": "drive", "apis": "api", "peers": "peer"} {
		if slices.Contains(o.views, view) {
			all = append(all, subsystem)
		}
	}
	return all
}

// topOf makes the tables of the nodes' samples, sorted as it is asked for.
func topOf(at time.Time, nodes []*gridloomv1.NodeResources, o *topOptions) jsonTop {
	j := jsonTop{Type: "top", At: stamp(at), Nodes: []jsonTopNode{}, Drives: []jsonTopDrive{}, APIs: []jsonTopAPI{}, Peers: []jsonTopPeer{}}
	for _, n := range nodes {
		if slices.Contains(o.views, "nodes") {
			j.Nodes = append(j.Nodes, topNode(n))
		}
		if slices.Contains(o.views, "drives") {
			for _, d := range n.GetDrives() {
				j.Drives = append(j.Drives, topDrive(n, d))
			}
		}
		if slices.Contains(o.views, "apis") {
			for _, c := range n.GetApis() {
				j.APIs = append(j.APIs, jsonTopAPI{
					API: c.GetApi(), Proto: c.GetProto(), Node: n.GetNode(), Requests: c.GetRequestsPerSecond(),
					ClientErrors: c.GetClientErrorsPerSecond(), ServerErrors: c.GetServerErrorsPerSecond(),
					P50: c.GetTtfbP50Seconds(), P99: c.GetTtfbP99Seconds(),
				})
			}
		}
		if slices.Contains(o.views, "peers") {
			for _, p := range n.GetPeers() {
				j.Peers = append(j.Peers, jsonTopPeer{
					Node: n.GetNode(), Peer: p.GetNode(), Up: p.GetUp(), RTT: p.GetRttSeconds(),
					Received: p.GetReceivedBytesPerSecond(), Sent: p.GetSentBytesPerSecond(),
					MsgIn: p.GetReceivedMessagesPerSecond(), MsgOut: p.GetSentMessagesPerSecond(),
					Queued: p.GetQueuedBytes(), CallsOut: p.GetCallsOut(), CallsIn: p.GetCallsIn(), Sessions: p.GetSessions(),
				})
			}
		}
	}
	sortRows(j.Nodes, nodeColumns, cmp.Or(o.sort, "node"), o.reverse)
	sortRows(j.Drives, driveColumns, cmp.Or(o.sort, "node"), o.reverse)
	sortRows(j.APIs, apiColumns, cmp.Or(o.sort, "req/s"), o.reverse)
	sortRows(j.Peers, peerColumns, cmp.Or(o.sort, "node"), o.reverse)
	return j
}

func topNode(n *gridloomv1.NodeResources) jsonTopNode {
	cpu, memory := n.GetCpu(), n.GetMemory()
	now := func(g *gridloomv1.Gauge) int64 { return int64(g.GetCurrent()) }
	j := jsonTopNode{
		Node: n.GetNode(), State: enumWord(n.GetState(), "NODE_STATE_"), Error: n.GetError(), SampledAt: stampOf(n.GetSampledAt()),
		Cores: cpu.GetCores(), BusyRatio: cpu.GetBusyRatio().GetCurrent(), IowaitRatio: cpu.GetIowaitRatio().GetCurrent(),
		Load1: cpu.GetLoad1().GetCurrent(), MemoryUsed: now(memory.GetUsed()), MemoryTotal: now(memory.GetTotal()),
		ProcessResident: now(memory.GetProcessResident()), ProcessHeap: now(memory.GetProcessHeap()), Drives: len(n.GetDrives()),
	}
	for _, i := range n.GetNetworks() {
		if name := i.GetInterface(); name != "lo" && name != "lo0" {
			j.NetReceived += i.GetReceivedBytes().GetCurrent()
			j.NetSent += i.GetSentBytes().GetCurrent()
		}
	}
	for _, m := range n.GetMesh() {
		received, sent := m.GetReceivedBytes().GetCurrent(), m.GetSentBytes().GetCurrent()
		switch m.GetVia() {
		case "grid":
			j.GridReceived, j.GridSent = received, sent
		case "bulk":
			j.BulkReceived, j.BulkSent = received, sent
		}
	}
	for _, c := range n.GetApis() {
		j.Requests += c.GetRequestsPerSecond()
	}
	for _, d := range n.GetDrives() {
		if d.GetHealthy() {
			j.DrivesHealthy++
		}
	}
	return j
}

func topDrive(n *gridloomv1.NodeResources, d *gridloomv1.DriveResources) jsonTopDrive {
	return jsonTopDrive{
		Drive: d.GetId(), Node: n.GetNode(), Path: d.GetPath(), Device: d.GetDevice(),
		State: enumWord(d.GetState(), "DRIVE_STATE_"), Healthy: d.GetHealthy(),
		Total: d.GetTotalBytes(), Used: d.GetUsedBytes(), Free: d.GetFreeBytes(),
		Reads: d.GetReadsPerSecond(), Writes: d.GetWritesPerSecond(),
		ReadBytes: d.GetReadBytesPerSecond(), WriteBytes: d.GetWrittenBytesPerSecond(),
		Await: d.GetAwaitSeconds(), Utilization: d.GetUtilizationRatio(), Errors: d.GetErrors(), Timeouts: d.GetTimeouts(),
	}
}

// topText is the tables that are shown, under each other.
func topText(j jsonTop, o *topOptions) string {
	var tables []string
	for _, view := range topViews {
		if !slices.Contains(o.views, view) {
			continue
		}
		switch view {
		case "nodes":
			tables = append(tables, tableText(j.Nodes, nodeColumns))
		case "drives":
			tables = append(tables, tableText(j.Drives, driveColumns))
		case "apis":
			tables = append(tables, tableText(j.APIs, apiColumns))
		case "peers":
			tables = append(tables, tableText(j.Peers, peerColumns))
		}
	}
	return strings.Join(tables, "\n")
}

// topSummary is the line above the tables.
func topSummary(nodes []*gridloomv1.NodeResources, at time.Time) string {
	up, down, requests := 0, 0, 0.0
	for _, n := range nodes {
		if n.GetState() == gridloomv1.NodeState_NODE_STATE_UP {
			up++
		} else {
			down++
		}
		for _, c := range n.GetApis() {
			requests += c.GetRequestsPerSecond()
		}
	}
	return fmt.Sprintf("gridloom top  %s  %s up, %d down  %.0f req/s", at.Format(time.TimeOnly), count(int64(up), "node"), down, requests)
}
