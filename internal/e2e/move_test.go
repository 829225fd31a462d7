package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// move moves an object to another key of the group: in one step, whatever
// happens meanwhile. Some are only for an object that was seen, some only to
// where there is none.
func (o *op) move() {
	c := o.call(opMove, "move")
	c.to = (o.key + 1 + o.random.IntN(keysOfGroup-1)) % keysOfGroup
	request := map[string]any{"key": o.keyName(c.to), "sourceKey": o.keyName(o.key)}
	if m, tag := o.seen(); m != 0 && o.random.IntN(3) == 0 {
		c.ifMatch = m
		request["sourceConditions"] = map[string]any{"ifMatch": []string{tag}}
	}
	if o.random.IntN(4) == 0 {
		c.ifNone = true
		request["conditions"] = map[string]any{"ifNoneMatch": []string{"*"}}
	}
	body, err := json.Marshal(request)
	if err != nil {
		return
	}
	called := o.w.history.now()
	resp, got, never := o.send(http.MethodPost, "/v1/buckets/"+o.w.bucket+"/objects:move", nil, http.Header{"Content-Type": {"application/json"}}, body)
	if resp == nil {
		o.undecided(called, c, nil, nil, never)
		return
	}
	a := answer{is: done}
	switch resp.StatusCode {
	case http.StatusOK:
		o.w.acked.Add(1)
		var moved struct{ Object struct{ Etag string } }
		if err := json.Unmarshal(got, &moved); err != nil {
			o.oddStatus(resp, got)
			return
		}
		o.key = c.to
		a.content = o.content(resp, moved.Object.Etag)
	case http.StatusPreconditionFailed:
		a.is = differs
	case http.StatusNotFound:
		if bytes.Contains(got, []byte("bucket_not_found")) {
			o.oddStatus(resp, got)
			return
		}
		a.is = missing
	default:
		o.undecided(called, c, resp, got, false)
		return
	}
	o.w.history.add(o.client, called, c, a)
}

// moves counts the objects that were moved.
func (h *history) moves() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, op := range h.ops {
		if op.Input.(call).kind == opMove && op.Output.(answer).is == done {
			n++
		}
	}
	return n
}

// TestOneMover: of 64 clients that move one object to places of their own,
// through all processes of a mesh, exactly one does, and every node finds the
// bytes at that place alone.
func TestOneMover(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 3)
	mustRun(t, f.env(1), "mb", "movers")
	const clients = 64
	for round, size := range []int{100, 5 << 20} {
		key, data := fmt.Sprintf("source-%d", round), bytes.Repeat([]byte("moving. "), size/8)
		if code, _, got, err := f.object(t, 1+round, http.MethodPut, "movers", key, nil, data); code != http.StatusCreated {
			t.Fatalf("%d, %v, %s", code, err, got)
		}
		var all sync.WaitGroup
		begin := make(chan struct{})
		codes := make([]int, clients)
		for i := range clients {
			all.Go(func() {
				<-begin
				body := fmt.Appendf(nil, `{"key":"to-%d-%d","sourceKey":%q}`, round, i, key)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+f.http(1+i%f.size)+"/v1/buckets/movers/objects:move", bytes.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				req.Header = http.Header{"Authorization": {"Bearer " + f.key}, "Content-Type": {"application/json"}}
				resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 3 * time.Minute}).Do(req)
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
				_ = resp.Body.Close()
				codes[i] = resp.StatusCode
			})
		}
		close(begin)
		all.Wait()
		winner := -1
		for i, code := range codes {
			switch {
			case code == http.StatusOK && winner >= 0:
				t.Errorf("both %d and %d have moved it", winner, i)
			case code == http.StatusOK:
				winner = i
			case code != http.StatusNotFound:
				t.Errorf("client %d: %d", i, code)
			}
		}
		for node := range f.all() {
			for i := range clients {
				method, want := http.MethodHead, http.StatusNotFound
				if i == winner {
					method, want = http.MethodGet, http.StatusOK
				}
				code, _, got, err := f.object(t, node, method, "movers", fmt.Sprintf("to-%d-%d", round, i), nil, nil)
				if err != nil || code != want || (i == winner && !bytes.Equal(got, data)) {
					t.Errorf("%d has moved it, and %d's place has through n%d: %d, %d bytes, %v", winner, i, node, code, len(got), err)
				}
			}
			if code, _, _, err := f.object(t, node, http.MethodHead, "movers", key, nil, nil); err != nil || code != http.StatusNotFound {
				t.Errorf("the source through n%d: %d, %v", node, code, err)
			}
		}
	}
}
