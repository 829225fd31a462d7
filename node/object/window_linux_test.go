package object

import (
	"io"
	"testing"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
)

// TestFirstWindow: a first window larger than usual is only for what is in memory on
// a drive of this node; for anything else its first bytes would wait.
func TestFirstWindow(t *testing.T) {
	const size, wanted = 3 << 20, 512 << 10
	for _, c := range []struct {
		name  string
		known bool // what is in memory
		node  int
		want  int64
	}{
		{"in memory", true, 0, wanted},
		{"perhaps not", false, 0, dataio.FirstWindowBytes},
		{"on another node", true, 1, dataio.FirstWindowBytes},
	} {
		t.Run(c.name, func(t *testing.T) {
			var config meshConfig
			if !c.known { // behind an Interceptor nothing is known to be
				config.drive = func(int) dataio.Options { return dataio.Options{Interceptor: new(datatest.Faults)} }
			}
			m := onlyOn(t, 0, config)
			m.bucket("first")
			m.nodes[0].put(t, "first", "k", randomBytes(size), true)
			r, err := m.nodes[c.node].Open(testContext(t), "first", "k", Conditions{}, 0)
			must(t, err)
			local, remote := pair(t)
			got := make(chan int64)
			go func() {
				n, _ := io.Copy(io.Discard, remote)
				got <- n
			}()
			var windows []int64
			_, err = r.Send(testContext(t), local, 0, -1, dataio.Windows{FirstBytes: wanted, After: func(n int64) { windows = append(windows, n) }})
			local.Close()
			if n := <-got; n != size || err != nil || len(windows) == 0 {
				t.Fatalf("%d bytes arrived: %v", n, err)
			}
			if windows[0] != c.want {
				t.Errorf("windows of %d bytes, want the first of %d", windows, c.want)
			}
		})
	}
}
