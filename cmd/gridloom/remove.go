package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// deletePage is how many keys one DeleteObjects may have.
const deletePage = 1000

func (a *app) removeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rm BUCKET/KEY...",
		Short: "Remove objects",
		Long: `Remove objects. One that is not there is an error, and the others are removed
all the same.

With -r everything below BUCKET[/PREFIX]: a thousand objects in a step, several
steps at once. A bucket alone is emptied, and stays.`,
		Example: `  gridloom rm photos/summer/a.jpg photos/summer/b.jpg
  gridloom rm -r photos/summer
  gridloom rm etc/app.cfg --if-match 9f86d0…`,
		Args: arguments(1, -1),
	}
	recursive := cmd.Flags().BoolP("recursive", "r", false, "remove everything below a prefix")
	parallel := parallelFlag(cmd)
	cmd.Flags().StringSlice("if-match", nil, "remove only the object with this `ETAG`; repeatable")
	return a.clientCommand(cmd, func(ctx context.Context, c *client, cmd *cobra.Command, args []string) error {
		match, err := etags(cmd, "if-match")
		if err != nil {
			return err
		}
		if len(match) > 0 && (*recursive || len(args) > 1) {
			return usageErrorf("--if-match is for one object")
		}
		b, err := a.newBatch(ctx, c, cmd, *parallel)
		if err != nil {
			return err
		}
		r := &removing{app: a, client: c, batch: b}
		if *recursive {
			return r.below(ctx, args)
		}
		return r.objects(ctx, args, match)
	})
}

// removing is one gridloom rm.
type removing struct {
	app    *app
	client *client
	batch  *batch
}

// objects removes what is named: one object in a call of its own, which may
// have a condition, and more of them by bucket.
func (r *removing) objects(ctx context.Context, args []string, match []string) error {
	keys := map[string][]string{}
	var buckets []string
	for _, arg := range args {
		at, err := parseObject(arg)
		if err != nil {
			return err
		}
		if keys[at.bucket] == nil {
			buckets = append(buckets, at.bucket)
		}
		keys[at.bucket] = append(keys[at.bucket], at.key)
	}
	if len(args) == 1 {
		r.batch.cancel()
		bucket := buckets[0]
		return r.one(ctx, bucket, keys[bucket][0], match)
	}
	for _, bucket := range buckets {
		for rest := keys[bucket]; len(rest) > 0; {
			page := rest[:min(len(rest), deletePage)]
			rest = rest[len(page):]
			r.batch.do(func(ctx context.Context) error { return r.page(ctx, bucket, page, true) })
		}
	}
	return r.batch.wait(ctx)
}

func (r *removing) one(ctx context.Context, bucket, key string, match []string) error {
	ctx, cancel := r.client.call(ctx)
	defer cancel()
	req := &gridloomv1.DeleteObjectRequest{Bucket: bucket, Key: key}
	if len(match) > 0 {
		req.Conditions = &gridloomv1.Conditions{IfMatch: match}
	}
	if _, err := r.client.objects.DeleteObject(ctx, req); err != nil {
		return err
	}
	return r.print(bucket, key)
}

// page removes up to deletePage keys. One that was not there is told if it was
// asked for by name; if a list had it, someone else was faster.
func (r *removing) page(ctx context.Context, bucket string, keys []string, named bool) error {
	ctx, cancel := r.client.call(ctx)
	defer cancel()
	reply, err := r.client.objects.DeleteObjects(ctx, &gridloomv1.DeleteObjectsRequest{Bucket: bucket, Keys: keys})
	if err != nil {
		return fmt.Errorf("bucket %s: %w", shown(bucket), err)
	}
	for _, key := range reply.GetDeleted() {
		if err := r.print(bucket, key); err != nil {
			return err
		}
	}
	if named {
		for _, key := range reply.GetNotFound() {
			r.batch.fail(&notFoundError{shown(bucket+"/"+key) + ": there is no such object"})
		}
	}
	return nil
}

// below removes everything below each address, page by page of their lists.
func (r *removing) below(ctx context.Context, args []string) error {
	from := make([]address, len(args))
	for i, arg := range args {
		var err error
		if from[i], err = parseAddress(arg); err != nil {
			r.batch.cancel()
			return err
		}
	}
	for _, at := range from {
		found := false
		req := &gridloomv1.ListObjectsRequest{Bucket: at.bucket, Prefix: at.prefix(), PageSize: deletePage}
		err := r.client.list(r.batch.ctx, req, func(page *gridloomv1.ListObjectsResponse) error {
			keys := make([]string, len(page.GetObjects()))
			for i, o := range page.GetObjects() {
				keys[i] = o.GetKey()
			}
			if len(keys) > 0 {
				found = true
				r.batch.do(func(ctx context.Context) error { return r.page(ctx, at.bucket, keys, false) })
			}
			return nil
		})
		r.batch.fail(err)
		if err == nil && !found && at.key != "" {
			r.batch.fail(&notFoundError{fmt.Sprintf("no object is below %s", shown(at.bucket+"/"+at.prefix()))})
		}
	}
	return r.batch.wait(ctx)
}

func (r *removing) print(bucket, key string) error {
	return r.app.out.print(jsonRemoved{Type: "removed", Bucket: bucket, Key: key}, func() string {
		return fmt.Sprintf("%s removed\n", shown(bucket+"/"+key))
	})
}
