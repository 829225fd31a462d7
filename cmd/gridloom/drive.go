package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

func (a *app) driveCommand() *cobra.Command {
	return groupCommand(&cobra.Command{
		Use:   "drive",
		Short: "List the drives, and empty or replace them",
		Long: `List the drives of a running mesh, empty one, or take one out that is broken.

A drive is named by its id, as gridloom drive ls shows it, or by as much of its
beginning as no other has, or by NODE:PATH.`,
		Example: `  gridloom drive ls
  gridloom drive replace c:/mnt/disk2`,
	}, a.driveListCommand(), a.driveDrainCommand(), a.driveReplaceCommand())
}

func (a *app) driveListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the drives",
		Long: `List the drives of the mesh, those of one node after the other, with what is
unusual about each: whether it is being emptied, since when it isn't well, and
why its node can't use it.

A state is online, degraded (works, but slowly: others come first), read_only
(full, or mounted so), suspect (a write was lost: it takes nothing more until it
is replaced, or its node started anew) or offline; - is not known.`,
		Example: `  gridloom drive ls
  gridloom drive ls --node c
  gridloom drive ls --json | jq -r 'select(.state != "online").id'`,
		Args: arguments(0, 0),
	}
	node := cmd.Flags().String("node", "", "only those of this `NODE`")
	pool := cmd.Flags().String("pool", "", "only those of this `POOL`")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, _ []string) error {
		drives, err := c.drives(ctx, *node, *pool)
		if err != nil {
			return err
		}
		if !a.json {
			return a.out.print(nil, func() string { return drivesText(drives) })
		}
		for _, d := range drives {
			d.Type = "drive"
			if err := a.out.print(d, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// drives lists all drives, of one node or pool where they are given.
func (c *client) drives(ctx context.Context, node, pool string) (all []jsonDrive, err error) {
	for r := (&gridloomv1.ListDrivesRequest{Node: node, Pool: pool}); ; {
		page, err := func() (*gridloomv1.ListDrivesResponse, error) {
			ctx, cancel := c.call(ctx)
			defer cancel()
			return c.storage.ListDrives(ctx, r)
		}()
		if err != nil {
			return nil, err
		}
		for _, d := range page.GetDrives() {
			all = append(all, driveJSON(d))
		}
		if r.PageToken = page.GetNextPageToken(); r.PageToken == "" {
			return all, nil
		}
	}
}

func driveJSON(d *gridloomv1.Drive) jsonDrive {
	j := jsonDrive{
		ID: d.GetId(), Path: d.GetPath(), State: enumWord(d.GetState(), "DRIVE_STATE_"),
		Node: d.GetNode(), Pool: d.GetPool(), Zone: d.GetZone(), Draining: d.GetDraining(), Reachable: d.GetReachable(), Error: d.GetError(),
		Total: d.GetTotalBytes(), Used: d.GetUsedBytes(), Free: d.GetFreeBytes(),
	}
	if d.GetUnwellSince() != nil {
		j.UnwellSince = stamp(d.GetUnwellSince().AsTime())
	}
	return j
}

// drivesText is a line for each drive.
func drivesText(drives []jsonDrive) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "DRIVE\tNODE\tPOOL\tZONE\tSTATE\tUSED\tFREE\tTOTAL\tPATH\tNOTES")
	for _, d := range drives {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", orDash(d.ID), shown(d.Node), orDash(d.Pool), orDash(d.Zone), orDash(d.State),
			d.sizes(), orDash(shown(d.Path)), d.notes())
	}
	w.Flush()
	return b.String()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// sizes are a drive's three columns.
func (d *jsonDrive) sizes() string {
	if d.Total == 0 {
		return "-\t-\t-"
	}
	return fmt.Sprintf("%s\t%s\t%s", byteSize(d.Used), byteSize(d.Free), byteSize(d.Total))
}

// notes says what is unusual about a drive.
func (d *jsonDrive) notes() string {
	var notes []string
	if d.Draining {
		notes = append(notes, "draining")
	}
	if d.Error != "" {
		notes = append(notes, shown(d.Error))
	}
	if d.UnwellSince != "" {
		notes = append(notes, "since "+d.UnwellSince)
	}
	return strings.Join(notes, "; ")
}

// findDrive gives the id of the drive that a user means.
func (c *client) findDrive(ctx context.Context, text string) (string, error) {
	const idBytes = 36
	if len(text) == idBytes && !strings.Contains(text, ":") {
		return text, nil
	}
	all, err := c.drives(ctx, "", "")
	if err != nil {
		return "", err
	}
	node, path, atPath := strings.Cut(text, ":")
	var found []string
	for _, d := range all {
		if d.ID != "" && (atPath && d.Node == node && d.Path == path || !atPath && text != "" && strings.HasPrefix(d.ID, text)) {
			found = append(found, d.ID)
		}
	}
	switch len(found) {
	case 0:
		return "", &notFoundError{"there is no drive " + shown(text)}
	case 1:
		return found[0], nil
	}
	return "", usageErrorf("%s may be any of %s", shown(text), strings.Join(found, ", "))
}

// jsonDriveChange is a change of a drive that the mesh has taken.
type jsonDriveChange struct {
	Type   string `json:"type"` // "drive"
	ID     string `json:"id"`
	Change string `json:"change"` // "drain", "undrain", "replace"
}

func (a *app) driveDrainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain DRIVE",
		Short: "Empty a drive",
		Long: `Have a drive emptied: it is given no new payload, and what it has is copied to
other drives of its pool. Until then it serves what it has. --undo ends that.

It is refused where the others have no room for all of it, or where copies would
be in fewer zones than they should; --force does it all the same, and it may then
not come to an end.`,
		Example: `  gridloom drive drain c:/mnt/disk2 --wait
  gridloom drive drain 3f2a --undo`,
		Args: arguments(1, 1),
	}
	undo := cmd.Flags().Bool("undo", false, "let it take part again")
	force := cmd.Flags().Bool("force", false, "also where the others have no room for it")
	wait := waitFlag(cmd, "wait until it is empty, and show how far it is")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, args []string) error {
		if *undo && *wait {
			return usageErrorf("--undo and --wait: there is nothing to wait for")
		}
		id, err := c.findDrive(ctx, args[0])
		if err != nil {
			return err
		}
		done, text := jsonDriveChange{"drive", id, "drain"}, "is being emptied"
		if *undo {
			done.Change, text = "undrain", "takes part again"
		}
		err = a.change(ctx, c, done, "drive "+id+" "+text, func(ctx context.Context) error {
			_, err := c.storage.DrainDrive(ctx, &gridloomv1.DrainDriveRequest{Id: id, Undo: *undo, Force: *force})
			return err
		})
		if err != nil || !*wait {
			return err
		}
		return a.awaitDrain(ctx, c, gridloomv1.DrainKind_DRAIN_KIND_DRIVE, id)
	})
}

func (a *app) driveReplaceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "replace DRIVE",
		Short: "Take a drive out of the mesh, and make room for another",
		Long: `Take a drive out of the mesh for good: what it had is copied again from the other
copies, and it is never used again. The node looks at the drive's path every few
seconds, and formats a blank directory or file system that it finds there, without
a restart; where the drive was mounted, only one that is mounted, too.

It is refused where the drive has the last copy of something. --force takes it
out all the same; what was only there is then lost.`,
		Example: `  gridloom drive replace c:/mnt/disk2
  gridloom drive replace 3f2a --force`,
		Args: arguments(1, 1),
	}
	force := cmd.Flags().Bool("force", false, "also if it has the last copy of something")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, args []string) error {
		id, err := c.findDrive(ctx, args[0])
		if err != nil {
			return err
		}
		return a.change(ctx, c, jsonDriveChange{"drive", id, "replace"}, "drive "+id+" is out of the mesh: another may take its place", func(ctx context.Context) error {
			_, err := c.storage.ReplaceDrive(ctx, &gridloomv1.ReplaceDriveRequest{Id: id, Force: *force})
			return err
		})
	})
}
