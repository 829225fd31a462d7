package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

func (a *app) copyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cp BUCKET/KEY BUCKET[/KEY]",
		Short: "Copy an object within the mesh",
		Long: `Copy an object, with its headers and metadata, within or across buckets. The
nodes do it among themselves. A bucket alone, or a key with a slash at the end,
keeps the object's own name below it.`,
		Example: `  gridloom cp photos/summer/a.jpg photos/best/
  gridloom cp etc/app.cfg etc/app.cfg.bak --if-none-match '*'`,
		Args: arguments(2, 2),
	}
	cmd.Flags().StringSlice("if-match", nil, "copy only over an object with this `ETAG`; repeatable")
	cmd.Flags().StringSlice("if-none-match", nil, "don't copy over an object with this `ETAG`, or with '*' over any; repeatable")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, cmd *cobra.Command, args []string) error {
		src, dest, cond, err := fromTo(cmd, args)
		if err != nil {
			return err
		}
		ctx, cancel := c.call(ctx)
		defer cancel()
		reply, err := c.objects.CopyObject(ctx, &gridloomv1.CopyObjectRequest{
			Bucket: dest.bucket, Key: dest.key, SourceBucket: src.bucket, SourceKey: src.key, Conditions: cond,
		})
		if err != nil {
			return err
		}
		return a.printArrival(src, dest, reply.GetObject())
	})
}

// fromTo reads an object, where it is to go, and the conditions there.
func fromTo(cmd *cobra.Command, args []string) (src, dest address, cond *gridloomv1.Conditions, err error) {
	if src, err = parseObject(args[0]); err != nil {
		return src, dest, nil, err
	}
	if dest, err = parseAddress(args[1]); err != nil {
		return src, dest, nil, err
	}
	cond, err = conditions(cmd)
	return src, dest.into(src.base()), cond, err
}

// printArrival tells of an object that has come from another place.
func (a *app) printArrival(src, dest address, o *gridloomv1.Object) error {
	j := toJSON(o)
	return a.out.print(j, func() string {
		return fmt.Sprintf("%s → %s  %s\n", shown(src.String()), shown(dest.String()), byteSize(j.Size))
	})
}
