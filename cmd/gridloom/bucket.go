package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

func (a *app) makeBucketCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mb BUCKET...",
		Short: "Make buckets",
		Long: `Make empty buckets. A name is 3 to 63 lower-case letters, digits and hyphens,
with no hyphen at either end.`,
		Example: `  gridloom mb photos`,
		Args:    arguments(1, -1),
	}
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, args []string) error {
		names, err := bucketNames(args)
		if err != nil {
			return err
		}
		for _, name := range names {
			b, err := c.makeBucket(ctx, name)
			if err != nil {
				return err
			}
			err = a.out.print(jsonBucket{Type: "bucket", Bucket: b.GetName(), CreatedAt: stamp(b.GetCreatedAt().AsTime())},
				func() string { return fmt.Sprintf("%s made\n", shown(b.GetName())) })
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *app) removeBucketCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rb BUCKET...",
		Short: "Remove empty buckets",
		Long: `Remove buckets. One that still holds objects is refused; gridloom rm -r
empties it.`,
		Example: `  gridloom rb photos
  gridloom rm -r photos && gridloom rb photos`,
		Args: arguments(1, -1),
	}
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, args []string) error {
		names, err := bucketNames(args)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := c.removeBucket(ctx, name); err != nil {
				return err
			}
			err := a.out.print(jsonBucket{Type: "bucket", Bucket: name, Removed: true},
				func() string { return fmt.Sprintf("%s removed\n", shown(name)) })
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// bucketNames checks all arguments before anything is done with the first.
func bucketNames(args []string) ([]string, error) {
	names := make([]string, len(args))
	for i, arg := range args {
		var err error
		if names[i], err = parseBucket(arg); err != nil {
			return nil, err
		}
	}
	return names, nil
}

func (c *client) makeBucket(ctx context.Context, name string) (*gridloomv1.Bucket, error) {
	ctx, cancel := c.call(ctx)
	defer cancel()
	reply, err := c.buckets.CreateBucket(ctx, &gridloomv1.CreateBucketRequest{Bucket: name})
	return reply.GetBucket(), err
}

func (c *client) removeBucket(ctx context.Context, name string) error {
	ctx, cancel := c.call(ctx)
	defer cancel()
	_, err := c.buckets.DeleteBucket(ctx, &gridloomv1.DeleteBucketRequest{Bucket: name})
	return err
}
