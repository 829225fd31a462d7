package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"
)

// Requests in flight: as many goroutines as there are requests call a handler
// that does not return before it is told to. While all of them wait both ends
// are read, after a garbage collection.

// inFlightSize is the payload of each, in bytes.
const inFlightSize = 512

// requestsInFlight measures b.inFlight requests on one connection. Heap is
// counted beyond payloads and stacks, and beyond what the goroutines that
// call cost without the grid: their descriptors and what they wait with.
func (b *bench) requestsInFlight(ctx context.Context) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	bare, err := bareGoroutines(ctx, b.inFlight)
	if err != nil {
		return nil, err
	}
	l, err := b.open(ctx, "grid", "inflight", false)
	if err != nil {
		return nil, err
	}
	defer l.close() // it may well take longer to end than it is given
	c, ok := l.client.(*gridClient)
	if !ok {
		return nil, fmt.Errorf("the client is %T", l.client)
	}
	if _, err := c.conn.Request(ctx, heldID, nil); err != nil {
		return nil, err
	}
	nearBefore := readUsage(true)
	farBefore, err := l.far.usage(true)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	req := make([]byte, inFlightSize) // one for all: the near payload is nothing
	failed := make(chan error, b.inFlight)
	callCtx, release := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer release()
	for range b.inFlight {
		wg.Go(func() {
			resp, err := c.conn.Request(callCtx, holdID, req)
			if err == nil && len(resp) != inFlightSize {
				err = fmt.Errorf("an answer of %d bytes", len(resp))
			}
			if err != nil {
				failed <- err
			}
		})
	}
	if err := c.waitHeld(ctx, b.inFlight, failed); err != nil {
		return nil, err
	}
	near := readUsage(true)
	far, err := l.far.usage(true)
	if err != nil {
		return nil, err
	}
	if _, err := c.conn.Request(ctx, releaseID, nil); err != nil {
		return nil, err
	}
	wg.Wait()
	took := time.Since(start)
	select {
	case err := <-failed:
		return nil, err
	default:
	}
	each := func(after, before uint64) float64 { return (float64(after) - float64(before)) / float64(b.inFlight) }
	out := sample{
		nearHeap:  each(near.HeapBytes, nearBefore.HeapBytes) - bare,
		farHeap:   each(far.HeapBytes, farBefore.HeapBytes) - inFlightSize - bare,
		nearStack: each(near.StackBytes, nearBefore.StackBytes), farStack: each(far.StackBytes, farBefore.StackBytes),
		seconds: took.Seconds(),
	}
	out[bothHeap] = out[nearHeap] + out[farHeap]
	return out, nil
}

// waitHeld waits until n handlers wait.
func (c *gridClient) waitHeld(ctx context.Context, n int, failed <-chan error) error {
	for {
		resp, err := c.conn.Request(ctx, heldID, nil)
		if err != nil {
			return err
		}
		if int(binary.LittleEndian.Uint64(resp)) >= n {
			return nil
		}
		if err := pause(ctx, 20*time.Millisecond, failed); err != nil {
			return err
		}
	}
}

// bareGoroutines tells what a goroutine that waits as a caller of Request
// does, on a channel or its context, holds of heap by itself.
func bareGoroutines(ctx context.Context, n int) (float64, error) {
	before := readUsage(true)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	never := make(chan struct{})
	for range n {
		wg.Go(func() {
			select {
			case <-never:
			case <-ctx.Done():
			}
		})
	}
	err := pause(ctx, 500*time.Millisecond, nil)
	after := readUsage(true)
	cancel()
	wg.Wait()
	return (float64(after.HeapBytes) - float64(before.HeapBytes)) / float64(n), err
}
