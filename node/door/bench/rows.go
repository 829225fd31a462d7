//go:build linux

package main

import (
	"context"
	"fmt"
)

// row is one kind of work.
type row struct {
	id, title string
	group     string // rows of a group share servers
	size      int64
	conns     int
	base      string // contender that the others are compared with
	once      bool   // one run is enough
	often     int    // runs for each that the plan has, where a disk's moods are in them; 0: 1
	columns   []metric
	goals     []goal
	open      func(ctx context.Context, l *lab, r *row) ([]contender, error)
}

// goal is what the first contender's median, or its ratio to the base's, has to
// reach.
type goal struct {
	text   string
	metric metric
	least  float64 // of the ratio; 0: no such
	most   float64 // of the ratio; 0: no such
	below  float64 // of the figure itself; 0: no such
}

var getSizes = []int64{4 * kib, 64 * kib, mib, 64 * mib, gib}

var getConns = []int{1, 8, 64}

var getColumns = []metric{rate, through, cpuGiB, cpuEach, clientGiB, bothGiB, peakMiB, others}

// bigBytes is from where on bytes count, and not requests.
const bigBytes = mib

func rows() (all []row) {
	for _, size := range getSizes {
		for _, conns := range getConns {
			r := row{
				id: fmt.Sprintf("get-%s-%d", sizeName(size), conns), title: fmt.Sprintf("GET of %s, %s", sizeName(size), connections(conns)),
				group: "get", size: size, conns: conns, base: "nginx", columns: getColumns, open: openGet,
				goals: []goal{{"requests/s ≥ 1.0 × nginx", rate, 1.0, 0, 0}},
			}
			if size >= bigBytes {
				r.goals = []goal{{"MB/s ≥ 0.95 × nginx", through, 0.95, 0, 0}, {"CPU/GiB ≤ 1.2 × nginx", cpuGiB, 0, 1.2, 0}}
			}
			all = append(all, r)
		}
	}
	for _, size := range getSizes[:2] {
		for _, conns := range getConns {
			all = append(all, row{
				id: fmt.Sprintf("mesh-%s-%d", sizeName(size), conns), title: fmt.Sprintf("GET of %s through a follower of three nodes, %s", sizeName(size), connections(conns)),
				group: "mesh", size: size, conns: conns, base: "nginx", columns: getColumns, open: openMeshGet,
			})
		}
	}
	return append(all, otherRows()...)
}

// otherRows are those that nginx has no part in.
func otherRows() (all []row) {
	for _, conns := range getConns[:2] {
		all = append(all, row{
			id: fmt.Sprintf("get-through-%d", conns), title: "GET of 64MiB through a node without a copy, " + connections(conns),
			group: "through", size: 64 * mib, conns: conns, base: "direct",
			columns: []metric{rate, through, cpuGiB, clientGiB, copied, others}, open: openThrough,
			goals: []goal{{"MB/s ≥ 0.65 × direct", through, 0.65, 0, 0}, {"bytes of a GET in user space ≤ 512", copied, 0, 0, 513}},
		})
	}
	all = append(all, row{
		id: "put-64MiB", title: "PUT of 64MiB with one replica, 1 connection",
		group: "put", size: 64 * mib, conns: 1, base: "bare file", often: 3, columns: []metric{rate, through, cpuGiB, clientGiB, others}, open: openPut,
		goals: []goal{{"MB/s ≥ 0.8 × a bare file with the same sums", through, 0.8, 0, 0}},
	})
	for _, conns := range getConns[:2] {
		all = append(all, row{
			id: fmt.Sprintf("grpc-get-64MiB-%d", conns), title: "GetObject of 64MiB, " + connections(conns),
			group: "grpc", size: 64 * mib, conns: conns, base: "bare grpc-go", columns: getColumns, open: openGRPC,
			goals: []goal{{"MB/s ≥ 0.9 × bare grpc-go", through, 0.9, 0, 0}},
		})
	}
	for _, withTLS := range []bool{false, true} {
		name, how := "plain", "plaintext"
		if withTLS {
			name, how = "tls", "TLS"
		}
		for _, m := range []struct {
			id, title string
			below     float64
			open      func(bool) func(context.Context, *lab, *row) ([]contender, error)
		}{
			{"get", "64 downloads at once, " + how, 128, openDownloads},
			{"put", "64 uploads at once, " + how, 256, openUploads},
		} {
			all = append(all, row{
				id: "memory-" + m.id + "-" + name, title: m.title, group: "memory", conns: 64, once: true,
				columns: []metric{peakMiB, through, cpuGiB, clientGiB, others}, open: m.open(withTLS),
				goals: []goal{{fmt.Sprintf("VmHWM < %.0f MiB", m.below), peakMiB, 0, 0, m.below}},
			})
		}
	}
	return all
}

func connections(n int) string {
	if n == 1 {
		return "1 connection"
	}
	return fmt.Sprintf("%d connections", n)
}
