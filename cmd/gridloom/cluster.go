package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// jsonCluster is the JSON form of gridloom cluster.
type jsonCluster struct {
	DeploymentID string     `json:"deployment_id"`
	Node         string     `json:"node"` // that answered
	Nodes        []jsonNode `json:"nodes"`
}

type jsonNode struct {
	Name    string      `json:"name"`
	PeerURL string      `json:"peer_url"`
	State   string      `json:"state"` // "up", "down"
	Version string      `json:"version,omitempty"`
	Index   bool        `json:"index"`
	Drives  []jsonDrive `json:"drives"`
}

type jsonDrive struct {
	ID    string `json:"id"`
	Path  string `json:"path,omitempty"`
	State string `json:"state,omitempty"` // "online", "read_only", "suspect", "offline"
	Total int64  `json:"total_bytes"`
	Used  int64  `json:"used_bytes"`
	Free  int64  `json:"free_bytes"`
}

func (a *app) clusterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "cluster",
		Short:   "Show the nodes and drives of the mesh",
		Long:    `Show the mesh as the node at --endpoint sees it.`,
		Example: `  gridloom cluster`,
		Args:    arguments(0, 0),
	}
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, _ []string) error {
		ctx, cancel := c.call(ctx)
		defer cancel()
		reply, err := c.cluster.GetCluster(ctx, &gridloomv1.GetClusterRequest{})
		if err != nil {
			return err
		}
		j := clusterJSON(reply)
		return a.out.print(j, func() string { return clusterText(j) })
	})
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
	j := jsonCluster{DeploymentID: r.GetDeploymentId(), Node: r.GetNode(), Nodes: []jsonNode{}}
	for _, n := range r.GetNodes() {
		node := jsonNode{
			Name: n.GetName(), PeerURL: n.GetPeerUrl(), State: enumWord(n.GetState(), "NODE_STATE_"),
			Version: n.GetVersion(), Index: n.GetIndex(), Drives: []jsonDrive{},
		}
		for _, d := range n.GetDrives() {
			node.Drives = append(node.Drives, jsonDrive{
				ID: d.GetId(), Path: d.GetPath(), State: enumWord(d.GetState(), "DRIVE_STATE_"),
				Total: d.GetTotalBytes(), Used: d.GetUsedBytes(), Free: d.GetFreeBytes(),
			})
		}
		j.Nodes = append(j.Nodes, node)
	}
	return j
}

// clusterText is a line for each node, and one for each of its drives.
func clusterText(j jsonCluster) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Deployment %s, seen from %s\n\n", j.DeploymentID, shown(j.Node))
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSTATE\tADDRESS\tUSED\tFREE\tTOTAL\tVERSION\t")
	for _, n := range j.Nodes {
		name, used, free, total := shown(n.Name), int64(0), int64(0), int64(0)
		if n.Index {
			name += " (index)"
		}
		for _, d := range n.Drives {
			used, free, total = used+d.Used, free+d.Free, total+d.Total
		}
		if total == 0 {
			fmt.Fprintf(w, "%s\t%s\t%s\t\t\t\t%s\t\n", name, n.State, n.PeerURL, n.Version)
		} else {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", name, n.State, n.PeerURL, byteSize(used), byteSize(free), byteSize(total), n.Version)
		}
		for _, d := range n.Drives {
			where := d.Path
			if where == "" {
				where = d.ID
			}
			fmt.Fprintf(w, "  drive\t%s\t%s\t%s\t%s\t%s\t\t\n", d.State, shown(where), byteSize(d.Used), byteSize(d.Free), byteSize(d.Total))
		}
	}
	w.Flush()
	return b.String()
}
