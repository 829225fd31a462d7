package main

import "fmt"

// row is one kind of work.
type row struct {
	id     string
	about  string
	op     operation
	at     placement
	many   bool // clients; else one
	traced bool // what counts is the number of syncs
	goals  []goal
}

// goal is what a figure of Gridloom's has to reach: at least or at most so
// much, or so many times etcd's.
type goal struct {
	text        string
	metric      string
	ofEtcd      bool
	least, most float64
	below       float64 // 0: no such bound
}

func rows() []row {
	return []row{
		{
			id: "put-many", about: "puts of new keys, spread over the members", op: opPut, at: spread, many: true,
			goals: []goal{{text: "puts/s ≥ 1.0 × etcd", metric: rate, ofEtcd: true, least: 1}},
		},
		{
			id: "put-lone", about: "puts of new keys through the leader", op: opPut, at: atLeader,
			goals: []goal{{text: "p50 ≤ 1.5 × etcd", metric: p50, ofEtcd: true, most: 1.5}},
		},
		{id: "put-lone-follower", about: "puts of new keys through a follower", op: opPut, at: atFollower},
		{
			id: "get-many", about: "linearizable reads (GetObject, Get) through one follower", op: opGet, at: atFollower, many: true,
			goals: []goal{{text: "reads/s ≥ 1.0 × etcd", metric: rate, ofEtcd: true, least: 1}},
		},
		{id: "stat-many", about: "linearizable reads without the value (StatObject, Get of keys only) through one follower", op: opStat, at: atFollower, many: true},
		{
			id: "syncs", about: "syncs for each put of new keys, spread over the members", op: opPut, at: spread, many: true, traced: true,
			goals: []goal{{text: "on the leader < 0.5", metric: syncsLeader, below: 0.5}},
		},
	}
}

// title says what the row is, in the plan's numbers.
func (r *row) title(p *plan) string {
	clients := "1 client"
	if r.many {
		clients = fmt.Sprintf("%d clients", p.clients)
	}
	return fmt.Sprintf("%s, %d B: %s", clients, p.size, r.about)
}

// column is a metric in a table.
type column struct{ label, metric string }

func (r *row) columns() []column {
	if r.traced {
		return []column{{"leader, syncs/put", syncsLeader}, {"three members", syncsAll}, {"puts/s while traced", rate}}
	}
	return []column{{"operations/s", rate}, {"p50 µs", p50}, {"p99 µs", p99}, {"CPU µs each", cpuEach}, {"of it members", cpuServers}, {"others' CPU", others}}
}
