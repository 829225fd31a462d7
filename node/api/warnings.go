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
	}
	for i := range c.Nodes {
		add(clockWarning(c, &c.Nodes[i]))
	}
	return all
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
