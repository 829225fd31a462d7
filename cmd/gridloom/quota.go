package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// jsonUsage is what a bucket holds and what it may hold; without a limit there
// is no field for it.
type jsonUsage struct {
	Type       string `json:"type"` // "usage"
	Bucket     string `json:"bucket"`
	Objects    int64  `json:"objects"`
	Bytes      int64  `json:"bytes"`
	MaxObjects int64  `json:"max_objects,omitempty"`
	MaxBytes   int64  `json:"max_bytes,omitempty"`
}

func (a *app) bucketCommand() *cobra.Command {
	return groupCommand(&cobra.Command{
		Use:   "bucket",
		Short: "Show what buckets hold, and limit it",
		Long: `Show how much is in buckets, exactly, and set how much may be. gridloom mb makes
buckets, and gridloom rb removes them.`,
		Example: `  gridloom bucket usage
  gridloom bucket quota photos --size 100GiB`,
	}, a.bucketUsageCommand(), a.bucketQuotaCommand())
}

func (a *app) bucketUsageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "usage [BUCKET...]",
		Short: "Show what buckets hold, and what they may hold",
		Long: `Show how many objects are in buckets and their size, each object counted once,
however many copies there are; and the limits. Without a BUCKET it is every one
that the key may see.`,
		Example: `  gridloom bucket usage
  gridloom bucket usage photos --json`,
		Args: arguments(0, -1),
	}
	return a.clientCommand(cmd, func(ctx context.Context, c *client, _ *cobra.Command, args []string) error {
		names, err := bucketNames(args)
		if err != nil {
			return err
		}
		if len(names) == 0 {
			if names, err = c.bucketNames(ctx); err != nil {
				return err
			}
		}
		var all []jsonUsage
		for _, name := range names {
			u, err := c.bucketUsage(ctx, name)
			switch {
			case reason(err) == "bucket_not_found" && len(args) == 0:
				continue // removed since
			case err != nil:
				return err
			}
			all = append(all, usageJSON(u))
		}
		if !a.json {
			return a.out.print(nil, func() string { return usageText(all) })
		}
		for _, u := range all {
			if err := a.out.print(u, nil); err != nil {
				return err
			}
		}
		return nil
	})
}

// bucketNames lists all buckets.
func (c *client) bucketNames(ctx context.Context) (names []string, err error) {
	for r := (&gridloomv1.ListBucketsRequest{}); ; {
		page, err := func() (*gridloomv1.ListBucketsResponse, error) {
			ctx, cancel := c.call(ctx)
			defer cancel()
			return c.buckets.ListBuckets(ctx, r)
		}()
		if err != nil {
			return nil, err
		}
		for _, b := range page.GetBuckets() {
			names = append(names, b.GetName())
		}
		if r.PageToken = page.GetNextPageToken(); r.PageToken == "" {
			return names, nil
		}
	}
}

func (c *client) bucketUsage(ctx context.Context, bucket string) (*gridloomv1.BucketUsage, error) {
	ctx, cancel := c.call(ctx)
	defer cancel()
	reply, err := c.buckets.GetBucketUsage(ctx, &gridloomv1.GetBucketUsageRequest{Bucket: bucket})
	return reply.GetUsage(), err
}

func usageJSON(u *gridloomv1.BucketUsage) jsonUsage {
	return jsonUsage{
		Type: "usage", Bucket: u.GetBucket(), Objects: u.GetObjects(), Bytes: u.GetBytes(), MaxObjects: u.GetMaxObjects(), MaxBytes: u.GetMaxBytes(),
	}
}

// usageText is a line for each bucket.
func usageText(all []jsonUsage) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "BUCKET\tOBJECTS\tOF\tSIZE\tOF")
	for _, u := range all {
		maxObjects, maxBytes := "-", "-"
		if u.MaxObjects > 0 {
			maxObjects = strconv.FormatInt(u.MaxObjects, 10)
		}
		if u.MaxBytes > 0 {
			maxBytes = byteSize(u.MaxBytes).String()
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", shown(u.Bucket), u.Objects, maxObjects, byteSize(u.Bytes), maxBytes)
	}
	w.Flush()
	return b.String()
}

// limit is a number of things, or none.
type limit int64

// Set parses a number from 1 on, or "none".
func (l *limit) Set(text string) error {
	if text == "none" {
		*l = 0
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return errors.New(`is neither a number from 1 on nor "none"`)
	}
	*l = limit(n)
	return nil
}

// String is empty for 0, so that help shows no default.
func (l *limit) String() string {
	if *l == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*l), 10)
}

// Type implements pflag.Value.
func (*limit) Type() string { return "limit" }

// sizeLimit is a number of bytes, or none.
type sizeLimit int64

// Set parses a size above 0, or "none".
func (l *sizeLimit) Set(text string) error {
	if text == "none" {
		*l = 0
		return nil
	}
	var b byteSize
	if err := b.Set(text); err != nil {
		return err
	}
	if b == 0 {
		return errors.New(`is 0; "none" is no limit`)
	}
	*l = sizeLimit(b)
	return nil
}

// String is empty for 0, so that help shows no default.
func (l *sizeLimit) String() string {
	if *l == 0 {
		return ""
	}
	return byteSize(*l).String()
}

// Type implements pflag.Value.
func (*sizeLimit) Type() string { return "size" }

func (a *app) bucketQuotaCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quota BUCKET",
		Short: "Limit what a bucket holds",
		Long: `Limit how many objects a bucket holds, or their size, or both; none takes a limit
away, and one that isn't named stays. What is there already stays, too, also if
it is more: no put may then make it grow.

A put that would go over a limit is refused with the reason quota_exceeded, and
leaves nothing behind.`,
		Example: `  gridloom bucket quota photos --objects 100000 --size 100GiB
  gridloom bucket quota photos --size none`,
		Args: arguments(1, 1),
	}
	var objects limit
	var size sizeLimit
	cmd.Flags().Var(&objects, "objects", "at most `N` objects; none for no limit")
	cmd.Flags().Var(&size, "size", "at most `SIZE` (bytes, or with KiB, MiB, GiB, TiB); none for no limit")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, cmd *cobra.Command, args []string) error {
		names, err := bucketNames(args)
		if err != nil {
			return err
		}
		setObjects, setSize := cmd.Flags().Changed("objects"), cmd.Flags().Changed("size")
		if !setObjects && !setSize {
			return usageErrorf("no limit is given: --objects, --size, or both")
		}
		u, err := c.bucketUsage(ctx, names[0])
		if err != nil {
			return err
		}
		r := &gridloomv1.SetBucketQuotaRequest{Bucket: names[0], MaxObjects: u.GetMaxObjects(), MaxBytes: u.GetMaxBytes()}
		if setObjects {
			r.MaxObjects = int64(objects)
		}
		if setSize {
			r.MaxBytes = int64(size)
		}
		ctx, cancel := c.call(ctx)
		defer cancel()
		reply, err := c.buckets.SetBucketQuota(ctx, r)
		if err != nil {
			return err
		}
		j := usageJSON(reply.GetUsage())
		return a.out.print(j, func() string { return usageText([]jsonUsage{j}) })
	})
}
