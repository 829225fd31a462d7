package main

import (
	"context"
	"errors"
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
line that ends with the slash; -r lists every object, and --delimiter folds at
another text.

The list is printed page by page as it comes; each page is one consistent view
of the bucket, with every change that was acknowledged before. --stale 5s allows
pages that are up to so old: a node that can't reach the others may still have
them.

--limit ends the list early. Where there is more, --page-token, with what is
then printed on stderr or, with --json, as the last line, takes it up again.`,
		Example: `  gridloom ls
  gridloom ls photos
  gridloom ls photos/summer/
  gridloom ls -r photos --start-after 2026/03 --limit 100
  gridloom ls -r photos --json | jq -r 'select(.size > 1e9).key'`,
		Args: arguments(0, 1),
	}
	l := listing{app: a}
	f := cmd.Flags()
	recursive := f.BoolP("recursive", "r", false, "list every object, with nothing folded")
	f.StringVar(&l.req.Delimiter, "delimiter", "/", "fold keys at the first `TEXT` after the prefix")
	f.StringVar(&l.req.StartAfter, "start-after", "", "begin behind this `KEY`")
	f.IntVar(&l.left, "limit", 0, "print `N` objects and folders at most; 0 is all")
	f.StringVar(&l.req.PageToken, "page-token", "", "go on where a list with --limit ended, which gave this `TOKEN`")
	stale := staleFlag(cmd)
	return a.clientCommand(cmd, func(ctx context.Context, c *client, cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			for _, flag := range []string{"recursive", "delimiter", "start-after", "limit", "page-token"} {
				if cmd.Flags().Changed(flag) {
					return usageErrorf("--%s is for the objects of a bucket, and none is named", flag)
				}
			}
			return c.listBuckets(ctx, &gridloomv1.ListBucketsRequest{MaxAge: stale.proto()}, a.printBucket)
		}
		at, err := parseAddress(args[0])
		if err != nil {
			return err
		}
		switch {
		case l.left < 0:
			return usageErrorf("--limit is %d", l.left)
		case *recursive && cmd.Flags().Changed("delimiter"):
			return usageErrorf("-r folds nothing, and --delimiter says at what")
		}
		l.req.Bucket, l.req.Prefix, l.req.MaxAge = at.bucket, at.key, stale.proto()
		if *recursive {
			l.req.Delimiter = ""
		}
		return l.run(ctx, c)
	})
}

// listing is what ls was asked for.
type listing struct {
	*app
	req  gridloomv1.ListObjectsRequest
	left int // entries until --limit; 0: there is none
}

// errListed ends a list that has come to its limit.
var errListed = errors.New("listed")

func (l *listing) run(ctx context.Context, c *client) error {
	const most = 1000 // entries of one page
	limited := l.left > 0
	l.req.PageSize = int32(min(l.left, most))
	err := c.list(ctx, &l.req, func(page *gridloomv1.ListObjectsResponse) error {
		if err := l.printPage(l.req.GetBucket(), page); err != nil || !limited {
			return err
		}
		l.left -= len(page.GetObjects()) + len(page.GetCommonPrefixes())
		l.req.PageSize = int32(min(l.left, most))
		if l.left > 0 {
			return nil
		}
		if err := l.printNext(page.GetNextPageToken()); err != nil {
			return err
		}
		return errListed
	})
	if errors.Is(err, errListed) {
		return nil
	}
	return err
}

// printNext tells how the list goes on, where it does.
func (l *listing) printNext(token string) error {
	switch {
	case token == "":
		return nil
	case l.json:
		return l.out.print(jsonNext{Type: "next", PageToken: token}, nil)
	}
	_, err := fmt.Fprintf(l.stderr, "there is more: --page-token %s\n", token)
	return err
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
