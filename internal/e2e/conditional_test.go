package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestConditionalPut: of many clients that make the same object exactly one
// does, and one that changes what it has read never overwrites another's
// change, through whatever mixture of nodes.
func TestConditionalPut(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 3)
	mustRun(t, f.env(1), "mb", "conditional")
	for round := range 4 {
		oneWinner(t, f, fmt.Sprintf("one-%d", round))
	}
	noLostUpdate(t, f, "counter", 12, 8)
}

// oneWinner has 64 clients put one key at the same moment, if there is none.
func oneWinner(t *testing.T, f *fleet, key string) {
	t.Helper()
	const clients = 64
	var all sync.WaitGroup
	begin := make(chan struct{})
	codes, bodies := make([]int, clients), make([][]byte, clients)
	for i := range clients {
		bodies[i] = bytes.Repeat(fmt.Appendf(nil, "client %d. ", i), 1+i*40) // some inline, some not
		all.Go(func() {
			<-begin
			code, _, _, err := f.object(t, 1+i%f.size, http.MethodPut, "conditional", key, http.Header{"If-None-Match": {"*"}}, bodies[i])
			if err != nil {
				t.Errorf("client %d: %v", i, err)
			}
			codes[i] = code
		})
	}
	close(begin)
	all.Wait()
	winner := -1
	for i, code := range codes {
		switch {
		case code == http.StatusCreated && winner >= 0:
			t.Errorf("%s: both %d and %d have made it", key, winner, i)
		case code == http.StatusCreated:
			winner = i
		case code != http.StatusPreconditionFailed:
			t.Errorf("%s: client %d: %d", key, i, code)
		}
	}
	if winner < 0 {
		t.Fatalf("%s: nobody has made it", key)
	}
	for node := range f.all() {
		code, _, got, err := f.object(t, node, http.MethodGet, "conditional", key, nil, nil)
		if err != nil || code != http.StatusOK || !bytes.Equal(got, bodies[winner]) {
			t.Errorf("%s: through n%d, not what the winner %d has put: %d, %v, %.40q", key, node, winner, code, err, got)
		}
	}
}

// noLostUpdate has clients add to a number by compare and set.
func noLostUpdate(t *testing.T, f *fleet, key string, clients, times int) {
	t.Helper()
	if code, _, _, err := f.object(t, 1, http.MethodPut, "conditional", key, nil, []byte("0")); code != http.StatusCreated {
		t.Fatalf("%s: %d, %v", key, code, err)
	}
	var all sync.WaitGroup
	var refused atomic.Int64
	for i := range clients {
		all.Go(func() {
			for added := 0; added < times; {
				code, header, got, err := f.object(t, 1+(i+added)%f.size, http.MethodGet, "conditional", key, nil, nil)
				n, parseErr := strconv.Atoi(string(got))
				if code != http.StatusOK || parseErr != nil {
					t.Errorf("client %d: %d, %v, %q", i, code, err, got)
					return
				}
				next := strconv.AppendInt(nil, int64(n+1), 10)
				code, _, got, err = f.object(t, 1+(i+added+1)%f.size, http.MethodPut, "conditional", key, http.Header{"If-Match": header["Etag"]}, next)
				switch code {
				case http.StatusNoContent:
					added++
				case http.StatusPreconditionFailed:
					refused.Add(1)
				default:
					t.Errorf("client %d: %d, %v, %s", i, code, err, got)
					return
				}
			}
		})
	}
	all.Wait()
	_, _, got, err := f.object(t, 2, http.MethodGet, "conditional", key, nil, nil)
	if want := strconv.Itoa(clients * times); string(got) != want {
		t.Errorf("%s is %q after %s increments (%v)", key, got, want, err)
	}
	t.Logf("%d increments, %d times another client was first", clients*times, refused.Load())
}

// object makes one request about an object.
func (f *fleet) object(t *testing.T, node int, method, bucket, key string, header http.Header, body []byte) (code int, h http.Header, got []byte, err error) {
	req, err := http.NewRequestWithContext(t.Context(), method, dataDoor{f.meshUnderTest}.at(node, bucket, key), bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	if header != nil {
		req.Header = header
	}
	req.Header.Set("Authorization", "Bearer "+f.key)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 3 * time.Minute}).Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	got, err = io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, got, err
}
