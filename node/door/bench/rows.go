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

var getColumns = []metric{rate, through, cpuGiB, cpuEach, clientGiB, peakMiB, others}

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
	return all
}

func connections(n int) string {
	if n == 1 {
		return "1 connection"
	}
	return fmt.Sprintf("%d connections", n)
}
