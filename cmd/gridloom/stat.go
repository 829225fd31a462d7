package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

func (a *app) statCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stat BUCKET[/KEY]",
		Short: "Describe an object or a bucket",
		Long: `Describe an object or a bucket, as the last acknowledged change has left it.
--stale 5s allows an answer that is up to so old: a node that can't reach the
others may still have one.`,
		Example: `  gridloom stat photos/summer/a.jpg
  gridloom stat photos/summer/a.jpg --json | jq -r .sha256
  gridloom stat photos`,
		Args: arguments(1, 1),
	}
	stale := staleFlag(cmd)
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, args []string) error {
		at, err := parseAddress(args[0])
		if err != nil {
			return err
		}
		ctx, cancel := c.call(ctx)
		defer cancel()
		if at.key == "" {
			reply, err := c.buckets.GetBucket(ctx, &gridloomv1.GetBucketRequest{Bucket: at.bucket, MaxAge: stale.proto()})
			if err != nil {
				return err
			}
			created := stamp(reply.GetBucket().GetCreatedAt().AsTime())
			return a.out.print(jsonBucket{Type: "bucket", Bucket: reply.GetBucket().GetName(), CreatedAt: created}, func() string {
				return fmt.Sprintf("%-21s%s\n%-21s%s\n", "Bucket:", shown(reply.GetBucket().GetName()), "Created:", created)
			})
		}
		reply, err := c.objects.StatObject(ctx, &gridloomv1.StatObjectRequest{Bucket: at.bucket, Key: at.key, MaxAge: stale.proto()})
		if err != nil {
			return err
		}
		j := toJSON(reply.GetObject())
		return a.out.print(j, func() string { return details(j) })
	})
}
