package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// From where on what was measured is a finding. A sync of a healthy disk takes
// up to some tens of milliseconds; a node whose clock is 10 s off does not lead;
// certificates that renew themselves never have less than a week.
const (
	clockWarns, clockCritical = time.Second, 10 * time.Second
	driveWarns, driveCritical = 100 * time.Millisecond, time.Second
	peerWarns, peerCritical   = 50 * time.Millisecond, 250 * time.Millisecond
	certWarns, certCritical   = 7 * 24 * time.Hour, 24 * time.Hour
)

// severities from the least.
var severities = []string{"ok", "info", "warning", "critical"}

// worst is the severity of all.
func worst(all []jsonFinding) string {
	level := 0
	for _, f := range all {
		level = max(level, slices.Index(severities, f.Severity))
	}
	return severities[level]
}

// graded is the severity of something measured: "" where it is in order.
func graded(value, warns, critical time.Duration) string {
	switch {
	case value >= critical:
		return "critical"
	case value >= warns:
		return "warning"
	}
	return ""
}

func duration(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// findings judges what the nodes found, the worst first. client is this
// program's version.
func findings(j jsonDoctor, r *gridloomv1.DiagnoseResponse, groups []*gridloomv1.Group, client string, now time.Time) []jsonFinding {
	f := finder{all: []jsonFinding{}, down: map[string]bool{}}
	for _, n := range r.GetNodes() {
		f.node(n)
	}
	for _, g := range groups {
		if g.GetLeader() == "" {
			f.add(jsonFinding{Severity: "critical", Check: "index", Subject: g.GetName(),
				Message: fmt.Sprintf("group %s of the index has no leader: it takes no writes", g.GetName()),
				Advice:  "Bring a majority of its voters up: gridloom cluster status shows who they are."})
		}
	}
	for _, n := range j.Nodes {
		f.clock(n)
	}
	for _, d := range j.Drives {
		f.drive(d)
	}
	for _, p := range j.Peers {
		f.peer(p)
	}
	for _, n := range r.GetNodes() {
		for _, c := range n.GetCertificates() {
			f.certificate(n.GetNode(), c, now)
		}
	}
	f.versions(j, client)
	slices.SortStableFunc(f.all, func(a, b jsonFinding) int {
		return cmp.Compare(slices.Index(severities, b.Severity), slices.Index(severities, a.Severity))
	})
	return f.all
}

// finder gathers findings.
type finder struct {
	all  []jsonFinding
	down map[string]bool // nodes
}

// add takes a finding that there is, which has a severity.
func (f *finder) add(found jsonFinding) {
	if found.Severity != "" {
		f.all = append(f.all, found)
	}
}

func (f *finder) node(n *gridloomv1.NodeDiagnosis) {
	switch {
	case n.GetState() != gridloomv1.NodeState_NODE_STATE_UP:
		f.down[n.GetNode()] = true
		f.add(jsonFinding{Severity: "critical", Check: "node", Node: n.GetNode(),
			Message: fmt.Sprintf("node %s does not answer: %s", n.GetNode(), n.GetError()),
			Advice:  "Is it running, and can its peer listener be reached? If it is gone for good: gridloom node leave " + n.GetNode() + "."})
	case n.GetNotReady() != "":
		f.add(jsonFinding{Severity: "critical", Check: "node", Node: n.GetNode(),
			Message: fmt.Sprintf("node %s can't do its work: %s", n.GetNode(), n.GetNotReady()),
			Advice:  "Its log says more; gridloom cluster status shows who has the index."})
	}
	if n.GetIndexFull() {
		f.add(jsonFinding{Severity: "critical", Check: "index", Node: n.GetNode(),
			Message: fmt.Sprintf("the index of node %s has %d MiB of its disk left: where it leads, only what deletes is taken", n.GetNode(), n.GetIndexFree()>>20),
			Advice:  "Make room on the disk of its data directory."})
	}
}

func (f *finder) clock(n jsonDoctorNode) {
	if n.ClockOffset == nil {
		return
	}
	way := "ahead of"
	if *n.ClockOffset < 0 {
		way = "behind"
	}
	off := duration(math.Abs(*n.ClockOffset))
	f.add(jsonFinding{Severity: graded(off, clockWarns, clockCritical), Check: "clock", Node: n.Node,
		Message: fmt.Sprintf("node %s's clock is %s %s the others", n.Node, timeOf(off.Seconds()), way),
		Advice:  "Run a time service on it (chrony, systemd-timesyncd); from 10 s on, where there are three nodes or more, it doesn't lead, and tokens and links are taken for expired."})
}

func (f *finder) drive(d jsonDriveProbe) {
	name := fmt.Sprintf("node %s's drive %s", d.Node, cmp.Or(d.Path, d.Drive))
	found := jsonFinding{Check: "drive", Node: d.Node, Subject: cmp.Or(d.Drive, d.Path)}
	replace := "If it is gone for good: gridloom drive replace " + cmp.Or(d.Drive, d.Node+":"+d.Path) + "."
	switch why := strings.TrimSuffix(": "+d.Error, ": "); {
	case d.State == "offline" || d.State == "suspect":
		found.Severity, found.Message = "critical", fmt.Sprintf("%s is %s%s", name, d.State, why)
		found.Advice = "Look at the kernel's log and the drive's cables and mount. " + replace
	case d.State == "read_only":
		found.Severity, found.Message = "warning", fmt.Sprintf("%s takes no more payload: it is full, or mounted read-only%s", name, why)
		found.Advice = "Remove something, or add drives; look at the kernel's log if it isn't full."
	case d.Error != "":
		found.Severity, found.Message = "critical", fmt.Sprintf("%s failed a write, sync and read%s", name, why)
		found.Advice = "Look at the kernel's log. " + replace
	case d.State == "degraded":
		found.Severity, found.Message = "warning", name+" is degraded: it works, but slowly, and others come first"
		found.Advice = "See gridloom top --view drives --sort await; look at its SMART data."
	case d.Seconds != nil:
		found.Severity = graded(duration(*d.Seconds), driveWarns, driveCritical)
		found.Message = fmt.Sprintf("%s took %s to write, sync and read 4 KiB", name, timeOf(*d.Seconds))
		found.Advice = "Is it busy (gridloom top --view drives --sort util)? If not, look at its SMART data and its write cache."
	}
	f.add(found)
}

func (f *finder) peer(p jsonPeerProbe) {
	found := jsonFinding{Check: "peer", Node: p.Node, Subject: p.Peer}
	switch {
	case p.RTT == nil && f.down[p.Peer]: // that has been said
		return
	case p.RTT == nil:
		found.Severity, found.Message = "critical", fmt.Sprintf("node %s gets no answer from node %s: %s", p.Node, p.Peer, p.Error)
		found.Advice = "Others may reach it: look at routes and firewalls between these two, for the peer listener's port."
	default:
		found.Severity = graded(duration(*p.RTT), peerWarns, peerCritical)
		found.Message = fmt.Sprintf("a round trip from node %s to node %s takes %s", p.Node, p.Peer, timeOf(*p.RTT))
		found.Advice = "Every write waits for round trips to a majority: keep the voters near each other, and look for a full line (gridloom top --view peers --sort queued)."
	}
	f.add(found)
}

func (f *finder) certificate(node string, c *gridloomv1.Certificate, now time.Time) {
	found := jsonFinding{Check: "certificate", Node: node, Subject: c.GetListener()}
	name := fmt.Sprintf("node %s's certificate for %s, of %s,", node, c.GetListener(), c.GetIssuer())
	left := c.GetNotAfter().AsTime().Sub(now)
	found.Advice = "Put a new one in its file, which is read again by itself. One that the mesh makes renews itself: then look at the node's log."
	switch {
	case c.GetNotBefore().AsTime().After(now.Add(time.Minute)):
		found.Severity, found.Message = "critical", fmt.Sprintf("%s is not valid before %s", name, seconds(c.GetNotBefore().AsTime()))
		found.Advice = "Compare the clocks of this machine and of the one that made it."
	case left <= 0:
		found.Severity, found.Message = "critical", fmt.Sprintf("%s has expired at %s", name, seconds(c.GetNotAfter().AsTime()))
	case left < certCritical:
		found.Severity, found.Message = "critical", fmt.Sprintf("%s expires in %.0f h", name, left.Hours())
	case left < certWarns:
		found.Severity, found.Message = "warning", fmt.Sprintf("%s expires at %s", name, seconds(c.GetNotAfter().AsTime()))
	}
	f.add(found)
}

// versions compares those of the nodes, and this program's with that of the node
// that answered.
func (f *finder) versions(j jsonDoctor, client string) {
	by := map[string][]string{}
	var order []string
	for _, n := range j.Nodes {
		if n.Version == "" {
			continue
		}
		if by[n.Version] == nil {
			order = append(order, n.Version)
		}
		by[n.Version] = append(by[n.Version], n.Node)
		if n.Node == j.Node && n.Version != client {
			f.add(jsonFinding{Severity: "info", Check: "version", Node: n.Node,
				Message: fmt.Sprintf("this program is version %s, node %s is %s", client, n.Node, n.Version),
				Advice:  "They understand each other; take the same one for what is new."})
		}
	}
	if len(order) < 2 {
		return
	}
	var parts []string
	for _, version := range order {
		parts = append(parts, version+" on "+strings.Join(by[version], ", "))
	}
	f.add(jsonFinding{Severity: "warning", Check: "version",
		Message: "not all nodes run the same version: " + strings.Join(parts, "; "),
		Advice:  "Fine during an upgrade; bring the others up to it when it is done."})
}
