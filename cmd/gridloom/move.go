package main

import (
	"context"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

func (a *app) moveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mv BUCKET/KEY BUCKET[/KEY]",
		Short: "Move an object within the mesh",
		Long: `Move an object, with its headers and metadata, within or across buckets, in one
step: it is always at one of the two places, and its bytes stay where they are.
A bucket alone, or a key with a slash at the end, keeps the object's own name
below it.`,
		Example: `  gridloom mv photos/new/a.jpg photos/summer/
  gridloom mv etc/app.cfg.new etc/app.cfg
  gridloom mv queue/todo/7 queue/doing/7 --if-none-match '*'`,
		Args: arguments(2, 2),
	}
	cmd.Flags().StringSlice("if-match", nil, "move only over an object with this `ETAG`; repeatable")
	cmd.Flags().StringSlice("if-none-match", nil, "don't move over an object with this `ETAG`, or with '*' over any; repeatable")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, cmd *cobra.Command, args []string) error {
		src, dest, cond, err := fromTo(cmd, args)
		if err != nil {
			return err
		}
		ctx, cancel := c.call(ctx)
		defer cancel()
		reply, err := c.objects.MoveObject(ctx, &gridloomv1.MoveObjectRequest{
			Bucket: dest.bucket, Key: dest.key, SourceBucket: src.bucket, SourceKey: src.key, Conditions: cond,
		})
		if err != nil {
			return err
		}
		return a.printArrival(src, dest, reply.GetObject())
	})
}
