package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// jsonCluster is the JSON form of gridloom cluster.
type jsonCluster struct {
	DeploymentID string      `json:"deployment_id"`
	Node         string      `json:"node"` // that answered
	Nodes        []jsonNode  `json:"nodes"`
	Groups       []jsonGroup `json:"groups"`
	Warnings     []string    `json:"warnings,omitempty"`
}

// jsonNode is one node; by itself, in a list of nodes, it has a type.
type jsonNode struct {
	Type        string      `json:"type,omitempty"` // "node"
	Name        string      `json:"name"`
	PeerURL     string      `json:"peer_url"`
	State       string      `json:"state"` // "up", "down"
	Version     string      `json:"version,omitempty"`
	Draining    bool        `json:"draining,omitempty"`
	Leaving     bool        `json:"leaving,omitempty"`
	ClockOffset *float64    `json:"clock_offset_seconds,omitempty"`
	NotReady    string      `json:"not_ready,omitempty"` // why
	Pool        string      `json:"pool,omitempty"`
	Zone        string      `json:"zone,omitempty"`
	Index       bool        `json:"index"`
	Drives      []jsonDrive `json:"drives"`
}

// jsonDrive is one drive; by itself, in a list of drives, it has a type.
type jsonDrive struct {
	Type        string `json:"type,omitempty"` // "drive"
	ID          string `json:"id"`
	Path        string `json:"path,omitempty"`
	State       string `json:"state,omitempty"` // "online", "degraded", "read_only", "suspect", "offline"
	Total       int64  `json:"total_bytes"`
	Used        int64  `json:"used_bytes"`
	Free        int64  `json:"free_bytes"`
	Node        string `json:"node,omitempty"`
	Pool        string `json:"pool,omitempty"`
	Zone        string `json:"zone,omitempty"`
	Draining    bool   `json:"draining,omitempty"`
	Reachable   bool   `json:"reachable"`
	UnwellSince string `json:"unwell_since,omitempty"`
	Error       string `json:"error,omitempty"` // why its node can't use it
}

type jsonGroup struct {
	Name    string       `json:"name"`
	Leader  string       `json:"leader,omitempty"`
	Term    uint64       `json:"term,omitempty"`
	Commit  uint64       `json:"commit_index,omitempty"`
	Applied uint64       `json:"applied_index,omitempty"`
	Members []jsonMember `json:"members"`
}

type jsonMember struct {
	Node  string  `json:"node"`
	Role  string  `json:"role,omitempty"` // "voter", "learner", "leaving"
	Match *uint64 `json:"match_index,omitempty"`
	Lag   *uint64 `json:"lag,omitempty"` // entries behind the leader
}

func (a *app) clusterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Show the nodes and drives of the mesh, and its index",
		Long: `Show the mesh as the node at --endpoint sees it: its nodes and drives, the
groups that keep the index, and what an operator should know. It is what
gridloom cluster status shows.`,
		Example: `  gridloom cluster`,
		Args:    arguments(0, 0),
	}
	a.clientCommand(cmd, a.showCluster)
	cmd.AddCommand(a.clusterStatusCommand())
	return cmd
}

func (a *app) clusterStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the mesh is: nodes, groups, leaders, lag",
		Long: `Show the mesh as the node at --endpoint sees it.

Of each node: whether it is up, its pool and zone (- is one of its own), the
state of its drives and what they hold, and, as notes, whether it is drained or
on its way out, how far its clock is off, and what keeps it from its work. Of each group of the index: who leads it, in which term, how far it is
agreed and applied, and how many entries each member is behind, which the leader
alone knows; - is what the node can't tell. Warnings come last.`,
		Example: `  gridloom cluster status
  gridloom cluster status --json | jq -r '.warnings[]?'
  gridloom cluster status --json | jq '.groups[] | {name, leader, term}'`,
		Args: arguments(0, 0),
	}
	return subcommand(a.clientCommand(cmd, a.showCluster))
}

// groupCommand makes a client's command that does nothing but hold others.
func groupCommand(cmd *cobra.Command, subs ...*cobra.Command) *cobra.Command {
	cmd.GroupID = "client"
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageErrorf("%q is none of its commands", args[0])
		}
		return cmd.Help()
	}
	for _, sub := range subs {
		cmd.AddCommand(subcommand(sub))
	}
	return cmd
}

// subcommand makes a client's command one of another, where it is in no group.
func subcommand(cmd *cobra.Command) *cobra.Command {
	cmd.GroupID = ""
	cmd.ValidArgsFunction = cobra.NoFileCompletions // no buckets
	return cmd
}

func (a *app) showCluster(ctx context.Context, c *client, _ *cobra.Command, _ []string) error {
	j, err := c.describe(ctx)
	if err != nil {
		return err
	}
	return a.out.print(j, func() string { return clusterText(j) })
}

// describe asks how the mesh is.
func (c *client) describe(ctx context.Context) (jsonCluster, error) {
	ctx, cancel := c.call(ctx)
	defer cancel()
	reply, err := c.cluster.GetCluster(ctx, &gridloomv1.GetClusterRequest{})
	if err != nil {
		return jsonCluster{}, err
	}
	return clusterJSON(reply), nil
}

// enumWord is the word of an enum's value: "up" of NODE_STATE_UP.
func enumWord(value fmt.Stringer, prefix string) string {
	word := strings.ToLower(strings.TrimPrefix(value.String(), prefix))
	if word == "unspecified" {
		return ""
	}
	return word
}

func clusterJSON(r *gridloomv1.GetClusterResponse) jsonCluster {
	j := jsonCluster{
		DeploymentID: r.GetDeploymentId(), Node: r.GetNode(), Nodes: []jsonNode{},
		Groups: []jsonGroup{}, Warnings: r.GetWarnings(),
	}
	for _, n := range r.GetNodes() {
		node := jsonNode{
			Name: n.GetName(), PeerURL: n.GetPeerUrl(), State: enumWord(n.GetState(), "NODE_STATE_"),
			Version: n.GetVersion(), Index: n.GetIndex(), Drives: []jsonDrive{},
			Draining: n.GetDraining(), Leaving: n.GetLeaving(), ClockOffset: n.ClockOffsetSeconds, NotReady: n.GetNotReady(),
			Pool: n.GetPool(), Zone: n.GetZone(),
		}
		for _, d := range n.GetDrives() {
			node.Drives = append(node.Drives, driveJSON(d))
		}
		j.Nodes = append(j.Nodes, node)
	}
	for _, g := range r.GetGroups() {
		group := jsonGroup{
			Name: g.GetName(), Leader: g.GetLeader(), Term: g.GetTerm(),
			Commit: g.GetCommitIndex(), Applied: g.GetAppliedIndex(), Members: []jsonMember{},
		}
		for _, m := range g.GetMembers() {
			group.Members = append(group.Members, jsonMember{
				Node: m.GetNode(), Role: enumWord(m.GetRole(), "MEMBER_ROLE_"), Match: m.MatchIndex, Lag: m.Lag,
			})
		}
		j.Groups = append(j.Groups, group)
	}
	return j
}

// clusterText is a table of nodes, each with its drives, one of groups, each
// with its members, and the warnings.
func clusterText(j jsonCluster) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Deployment %s, seen from %s\n\n", j.DeploymentID, shown(j.Node))
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSTATE\tPOOL\tZONE\tADDRESS\tUSED\tFREE\tTOTAL\tVERSION\tNOTES")
	for _, n := range j.Nodes {
		used, free, total := int64(0), int64(0), int64(0)
		for _, d := range n.Drives {
			used, free, total = used+d.Used, free+d.Free, total+d.Total
		}
		sizes := "\t\t"
		if total != 0 {
			sizes = fmt.Sprintf("%s\t%s\t%s", byteSize(used), byteSize(free), byteSize(total))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", n.title(), n.State, orDash(shown(n.Pool)), orDash(shown(n.Zone)), shown(n.PeerURL), sizes, shown(n.Version), n.notes())
		for _, d := range n.Drives {
			where := d.Path
			if where == "" {
				where = d.ID
			}
			fmt.Fprintf(w, "  drive\t%s\t\t\t%s\t%s\t\t%s\n", orDash(d.State), shown(where), d.sizes(), d.notes())
		}
	}
	w.Flush()
	if len(j.Groups) > 0 {
		b.WriteString("\n" + groupsText(j.Groups))
	}
	if len(j.Warnings) > 0 {
		b.WriteString("\n")
	}
	for _, warning := range j.Warnings {
		fmt.Fprintf(&b, "Warning: %s\n", shown(warning))
	}
	return b.String()
}

// groupsText is a line for each group, and one for each of its members.
func groupsText(groups []jsonGroup) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "GROUP\tMEMBER\tROLE\tTERM\tCOMMIT\tAPPLIED\tMATCH\tLAG")
	number := func(n *uint64) string {
		if n == nil {
			return "-"
		}
		return strconv.FormatUint(*n, 10)
	}
	known := func(n uint64) string {
		if n == 0 {
			return "-"
		}
		return number(&n)
	}
	for _, g := range groups {
		leader := "no leader"
		if g.Leader != "" {
			leader = "led by " + shown(g.Leader)
		}
		fmt.Fprintf(w, "%s\t\t%s\t%s\t%s\t%s\t\t\n", shown(g.Name), leader, known(g.Term), known(g.Commit), known(g.Applied))
		for _, m := range g.Members {
			fmt.Fprintf(w, "\t%s\t%s\t\t\t\t%s\t%s\n", shown(m.Node), m.Role, number(m.Match), number(m.Lag))
		}
	}
	w.Flush()
	return b.String()
}

// title is a node's name, and what it is.
func (n *jsonNode) title() string {
	if n.Index {
		return shown(n.Name) + " (index)"
	}
	return shown(n.Name)
}

// notes says what is unusual about a node.
func (n *jsonNode) notes() string {
	var notes []string
	if n.Draining {
		notes = append(notes, "draining")
	}
	if n.Leaving {
		notes = append(notes, "leaving")
	}
	if n.ClockOffset != nil {
		switch offset := *n.ClockOffset; { // less than a second is usual, and no better known
		case offset >= 1:
			notes = append(notes, fmt.Sprintf("clock %.1f s ahead", offset))
		case offset <= -1:
			notes = append(notes, fmt.Sprintf("clock %.1f s behind", -offset))
		}
	}
	if n.NotReady != "" {
		notes = append(notes, shown(n.NotReady))
	}
	return strings.Join(notes, "; ")
}
