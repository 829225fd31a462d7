package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// leader is the node that leads the records' group, as it says itself.
func (f *fleet) leader(t *testing.T) int {
	t.Helper()
	var last error
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, i := range rand.Perm(f.size) {
			c, err := f.describe(ctx, i+1)
			switch {
			case err != nil:
				last = err
			case c.leader() == f.name(i+1):
				return i + 1
			default:
				last = errors.New("nobody says that it leads")
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("nobody says who leads: %v", last)
		}
	}
}

func (c *cluster) leader() string {
	for _, g := range c.Groups {
		if strings.HasPrefix(g.Name, "data") {
			return g.Leader
		}
	}
	for _, n := range c.Nodes {
		if n.Index {
			return n.Name
		}
	}
	return ""
}
