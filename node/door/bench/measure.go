//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/gridloom/gridloom/internal/bench"
)

// sample is what one run of one contender in one row gave, by metric.
type sample map[metric]float64

// metric names a figure.
type metric string

const (
	rate      metric = "requests/s"
	through   metric = "MB/s"
	cpuGiB    metric = "server CPU s/GiB"
	cpuEach   metric = "server CPU µs/request"
	clientGiB metric = "client CPU s/GiB"
	bothGiB   metric = "CPU of both s/GiB"
	peakMiB   metric = "server VmHWM MiB"
	copied    metric = "bytes/GET in user space"
	others    metric = "others' CPU" // share of the processors that other programs had
)

// contender is one of those that a row compares.
type contender struct {
	name string
	run  func(ctx context.Context) (sample, error)
}

// meter measures what a run costs its servers, this process and the machine.
type meter struct {
	servers []process // under load
	idle    []process // that are up beside them
	before  reading
	spent   reading // from start to stop
}

// reading is what has been used so far.
type reading struct {
	servers, idle, self, busy time.Duration
}

func (m *meter) read() (r reading, err error) {
	var errs [2]error
	r.servers, errs[0] = cpuOf(m.servers)
	r.idle, errs[1] = cpuOf(m.idle)
	r.busy, r.self = bench.BusyTime(), bench.CPUTime()
	if slices.Contains(m.servers, process(os.Getpid())) { // it is what is measured
		r.self = 0
	}
	return r, errors.Join(errs[:]...)
}

// begin has the servers' peaks of memory begin anew.
func (m *meter) begin() error {
	for _, p := range m.servers {
		if err := p.resetPeak(); err != nil {
			return err
		}
	}
	return nil
}

func (m *meter) start() (err error) {
	m.before, err = m.read()
	return err
}

func (m *meter) stop() error {
	now, err := m.read()
	m.spent = reading{
		servers: now.servers - m.before.servers, idle: now.idle - m.before.idle,
		self: now.self - m.before.self, busy: now.busy - m.before.busy,
	}
	return err
}

// sample is the figures of bytes moved within took in requests of size.
func (m *meter) sample(bytes, size int64, took time.Duration) (sample, error) {
	peak, err := peakOf(m.servers)
	requests := float64(bytes) / float64(size)
	machine := took.Seconds() * float64(runtime.NumCPU())
	ours := m.spent.servers + m.spent.idle + m.spent.self
	return sample{
		rate:      requests / took.Seconds(),
		through:   float64(bytes) / 1e6 / took.Seconds(),
		cpuGiB:    m.spent.servers.Seconds() / (float64(bytes) / gib),
		cpuEach:   m.spent.servers.Seconds() * 1e6 / requests,
		clientGiB: m.spent.self.Seconds() / (float64(bytes) / gib),
		bothGiB:   (m.spent.servers + m.spent.self).Seconds() / (float64(bytes) / gib),
		peakMiB:   float64(peak) / mib,
		others:    min(1, max(0, (m.spent.busy-ours).Seconds()/machine)),
	}, err
}

// measureRow runs a row: each contender once in each run, every run beginning
// with another. A run that fails is reported, and the others go on.
func (p *plan) measureRow(ctx context.Context, r *row, l *lab) (*results, error) {
	contenders, err := r.open(ctx, l, r)
	if err != nil {
		return nil, err
	}
	res := newResults(r)
	for _, c := range contenders {
		res.systems = append(res.systems, c.name)
	}
	runs := p.runs * max(1, r.often)
	if r.once {
		runs = 1
	}
	for i := range runs {
		for j := range contenders {
			c := contenders[(i+j)%len(contenders)]
			s, err := c.run(ctx)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			res.Add(c.name, s, err)
		}
	}
	return res, nil
}
