package api

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// maxClockOffset is how far from its peers' median a node's clock may be for it
// to lead.
const maxClockOffset = 10 * time.Second

// minCertificateLeft is how much of a certificate's life there should be left:
// those that renew themselves never have less.
const minCertificateLeft = 7 * 24 * time.Hour

// Warnings says, a sentence each, what an operator should know about a mesh:
// what is lost, and what would be with the next node. It knows nothing but c.
func Warnings(c *ClusterInfo) []string {
	var all []string
	add := func(text string) {
		if text != "" && !slices.Contains(all, text) { // most of it is true of every group alike
			all = append(all, text)
		}
	}
	for i := range c.Groups {
		g := &c.Groups[i]
		if g.Leader == "" {
			add(fmt.Sprintf("group %s has no leader that node %s knows of: it takes no writes", g.Name, c.Node))
		}
		add(votersWarning(c, g))
		if g.Waits != "" {
			add(fmt.Sprintf("the members of group %s stay as they are for now%s: %s", g.Name, leavingNodes(c), g.Waits))
		}
	}
	for i := range c.Nodes {
		add(clockWarning(c, &c.Nodes[i]))
		add(roomWarning(c, &c.Nodes[i]))
		for _, text := range certificateWarnings(&c.Nodes[i]) {
			add(text)
		}
	}
	return all
}

// leavingNodes says which nodes are kept by that.
func leavingNodes(c *ClusterInfo) string {
	var leaving []string
	for i := range c.Nodes {
		if c.Nodes[i].Leaving {
			leaving = append(leaving, c.Nodes[i].Name)
		}
	}
	if len(leaving) == 0 {
		return ""
	}
	return " (leaving: " + strings.Join(leaving, ", ") + ")"
}

// votersWarning says which losses of nodes a group does not survive, where it
// is the next one, or has come about already. A mesh of one node is meant so.
func votersWarning(c *ClusterInfo, g *GroupInfo) string {
	var up, down []string
	for _, m := range g.Members {
		if m.Role != RoleVoter {
			continue
		}
		if slices.ContainsFunc(c.Nodes, func(n NodeInfo) bool { return n.Name == m.Node && n.Up }) {
			up = append(up, m.Node)
		} else {
			down = append(down, m.Node)
		}
	}
	voters := len(up) + len(down)
	majority := voters/2 + 1
	switch {
	case voters == 0 || len(c.Nodes) == 1:
		return ""
	case voters == 1 && len(up) == 0:
		return fmt.Sprintf("node %s, the only voter, is down: the index can't be reached", down[0])
	case len(up) < majority:
		return fmt.Sprintf("%d of %d voters down (%s): the index takes no writes until %d of them are up",
			len(down), voters, strings.Join(down, ", "), majority)
	case len(up) > majority:
		return ""
	case len(down) > 0:
		return fmt.Sprintf("%d of %d voters down (%s): the index survives no loss of another (%s)",
			len(down), voters, strings.Join(down, ", "), strings.Join(up, ", "))
	case voters == 1:
		return fmt.Sprintf("%d nodes, 1 voter: the index survives no loss of node %s", len(c.Nodes), up[0])
	}
	return fmt.Sprintf("%d nodes, %d voters: the index survives no loss of one of these (%s)", len(c.Nodes), voters, strings.Join(up, ", "))
}

// clockWarning says that a node's clock keeps it from leading.
func clockWarning(c *ClusterInfo, n *NodeInfo) string {
	if !n.ClockKnown || n.ClockOffset.Abs() <= maxClockOffset {
		return ""
	}
	text := fmt.Sprintf("node %s's clock is %d s off", n.Name, int64(math.Round(n.ClockOffset.Abs().Seconds())))
	if slices.ContainsFunc(c.Groups, func(g GroupInfo) bool { return g.Leader == n.Name }) {
		return text + ", and it leads"
	}
	return text + " and does not lead"
}

// roomWarning says that the disk of a node's index is full, and what that keeps
// from being done.
func roomWarning(c *ClusterInfo, n *NodeInfo) string {
	if !n.IndexFull {
		return ""
	}
	text := fmt.Sprintf("the index of node %s has %d MiB of its disk left", n.Name, n.IndexFree>>20)
	if slices.ContainsFunc(c.Groups, func(g GroupInfo) bool { return g.Leader == n.Name }) {
		return text + ", and it leads: only what deletes is taken"
	}
	return text + ": it does not lead while others can"
}

// certificateWarnings says which certificates of a node are about to expire, each
// once, with the listeners that show it.
func certificateWarnings(n *NodeInfo) []string {
	var all []string
	for i, c := range n.Certificates {
		same := func(other CertificateInfo) bool { return other.Fingerprint == c.Fingerprint }
		if c.Left >= minCertificateLeft || slices.IndexFunc(n.Certificates, same) < i {
			continue
		}
		var listeners []string
		for _, other := range n.Certificates {
			if same(other) {
				listeners = append(listeners, other.Listener)
			}
		}
		text := fmt.Sprintf("node %s's certificate for %s (issued by %s) ", n.Name, strings.Join(listeners, ", "), c.Issuer)
		switch days := int(c.Left.Hours() / 24); {
		case c.Left <= 0:
			text += "has expired"
		case days == 0:
			text += "expires within a day"
		case days == 1:
			text += "expires in 1 day"
		default:
			text += fmt.Sprintf("expires in %d days", days)
		}
		all = append(all, text)
	}
	return all
}
