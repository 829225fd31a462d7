package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// jsonChange is a change of the nodes that the mesh has taken.
type jsonChange struct {
	Type    string `json:"type"` // "node"
	Name    string `json:"name"`
	PeerURL string `json:"peer_url,omitempty"`
	Change  string `json:"change"` // "join", "leave", "replace", "drain", "undrain"
}

func (a *app) nodeCommand() *cobra.Command {
	return groupCommand(&cobra.Command{
		Use:   "node",
		Short: "List the nodes, and have them join, leave or rest",
		Long: `List the nodes of a running mesh, and change which there are and what they do.
gridloom cluster status shows what has become of it.`,
		Example: `  gridloom node ls
  gridloom node join d http://10.0.0.4:7402`,
	}, a.nodeListCommand(), a.nodeJoinCommand(), a.nodeLeaveCommand(), a.nodeReplaceCommand(), a.nodeDrainCommand())
}

func (a *app) nodeListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the nodes",
		Long: `List the nodes of the mesh as the one at --endpoint sees them, in the order of
their names, with what is unusual about each.`,
		Example: `  gridloom node ls
  gridloom node ls --json | jq -r 'select(.state == "down").name'`,
		Args: arguments(0, 0),
	}
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, _ []string) error {
		j, err := c.describe(ctx)
		if err != nil {
			return err
		}
		if !a.json {
			return a.out.print(nil, func() string { return nodesText(j.Nodes) })
		}
		for _, n := range j.Nodes {
			n.Type = "node"
			if err := a.out.print(n, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// nodesText is a line for each node.
func nodesText(nodes []jsonNode) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSTATE\tADDRESS\tVERSION\tNOTES")
	for _, n := range nodes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", n.title(), n.State, shown(n.PeerURL), shown(n.Version), n.notes())
	}
	w.Flush()
	return b.String()
}

func (a *app) nodeJoinCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "join NAME URL",
		Short: "Admit a node to the mesh",
		Long: `Admit a node to the running mesh under NAME. URL is the base URL of its peer
listener, as the other nodes reach it. From then on the mesh lets it in: it gets
a copy of the index first, and counts when it has all of it. The --peers of the
node must hold itself and any one member that is up.

A name is 1 to 63 lower-case letters, digits and hyphens, with no hyphen at
either end. One that the mesh has, or an address, is refused.`,
		Example: `  gridloom node join d http://10.0.0.4:7402
  gridloom node join d https://d.example:7402`,
		Args: arguments(2, 2),
	}
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, args []string) error {
		return a.change(ctx, c, jsonChange{Type: "node", Name: args[0], PeerURL: args[1], Change: "join"}, args[0]+" admitted: it joins when it runs",
			func(ctx context.Context) error {
				_, err := c.cluster.JoinNode(ctx, &gridloomv1.JoinNodeRequest{Name: args[0], PeerUrl: args[1]})
				return err
			})
	})
}

func (a *app) nodeLeaveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "leave NAME",
		Short: "Take a node out of the mesh",
		Long: `Take a node out of the mesh for good. Others take over its part of the index, and
what was on its drives is copied again from the other copies. To have that done
before, and never be without a copy, empty it first: gridloom node drain --wait.

It is refused where the node has the last copy of something, or the only drives
that take new payload. --force takes it out all the same; what was only there is
then lost. It is refused in any case where its vote could only go to nodes that
can't be reached: bring those back first, or remove them.`,
		Example: `  gridloom node leave d
  gridloom node leave d --force`,
		Args: arguments(1, 1),
	}
	force := cmd.Flags().Bool("force", false, "also if it has the last copy of something")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, args []string) error {
		return a.change(ctx, c, jsonChange{Type: "node", Name: args[0], Change: "leave"}, args[0]+" leaves",
			func(ctx context.Context) error {
				_, err := c.cluster.LeaveNode(ctx, &gridloomv1.LeaveNodeRequest{Name: args[0], Force: *force})
				return err
			})
	})
}

func (a *app) nodeReplaceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replace NAME",
		Short: "Let a node come back that has lost its data",
		Long: `Let a node come back under its name with an empty data directory. The mesh
refuses it otherwise: a node that has forgotten what it agreed to would break
what the others rely on. Its old self is forgotten, and no more let in. What its
drives had is copied again from the other copies.

It is refused where the node had the last copy of something that may yet come
back with it. --force gives that up.`,
		Example: `  gridloom node replace c`,
		Args:    arguments(1, 1),
	}
	force := cmd.Flags().Bool("force", false, "also if it has the last copy of something")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, args []string) error {
		return a.change(ctx, c, jsonChange{Type: "node", Name: args[0], Change: "replace"}, args[0]+" may come back empty",
			func(ctx context.Context) error {
				_, err := c.cluster.ReplaceNode(ctx, &gridloomv1.ReplaceNodeRequest{Name: args[0], Force: *force})
				return err
			})
	})
}

func (a *app) nodeDrainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain NAME",
		Short: "Empty a node, and take leadership from it",
		Long: `Have a node emptied: it hands over what it leads, is given no new payload, and
what it has is copied to others of its pool. Until then it serves what it has.
--undo ends that; it may be restarted meanwhile, and goes on then.

--wait shows how far that is, and ends when nothing is on the node any more, or
with what keeps it from that.

It is refused where the others have no room for all of it, or where copies would
be in fewer zones than they should; --force does it all the same, and it may then
not come to an end.`,
		Example: `  gridloom node drain c --wait
  gridloom node drain c --undo`,
		Args: arguments(1, 1),
	}
	undo := cmd.Flags().Bool("undo", false, "let it take part again")
	force := cmd.Flags().Bool("force", false, "also where the others have no room for it, or too few zones")
	wait := waitFlag(cmd, "wait until it is empty, and show how far it is")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, args []string) error {
		if *undo && *wait {
			return usageErrorf("--undo and --wait: there is nothing to wait for")
		}
		done, text := jsonChange{Type: "node", Name: args[0], Change: "drain"}, "is being emptied"
		if *undo {
			done.Change, text = "undrain", "takes part again"
		}
		err := a.change(ctx, c, done, args[0]+" "+text, func(ctx context.Context) error {
			_, err := c.cluster.DrainNode(ctx, &gridloomv1.DrainNodeRequest{Name: args[0], Undo: *undo, Force: *force})
			return err
		})
		if err != nil || !*wait {
			return err
		}
		return a.awaitDrain(ctx, c, gridloomv1.DrainKind_DRAIN_KIND_NODE, args[0])
	})
}

// change makes one call and says that the mesh has taken it: done as JSON, said
// for people.
func (a *app) change(ctx context.Context, c *client, done any, said string, call func(context.Context) error) error {
	ctx, cancel := c.call(ctx)
	defer cancel()
	if err := call(ctx); err != nil {
		return err
	}
	return a.out.print(done, func() string { return shown(said) + "\n" })
}
