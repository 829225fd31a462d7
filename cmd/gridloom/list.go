package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

func (a *app) listCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls [BUCKET[/PREFIX]]",
		Short: "List buckets or objects",
		Long: `List the buckets, or the objects of one whose keys begin with PREFIX, in the
byte order of their keys. What comes after a further slash is folded into one
line that ends with the slash; -r lists every object.

The list is printed page by page as it comes; each page is one consistent view
of the bucket, with every change that was acknowledged before. --stale 5s allows
pages that are up to so old: a node that can't reach the others may still have
them.`,
		Example: `  gridloom ls
  gridloom ls photos
  gridloom ls photos/summer/
  gridloom ls -r photos --json | jq -r 'select(.size > 1e9).key'`,
		Args: arguments(0, 1),
	}
	recursive := cmd.Flags().BoolP("recursive", "r", false, "list every object, with nothing folded")
	stale := staleFlag(cmd)
	return a.clientCommand(cmd, func(ctx context.Context, c *client, cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return c.listBuckets(ctx, &gridloomv1.ListBucketsRequest{MaxAge: stale.proto()}, a.printBucket)
		}
		at, err := parseAddress(args[0])
		if err != nil {
			return err
		}
		req := &gridloomv1.ListObjectsRequest{Bucket: at.bucket, Prefix: at.key, Delimiter: "/", MaxAge: stale.proto()}
		if *recursive {
			req.Delimiter = ""
		}
		return c.list(ctx, req, func(page *gridloomv1.ListObjectsResponse) error {
			return a.printPage(at.bucket, page)
		})
	})
}

func (a *app) printBucket(b *gridloomv1.Bucket) error {
	created := b.GetCreatedAt().AsTime()
	return a.out.print(jsonBucket{Type: "bucket", Bucket: b.GetName(), CreatedAt: stamp(created)}, func() string {
		return fmt.Sprintf("%s  %s\n", seconds(created), shown(b.GetName()))
	})
}

// printPage prints objects and prefixes in the one order that both have.
func (a *app) printPage(bucket string, page *gridloomv1.ListObjectsResponse) error {
	objects, prefixes := page.GetObjects(), page.GetCommonPrefixes()
	for len(objects) > 0 || len(prefixes) > 0 {
		if len(objects) == 0 || len(prefixes) > 0 && prefixes[0] < objects[0].GetKey() {
			prefix := prefixes[0]
			prefixes = prefixes[1:]
			err := a.out.print(jsonPrefix{Type: "prefix", Bucket: bucket, Prefix: prefix}, func() string {
				return fmt.Sprintf("%20s  %10s  %s\n", "", "", shown(prefix))
			})
			if err != nil {
				return err
			}
			continue
		}
		o := objects[0]
		objects = objects[1:]
		err := a.out.print(toJSON(o), func() string {
			return fmt.Sprintf("%20s  %10s  %s\n", seconds(o.GetModifiedAt().AsTime()), byteSize(o.GetSize()), shown(o.GetKey()))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// list calls page with each page of a list, one after the other.
func (c *client) list(ctx context.Context, req *gridloomv1.ListObjectsRequest, page func(*gridloomv1.ListObjectsResponse) error) error {
	for {
		reply, err := func() (*gridloomv1.ListObjectsResponse, error) {
			ctx, cancel := c.call(ctx)
			defer cancel()
			return c.objects.ListObjects(ctx, req)
		}()
		if err != nil {
			return err
		}
		if err := page(reply); err != nil {
			return err
		}
		if reply.GetNextPageToken() == "" {
			return nil
		}
		req.PageToken = reply.GetNextPageToken()
	}
}

// listBuckets calls bucket with each of them.
func (c *client) listBuckets(ctx context.Context, req *gridloomv1.ListBucketsRequest, bucket func(*gridloomv1.Bucket) error) error {
	for {
		reply, err := func() (*gridloomv1.ListBucketsResponse, error) {
			ctx, cancel := c.call(ctx)
			defer cancel()
			return c.buckets.ListBuckets(ctx, req)
		}()
		if err != nil {
			return err
		}
		for _, b := range reply.GetBuckets() {
			if err := bucket(b); err != nil {
				return err
			}
		}
		if reply.GetNextPageToken() == "" {
			return nil
		}
		req.PageToken = reply.GetNextPageToken()
	}
}

// completeArgs completes buckets and keys from the node, within the time that
// someone at a shell waits for it; where anything is missing, by files.
func (a *app) completeArgs(s *settings) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, text string) ([]string, cobra.ShellCompDirective) {
		if s.load(a.env) != nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		c, err := dial(s)
		if err != nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		defer c.conn.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
		defer cancel()
		var found []string
		bucket, prefix, inBucket := strings.Cut(text, "/")
		if !inBucket {
			_ = c.listBuckets(ctx, &gridloomv1.ListBucketsRequest{}, func(b *gridloomv1.Bucket) error { // what came before an error is of use
				if strings.HasPrefix(b.GetName(), text) {
					found = append(found, b.GetName()+"/")
				}
				return nil
			})
			return found, cobra.ShellCompDirectiveNoSpace
		}
		reply, err := c.objects.ListObjects(ctx, &gridloomv1.ListObjectsRequest{Bucket: bucket, Prefix: prefix, Delimiter: "/"})
		if err != nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		for _, p := range reply.GetCommonPrefixes() {
			found = append(found, bucket+"/"+p)
		}
		for _, o := range reply.GetObjects() {
			found = append(found, bucket+"/"+o.GetKey())
		}
		return found, cobra.ShellCompDirectiveNoSpace
	}
}
