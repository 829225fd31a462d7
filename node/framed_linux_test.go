//go:build !race

package node

import (
	"io"
	"net/http"
	"strconv"
	"testing"
)

// framedPerMiBMost is what a further MiB by HTTP/2 may allocate, with what net/http
// takes for frames at both ends: 14 KB were measured, and 20 KB with a buffer for each
// move. The race detector has sync.Pool drop what it is given.
const framedPerMiBMost = 16 << 10

// TestWhatHTTP2Allocates: a further MiB that is cut into frames takes no further
// buffer.
func TestWhatHTTP2Allocates(t *testing.T) {
	r, client := runSecured(t)
	mustRequest(t, client, http.StatusOK, http.MethodPost, r.url("/v1/buckets"), []byte(`{"bucket":"bytes"}`))
	const large, larger = 1 << 20, 16 << 20
	var costs []float64
	buf := make([]byte, 64<<10)
	for _, size := range []int{large, larger} {
		url := r.url("/data/bytes/" + strconv.Itoa(size))
		mustRequest(t, client, http.StatusCreated, http.MethodPut, url, randomBytes(size))
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+testKey.String())
		_, cost := costOf(1, func() {
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for err == nil {
				var m int
				m, err = resp.Body.Read(buf)
				n += m
			}
			_ = resp.Body.Close()
			if err != io.EOF || n != size || resp.ProtoMajor != 2 {
				t.Fatalf("%s %s: %d of %d bytes, %v", resp.Proto, resp.Status, n, size, err)
			}
		})
		costs = append(costs, cost)
	}
	perMiB := (costs[1] - costs[0]) / ((larger - large) >> 20)
	t.Logf("1 MiB by HTTP/2: %.0f bytes; a further one: %.0f", costs[0], perMiB)
	if perMiB > framedPerMiBMost {
		t.Errorf("a further MiB by HTTP/2 takes %.0f bytes", perMiB)
	}
}
