package main

import (
	"context"
	"errors"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
)

// The bounds of --parallel. Sixteen at once keep a fast mesh busy with small
// files; the number of streams a node allows on a connection is higher.
const (
	defaultParallel = 16
	maxParallel     = 100
)

func parallelFlag(cmd *cobra.Command) *int {
	n := new(int)
	cmd.Flags().IntVar(n, "parallel", defaultParallel, "with -r: move `N` objects at once")
	return n
}

// batch does something to many things, a bounded number at once. A failure is
// told when it happens and does not stop the others, unless it would happen to
// each of them.
type batch struct {
	app     *app
	command string
	client  *client
	ctx     context.Context // ends with the caller's, or when there is no use
	cancel  context.CancelFunc
	group   errgroup.Group

	mu    sync.Mutex // orders stderr
	code  int        // of the first failure
	fatal error      // that would happen to each
}

func (a *app) newBatch(ctx context.Context, c *client, cmd *cobra.Command, parallel int) (*batch, error) {
	if parallel < 1 || parallel > maxParallel {
		return nil, usageErrorf("--parallel: %d is not between 1 and %d", parallel, maxParallel)
	}
	b := &batch{app: a, command: name(cmd), client: c}
	b.ctx, b.cancel = context.WithCancel(ctx)
	b.group.SetLimit(parallel)
	return b, nil
}

// do runs f, and waits for that while the limit is reached. It returns false
// when there is no use in going on.
func (b *batch) do(f func(ctx context.Context) error) bool {
	if b.ctx.Err() != nil {
		return false
	}
	b.group.Go(func() error {
		b.fail(f(b.ctx))
		return nil
	})
	return true
}

// fail records and tells an error; nil is none.
func (b *batch) fail(err error) {
	if err == nil {
		return
	}
	err = b.client.explain(err)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ctx.Err() != nil {
		return // the reason has been told, or is wait's to return
	}
	if hopeless(err) {
		b.fatal = err
		b.cancel()
		return
	}
	if b.code == exitDone {
		b.code = exitCode(err)
	}
	b.tell(err)
}

func (b *batch) tell(err error) {
	b.app.clearMeter()
	tell(b.app.stderr, b.app.json, b.command, err)
}

// note tells something that is no failure.
func (b *batch) note(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tell(err)
}

// hopeless is an error that the next thing would have as well.
func hopeless(err error) bool {
	var gone *noConnectionError
	switch rpcCode(err) {
	case codes.Unauthenticated, codes.PermissionDenied:
		return true
	}
	return errors.As(err, &gone)
}

// wait joins everything, and returns what the command ends with. ctx is the
// one that newBatch had.
func (b *batch) wait(ctx context.Context) error {
	_ = b.group.Wait() // fail has them
	b.cancel()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case b.fatal != nil:
		return b.fatal
	case b.code != exitDone:
		return &reported{code: b.code}
	}
	return nil
}
