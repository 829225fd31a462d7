package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestLateStart starts five nodes in any order with pauses in between.
func TestLateStart(t *testing.T) {
	t.Parallel()
	lateStart(t, 1, time.Minute)
}

// lateStart has a client ask the first node that is there, while the others
// are still to come: first those of a new mesh, which needs all of them, and
// then those of one that was killed, which needs three of five. The client is
// served once the last node that it takes is there, within limit.
func lateStart(t *testing.T, rounds int, limit time.Duration) {
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			f := newFleet(t, 5)
			f.arriveLate(t, "new", f.size, limit)
			f.waitReady(t)
			id := f.deployment(t)
			for node := range f.all() {
				f.kill(node)
			}
			f.arriveLate(t, "known", f.size/2+1, limit)
			f.waitReady(t)
			if now := f.deployment(t); now != id {
				t.Errorf("the id was %s, and is %s", id, now)
			}
		})
	}
}

// arriveLate starts all nodes, and tells how long the client waited after so
// many were there.
func (f *fleet) arriveLate(t *testing.T, what string, needed int, limit time.Duration) {
	t.Helper()
	served := make(chan error, 1)
	var doneAt time.Time
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var before time.Time
	order := rand.Perm(f.size)
	for i, node := range order {
		node++
		if i > 0 {
			wait(t, time.Duration(rand.IntN(1500))*time.Millisecond)
		}
		if i+1 == needed {
			before = time.Now()
		}
		f.start(t, node)
		f.waitLive(t, node)
		if i == 0 {
			go func() {
				err := f.insist(ctx, node, what)
				doneAt = time.Now()
				served <- err
			}()
		}
		if i+1 != needed {
			continue
		}
		arrived := time.Now()
		if err := <-served; err != nil {
			t.Fatalf("%d of %d nodes are there, started as %v: %v", i+1, f.size, order, err)
		}
		if doneAt.Before(before) {
			t.Errorf("served with %d nodes, and it takes %d", i, needed)
		}
		waited := doneAt.Sub(arrived)
		t.Logf("%s mesh, started as %v: served %v after the last that it takes was there", what, order, waited.Round(time.Millisecond))
		if waited > limit {
			t.Errorf("served %v after the last node was there, want %v", waited, limit)
		}
	}
}

// waitLive waits until a node's HTTP listener answers.
func (f *fleet) waitLive(t *testing.T, node int) {
	t.Helper()
	waitAnswer(t, f.running[node-1], f.http(node), "/livez")
}

// insist makes a bucket of that name and an object in it through a node, and
// asks again whenever it is told to.
func (f *fleet) insist(ctx context.Context, node int, bucket string) error {
	if err := f.again(ctx, http.MethodPost, "http://"+f.http(node)+"/v1/buckets", `{"bucket":"`+bucket+`"}`); err != nil {
		return err
	}
	return f.again(ctx, http.MethodPut, "http://"+f.http(node)+"/data/"+bucket+"/key", "value")
}

// again makes a request until it is served, as long as the answer says when to
// come again.
func (f *fleet) again(ctx context.Context, method, url, body string) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+f.key)
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		switch {
		case resp.StatusCode < 300, resp.StatusCode == http.StatusConflict: // it was made by a try whose answer said otherwise
			return nil
		case resp.StatusCode != http.StatusServiceUnavailable:
			return fmt.Errorf("%s %s: %s", method, url, resp.Status)
		}
		seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil {
			return errors.New("503 without a Retry-After")
		}
		select {
		case <-time.After(time.Duration(seconds) * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
