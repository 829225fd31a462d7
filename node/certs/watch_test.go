package certs

import (
	"context"
	"path/filepath"
	"testing"
	"time"
)

// watching runs Watch until the test ends, and says when changed was called.
func watching(t *testing.T, every time.Duration, files ...string) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	calls, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		Watch(ctx, files, every, func() {
			select {
			case calls <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return calls
}

// TestWatchSeesChanges: what happens in the folder is seen long before the tick.
func TestWatchSeesChanges(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	write(t, name, []byte("0"))
	calls := watching(t, time.Hour, name)
	limit := time.After(20 * time.Second)
	again := time.NewTicker(20 * time.Millisecond) // it may not be watching yet
	defer again.Stop()
	for {
		select {
		case <-calls:
			return
		case <-again.C:
			write(t, name, []byte("1"))
		case <-limit:
			t.Fatal("a change was not seen")
		}
	}
}

// TestWatchLooksAnyway: where there is nothing to watch, time alone will do.
func TestWatchLooksAnyway(t *testing.T) {
	for range 3 {
		select {
		case <-watching(t, time.Millisecond, filepath.Join(t.TempDir(), "no", "such", "folder")):
		case <-time.After(20 * time.Second):
			t.Fatal("nobody looks")
		}
	}
}
