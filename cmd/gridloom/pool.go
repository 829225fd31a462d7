package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// jsonPool is one pool.
type jsonPool struct {
	Type     string   `json:"type"` // "pool"
	Name     string   `json:"name"`
	Nodes    []string `json:"nodes"`
	Zones    []string `json:"zones,omitempty"`
	Drives   int32    `json:"drives"`
	Usable   int32    `json:"usable_drives"`
	Leaving  int32    `json:"draining_drives,omitempty"`
	Copies   int32    `json:"copies"`             // that new payload gets
	Draining bool     `json:"draining,omitempty"` // all its drives are
	Total    int64    `json:"total_bytes"`
	Used     int64    `json:"used_bytes"`
	Free     int64    `json:"free_bytes"`
}

// jsonPoolChange is a change of pools that the mesh has taken.
type jsonPoolChange struct {
	Type   string `json:"type"` // "pool"
	Name   string `json:"name,omitempty"`
	Change string `json:"change"` // "drain", "undrain", "rebalance", "stop"
}

func (a *app) poolCommand() *cobra.Command {
	return groupCommand(&cobra.Command{
		Use:   "pool",
		Short: "List the pools, empty one, or even them out",
		Long: `List the pools of a running mesh, empty one of them into the others, or move
payload from drives that hold more than their share to those that hold less.

A node is in the pool that its --pool names. The copies of a segment are in one
pool, and new payload goes where most is free.`,
		Example: `  gridloom pool ls
  gridloom pool rebalance --wait`,
	}, a.poolListCommand(), a.poolDrainCommand(), a.poolRebalanceCommand())
}

func (a *app) poolListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the pools",
		Long: `List the pools in the order of their names: their drives, how many of these take
new payload, how many copies that gets, and what is free. Sizes are those of the
drives' file systems.`,
		Example: `  gridloom pool ls
  gridloom pool ls --json | jq -r 'select(.usable_drives < .drives).name'`,
		Args: arguments(0, 0),
	}
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, _ []string) error {
		pools, err := c.pools(ctx)
		if err != nil {
			return err
		}
		if !a.json {
			return a.out.print(nil, func() string { return poolsText(pools) })
		}
		for _, p := range pools {
			if err := a.out.print(p, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *client) pools(ctx context.Context) (all []jsonPool, err error) {
	for r := (&gridloomv1.ListPoolsRequest{}); ; {
		page, err := func() (*gridloomv1.ListPoolsResponse, error) {
			ctx, cancel := c.call(ctx)
			defer cancel()
			return c.storage.ListPools(ctx, r)
		}()
		if err != nil {
			return nil, err
		}
		for _, p := range page.GetPools() {
			all = append(all, jsonPool{
				Type: "pool", Name: p.GetName(), Nodes: p.GetNodes(), Zones: p.GetZones(), Drives: p.GetDrives(), Usable: p.GetUsableDrives(),
				Leaving: p.GetDrainingDrives(), Copies: p.GetCopies(), Draining: p.GetDraining(),
				Total: p.GetTotalBytes(), Used: p.GetUsedBytes(), Free: p.GetFreeBytes(),
			})
		}
		if r.PageToken = page.GetNextPageToken(); r.PageToken == "" {
			return all, nil
		}
	}
}

// poolsText is a line for each pool.
func poolsText(pools []jsonPool) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "POOL\tNODES\tZONES\tDRIVES\tUSABLE\tCOPIES\tUSED\tFREE\tTOTAL\tNOTES")
	for _, p := range pools {
		notes := ""
		switch {
		case p.Draining:
			notes = "draining"
		case p.Leaving == 1:
			notes = "1 drive draining"
		case p.Leaving > 1:
			notes = fmt.Sprintf("%d drives draining", p.Leaving)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n", shown(p.Name), shown(strings.Join(p.Nodes, ",")), orDash(shown(strings.Join(p.Zones, ","))),
			p.Drives, p.Usable, p.Copies, byteSize(p.Used), byteSize(p.Free), byteSize(p.Total), notes)
	}
	w.Flush()
	return b.String()
}

func (a *app) poolDrainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain POOL",
		Short: "Empty a pool into the others",
		Long: `Have all drives that a pool has now emptied into the other pools. Its nodes keep
their part of the index, and may then leave one after the other. --undo ends
that, for each of its drives.

It is refused where the other pools have no room for all of it; --force does it
all the same, and it may then not come to an end.`,
		Example: `  gridloom pool drain cold --wait
  gridloom pool drain cold --undo`,
		Args: arguments(1, 1),
	}
	undo := cmd.Flags().Bool("undo", false, "let it take part again")
	force := cmd.Flags().Bool("force", false, "also where the others have no room for it")
	wait := waitFlag(cmd, "wait until it is empty, and show how far it is")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, args []string) error {
		if *undo && *wait {
			return usageErrorf("--undo and --wait: there is nothing to wait for")
		}
		done, text := jsonPoolChange{"pool", args[0], "drain"}, "is being emptied"
		if *undo {
			done.Change, text = "undrain", "takes part again"
		}
		err := a.change(ctx, c, done, "pool "+args[0]+" "+text, func(ctx context.Context) error {
			_, err := c.storage.DrainPool(ctx, &gridloomv1.DrainPoolRequest{Name: args[0], Undo: *undo, Force: *force})
			return err
		})
		if err != nil || !*wait {
			return err
		}
		return a.awaitDrain(ctx, c, gridloomv1.DrainKind_DRAIN_KIND_POOL, args[0])
	})
}

func (a *app) poolRebalanceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rebalance",
		Short: "Move payload from full drives and pools to empty ones",
		Long: `Move payload from drives that are fuller than the others to those that are
emptier, also from one pool to another, at the rate that --heal-rate allows. New
payload finds its way to what is free by itself; this is for what is there
already, after drives or a pool have been added. --stop ends it; what was moved
stays.`,
		Example: `  gridloom pool rebalance --wait
  gridloom pool rebalance --stop`,
		Args: arguments(0, 0),
	}
	stop := cmd.Flags().Bool("stop", false, "end it")
	wait := waitFlag(cmd, "wait until it ends, and show how far it is")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, _ []string) error {
		if *stop && *wait {
			return usageErrorf("--stop and --wait: there is nothing to wait for")
		}
		done, text := jsonPoolChange{"pool", "", "rebalance"}, "payload is being moved"
		if *stop {
			done.Change, text = "stop", "no payload is being moved any more"
		}
		err := a.change(ctx, c, done, text, func(ctx context.Context) error {
			_, err := c.storage.Rebalance(ctx, &gridloomv1.RebalanceRequest{Stop: *stop})
			return err
		})
		if err != nil || !*wait {
			return err
		}
		return a.awaitRebalance(ctx, c)
	})
}
