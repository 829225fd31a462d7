//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// contentOf gives each object its own bytes, which don't compress.
func contentOf(r *row) func(i int) []byte {
	block := make([]byte, r.bytes+4096)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(block) // never fails
	return func(i int) []byte { return block[i%4096 : i%4096+r.bytes] }
}

// figures of one run.
type figures struct {
	mesh, bare time.Duration // for all puts
	cpu        time.Duration // of the nodes
	copies     float64       // files that the mesh has for each put, right after
}

// measure runs a row of puts, and prints it.
func (p *plan) measure(ctx context.Context, out io.Writer, r *row, m *mesh) error {
	bare, err := newRecipe(p.dir)
	if err != nil {
		return err
	}
	content := contentOf(r)
	warm := *r
	warm.puts = max(1, r.puts/4)
	var runs []figures
	for run := range p.runs {
		var f figures
		both := []func() error{
			func() (err error) {
				m.run = fmt.Sprintf("%s/warm%d/", r.id, run)
				if _, err = load(ctx, &warm, content, m.put); err != nil {
					return err
				}
				m.run = fmt.Sprintf("%s/%d/", r.id, run)
				before, files := m.cpu(), m.allPayloads()
				f.mesh, err = load(ctx, r, content, m.put)
				f.cpu = m.cpu() - before
				f.copies = float64(m.allPayloads()-files) / float64(r.puts)
				if err == nil {
					err = m.check(ctx, r, content)
				}
				return err
			},
			func() (err error) {
				if _, err = load(ctx, &warm, content, bare.put); err != nil {
					return err
				}
				f.bare, err = load(ctx, r, content, bare.put)
				return err
			},
		}
		if run%2 == 1 {
			slices.Reverse(both)
		}
		for _, one := range both {
			if err := one(); err != nil {
				return err
			}
		}
		runs = append(runs, f)
		if err := bare.clear(); err != nil {
			return err
		}
	}
	r.print(out, runs)
	return m.remove(ctx, r, p.runs)
}

// remove deletes what a row has put, so that the next begins with as much room.
func (m *mesh) remove(ctx context.Context, r *row, runs int) error {
	for run := range runs {
		for _, dir := range []string{fmt.Sprintf("%s/warm%d/", r.id, run), fmt.Sprintf("%s/%d/", r.id, run)} {
			var keys []string
			for i := range r.puts {
				if keys = append(keys, fmt.Sprintf("%s%d", dir, i)); len(keys) == 1000 || i == r.puts-1 {
					body, err := json.Marshal(map[string]any{"keys": keys})
					if err != nil {
						return err
					}
					if err := m.request(ctx, http.MethodPost, 0, "/v1/buckets/bench/objects:delete", body, nil); err != nil {
						return err
					}
					keys = keys[:0]
				}
			}
		}
	}
	return nil
}

func (r *row) print(out io.Writer, runs []figures) {
	median := func(of func(figures) float64) (mid, least, most float64) {
		values := make([]float64, len(runs))
		for i, f := range runs {
			values[i] = of(f)
		}
		slices.Sort(values)
		n := len(values)
		return (values[(n-1)/2] + values[n/2]) / 2, values[0], values[n-1]
	}
	rate := func(d time.Duration) float64 { return float64(r.puts) / d.Seconds() }
	mesh, _, _ := median(func(f figures) float64 { return rate(f.mesh) })
	bare, _, _ := median(func(f figures) float64 { return rate(f.bare) })
	cpu, _, _ := median(func(f figures) float64 { return f.cpu.Seconds() * 1e6 / float64(r.puts) })
	ratio, least, most := median(func(f figures) float64 { return f.bare.Seconds() / f.mesh.Seconds() })
	verdict := "met"
	if ratio < r.least {
		verdict = "**not met**"
	}
	fmt.Fprintf(out, "\n### %s (`%s`)\n\n", r.title, r.id)
	files, _, _ := median(func(f figures) float64 { return f.copies })
	fmt.Fprintln(out, "| | puts/s | MB/s of payload | files a put | CPU of the nodes, µs a put |\n| --- | --- | --- | --- | --- |")
	fmt.Fprintf(out, "| gridloom | %.1f | %.1f | %.2f | %.0f |\n", mesh, mesh*float64(r.bytes)/1e6, files, cpu)
	fmt.Fprintf(out, "| bare recipe | %.1f | %.1f | %d | |\n", bare, bare*float64(r.bytes)/1e6, copies)
	fmt.Fprintf(out, "\nratio %.2f (%.2f–%.2f), goal ≥ %.1f: %s\n", ratio, least, most, r.least, verdict)
}

// measureHeal has a node lose all it has, and waits for its copies.
func (m *mesh) measureHeal(ctx context.Context, out io.Writer, p *plan) error {
	r := row{id: healRow, bytes: 64 << 10, clients: 64, puts: p.files}
	content := contentOf(&r)
	m.run = healRow + "/"
	const lost = copies - 1
	before := m.payloads(lost)
	if _, err := load(ctx, &r, content, m.put); err != nil {
		return err
	}
	files := m.payloads(lost) - before
	if files == 0 {
		return fmt.Errorf("%s has no copy of %d objects", name(lost), p.files)
	}
	m.stop(lost)
	if err := os.RemoveAll(m.data(lost)); err != nil {
		return err
	}
	replace := exec.CommandContext(ctx, m.program, "node", "replace", name(lost), "--endpoint", m.addr(0, 0), "--key-file", filepath.Join(m.dir, "root.key"))
	if text, err := replace.CombinedOutput(); err != nil {
		return fmt.Errorf("gridloom node replace: %w: %s", err, bytes.TrimSpace(text))
	}
	if err := m.start(lost); err != nil {
		return err
	}
	start, cpu := time.Now(), m.cpu()
	for m.payloads(lost) < files { // those before are removed objects', which nobody copies
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%d of %d files are back: %w", m.payloads(lost), files, err)
		}
	}
	took, used := time.Since(start), m.cpu()-cpu
	if err := m.check(ctx, &r, content); err != nil {
		return err
	}
	fmt.Fprintf(out, "\n### Heal: %d files of 64 KiB on a node that lost everything (`%s`)\n\n", files, healRow)
	fmt.Fprintf(out, "%.1f s from the replacement's start, %.0f files/s, %.1f s of the nodes' CPU (%.2f ms a file)\n",
		took.Seconds(), float64(files)/took.Seconds(), used.Seconds(), 1e3*used.Seconds()/float64(files))
	return nil
}
