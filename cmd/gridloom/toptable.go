package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// topColumn is one column of a table: what it shows of a row, and the number
// that it is sorted by; nil: it is sorted by the text.
type topColumn[T any] struct {
	name   string
	text   func(*T) string
	number func(*T) float64
}

func columnNames[T any](columns []topColumn[T]) []string {
	var names []string
	for _, c := range columns {
		names = append(names, strings.ToLower(c.name))
	}
	return names
}

// sortRows sorts by a column, if there is one of that name: numbers from the
// largest on. Rows that are alike there keep their order.
func sortRows[T any](rows []T, columns []topColumn[T], name string, reverse bool) {
	i := slices.IndexFunc(columns, func(c topColumn[T]) bool { return strings.EqualFold(c.name, name) })
	if i < 0 {
		return
	}
	c := columns[i]
	slices.SortStableFunc(rows, func(a, b T) int {
		if reverse {
			a, b = b, a
		}
		if c.number != nil {
			return cmp.Compare(c.number(&b), c.number(&a))
		}
		return cmp.Compare(c.text(&a), c.text(&b))
	})
}

// tableText is a line of names and one for each row.
func tableText[T any](rows []T, columns []topColumn[T]) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	cells := make([]string, len(columns))
	for i, c := range columns {
		cells[i] = c.name
	}
	fmt.Fprintln(w, strings.Join(cells, "\t"))
	for i := range rows {
		for k, c := range columns {
			cells[k] = c.text(&rows[i])
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	w.Flush()
	return b.String()
}

// word is a column of names, number one of figures.
func word[T any](name string, text func(*T) string) topColumn[T] {
	return topColumn[T]{name: name, text: func(r *T) string { return orDash(shown(text(r))) }}
}

func number[T any](name string, value func(*T) float64, text func(float64) string) topColumn[T] {
	return topColumn[T]{name: name, number: value, text: func(r *T) string { return text(value(r)) }}
}

var nodeColumns = []topColumn[jsonTopNode]{
	word("NODE", func(n *jsonTopNode) string { return n.Node }),
	word("STATE", func(n *jsonTopNode) string { return n.State }),
	onlyUp(number("CPU", func(n *jsonTopNode) float64 { return n.BusyRatio }, percent)),
	onlyUp(number("IOWAIT", func(n *jsonTopNode) float64 { return n.IowaitRatio }, percent)),
	onlyUp(number("LOAD", func(n *jsonTopNode) float64 { return n.Load1 }, plainNumber)),
	onlyUp(number("MEM", func(n *jsonTopNode) float64 { return share(n.MemoryUsed, n.MemoryTotal) }, percent)),
	onlyUp(number("RSS", func(n *jsonTopNode) float64 { return float64(n.ProcessResident) }, sizeOf)),
	onlyUp(number("NET-IN/S", func(n *jsonTopNode) float64 { return n.NetReceived }, sizeOf)),
	onlyUp(number("NET-OUT/S", func(n *jsonTopNode) float64 { return n.NetSent }, sizeOf)),
	onlyUp(number("GRID-IN/S", func(n *jsonTopNode) float64 { return n.GridReceived }, sizeOf)),
	onlyUp(number("GRID-OUT/S", func(n *jsonTopNode) float64 { return n.GridSent }, sizeOf)),
	onlyUp(number("BULK-IN/S", func(n *jsonTopNode) float64 { return n.BulkReceived }, sizeOf)),
	onlyUp(number("BULK-OUT/S", func(n *jsonTopNode) float64 { return n.BulkSent }, sizeOf)),
	onlyUp(number("REQ/S", func(n *jsonTopNode) float64 { return n.Requests }, plainNumber)),
	{
		name: "DRIVES", number: func(n *jsonTopNode) float64 { return float64(n.Drives - n.DrivesHealthy) }, // those that need somebody
		text: func(n *jsonTopNode) string {
			if n.State != "up" {
				return orDash(shown(n.Error)) // it is the last column
			}
			return fmt.Sprintf("%d/%d", n.DrivesHealthy, n.Drives)
		},
	},
}

// onlyUp shows nothing of a node that is down.
func onlyUp(c topColumn[jsonTopNode]) topColumn[jsonTopNode] {
	text := c.text
	c.text = func(n *jsonTopNode) string {
		if n.State != "up" {
			return "-"
		}
		return text(n)
	}
	return c
}

var driveColumns = []topColumn[jsonTopDrive]{
	word("NODE", func(d *jsonTopDrive) string { return d.Node }),
	word("PATH", func(d *jsonTopDrive) string { return d.Path }),
	word("STATE", func(d *jsonTopDrive) string { return d.State }),
	number("USED", func(d *jsonTopDrive) float64 { return share(d.Used, d.Used+d.Free) }, percent),
	number("FREE", func(d *jsonTopDrive) float64 { return float64(d.Free) }, sizeOf),
	ofDevice(number("READ/S", func(d *jsonTopDrive) float64 { return d.Reads }, plainNumber)),
	ofDevice(number("WRITE/S", func(d *jsonTopDrive) float64 { return d.Writes }, plainNumber)),
	ofDevice(number("IN/S", func(d *jsonTopDrive) float64 { return d.WriteBytes }, sizeOf)),
	ofDevice(number("OUT/S", func(d *jsonTopDrive) float64 { return d.ReadBytes }, sizeOf)),
	ofDevice(number("AWAIT", func(d *jsonTopDrive) float64 { return d.Await }, timeOf)),
	ofDevice(number("UTIL", func(d *jsonTopDrive) float64 { return d.Utilization }, percent)),
	number("ERRORS", func(d *jsonTopDrive) float64 { return float64(d.Errors) }, plainNumber),
	number("TIMEOUTS", func(d *jsonTopDrive) float64 { return float64(d.Timeouts) }, plainNumber),
	word("DRIVE", func(d *jsonTopDrive) string { return d.Drive }),
}

// ofDevice shows nothing where the block device isn't known.
func ofDevice(c topColumn[jsonTopDrive]) topColumn[jsonTopDrive] {
	text := c.text
	c.text = func(d *jsonTopDrive) string {
		if d.Device == "" {
			return "-"
		}
		return text(d)
	}
	return c
}

var apiColumns = []topColumn[jsonTopAPI]{
	word("API", func(c *jsonTopAPI) string { return c.API }),
	word("PROTO", func(c *jsonTopAPI) string { return c.Proto }),
	word("NODE", func(c *jsonTopAPI) string { return c.Node }),
	number("REQ/S", func(c *jsonTopAPI) float64 { return c.Requests }, plainNumber),
	number("4XX/S", func(c *jsonTopAPI) float64 { return c.ClientErrors }, plainNumber),
	number("5XX/S", func(c *jsonTopAPI) float64 { return c.ServerErrors }, plainNumber),
	number("P50", func(c *jsonTopAPI) float64 { return c.P50 }, timeOf),
	number("P99", func(c *jsonTopAPI) float64 { return c.P99 }, timeOf),
}

var peerColumns = []topColumn[jsonTopPeer]{
	word("NODE", func(p *jsonTopPeer) string { return p.Node }),
	word("PEER", func(p *jsonTopPeer) string { return p.Peer }),
	word("STATE", func(p *jsonTopPeer) string {
		if p.Up {
			return "up"
		}
		return "down"
	}),
	number("RTT", func(p *jsonTopPeer) float64 { return p.RTT }, timeOf),
	number("IN/S", func(p *jsonTopPeer) float64 { return p.Received }, sizeOf),
	number("OUT/S", func(p *jsonTopPeer) float64 { return p.Sent }, sizeOf),
	number("MSG-IN/S", func(p *jsonTopPeer) float64 { return p.MsgIn }, plainNumber),
	number("MSG-OUT/S", func(p *jsonTopPeer) float64 { return p.MsgOut }, plainNumber),
	number("QUEUED", func(p *jsonTopPeer) float64 { return float64(p.Queued) }, sizeOf),
	number("CALLS-OUT", func(p *jsonTopPeer) float64 { return float64(p.CallsOut) }, plainNumber),
	number("CALLS-IN", func(p *jsonTopPeer) float64 { return float64(p.CallsIn) }, plainNumber),
	number("SESSIONS", func(p *jsonTopPeer) float64 { return float64(p.Sessions) }, plainNumber),
}

// share is a part of a whole that may be unknown.
func share(part, whole int64) float64 {
	if whole <= 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

func percent(v float64) string { return fmt.Sprintf("%.0f%%", 100*v) }

func sizeOf(v float64) string { return byteSize(math.Round(v)).String() }

// plainNumber has a decimal where it says something.
func plainNumber(v float64) string {
	if v >= 100 || v == math.Trunc(v) {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// timeOf has three digits or so; 0 is not known.
func timeOf(v float64) string {
	if v == 0 {
		return "-"
	}
	d := time.Duration(v * float64(time.Second))
	for _, unit := range []time.Duration{time.Microsecond, time.Millisecond, time.Second} {
		if d < 100*unit {
			return d.Round(unit / 10).String()
		}
		if d < 1000*unit {
			return d.Round(unit).String()
		}
	}
	return d.Round(time.Second).String()
}
