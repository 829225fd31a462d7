package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

// staleAfter is how long a node may not be told of until it is shown no more: it
// has left the mesh. One that is down is told of each second.
const staleAfter = 10 * time.Second

// topEvent is a sample, or why there are none for now.
type topEvent struct {
	sample *gridloomv1.WatchMetricsResponse
	err    error
}

// topState is what is shown: the newest sample of each node.
type topState struct {
	nodes   map[string]*gridloomv1.NodeResources
	heard   map[string]time.Time
	missed  int64
	trouble error // why nothing new comes
}

func (s *topState) apply(e topEvent, now time.Time) {
	s.trouble = e.err
	if e.sample == nil {
		return
	}
	n := e.sample.GetNode()
	s.nodes[n.GetNode()], s.heard[n.GetNode()] = n, now
	s.missed += e.sample.GetMissed()
}

// sorted are the nodes in the order of their names, without those that have
// left.
func (s *topState) sorted(now time.Time) (all []*gridloomv1.NodeResources) {
	for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
		if s.trouble == nil && now.Sub(s.heard[name]) > staleAfter {
			delete(s.nodes, name)
			delete(s.heard, name)
			continue
		}
		all = append(all, s.nodes[name])
	}
	return all
}

// topLive shows the samples as they come until ctx ends, which is no error, or
// there are none for too long.
func (a *app) topLive(ctx context.Context, c *client, o *topOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, ended := make(chan topEvent), make(chan error, 1)
	go func() { ended <- c.watchMetrics(ctx, o, events) }()
	screen := a.openScreen()
	defer screen.close()
	state := topState{nodes: map[string]*gridloomv1.NodeResources{}, heard: map[string]time.Time{}}
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	draw := func() error {
		if now := time.Now(); len(state.nodes) > 0 || state.trouble != nil {
			return a.drawTop(screen, &state, o, now)
		}
		return nil
	}
	for first := true; ; {
		var err error
		select {
		case e := <-events:
			if state.apply(e, time.Now()); first && e.sample != nil && screen != nil { // no second of nothing
				first = false
				err = draw()
			}
		case <-tick.C:
			err = draw()
		case key := <-screen.keyPresses():
			if o.press(key) {
				cancel()
				<-ended
				return nil
			}
			err = draw()
		case err := <-ended:
			if ctx.Err() != nil {
				return nil // the user has seen enough
			}
			return err
		}
		if err != nil {
			cancel()
			<-ended
			return err
		}
	}
}

// watchMetrics sends events until ctx ends, or there was nothing for so long that
// it is given up. A node that is started anew is waited for.
func (c *client) watchMetrics(ctx context.Context, o *topOptions, events chan<- topEvent) error {
	send := func(e topEvent) {
		select {
		case events <- e:
		case <-ctx.Done():
		}
	}
	heard := time.Now()
	for {
		stream, err := c.metrics.WatchMetrics(ctx, &gridloomv1.WatchMetricsRequest{Node: o.node, Subsystem: o.subsystems()})
		for err == nil {
			var sample *gridloomv1.WatchMetricsResponse
			if sample, err = stream.Recv(); err == nil {
				heard = time.Now()
				send(topEvent{sample: sample})
			}
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != io.EOF && !passing(c.explain(err)), time.Since(heard) > silentFor:
			return err
		}
		send(topEvent{err: err})
		pause := time.NewTimer(pollEvery)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

// press is a key; quit is that it was the last.
func (o *topOptions) press(key byte) (quit bool) {
	views := map[byte]string{'n': "nodes", 'd': "drives", 'a': "apis", 'p': "peers"}
	switch {
	case key == 'q', key == 3: // Ctrl-C, which is a key like any other then
		return true
	case key == 'r':
		o.reverse = !o.reverse
	case views[key] != "":
		if only := []string{views[key]}; slices.Equal(o.views, only) {
			o.views = topViews
		} else {
			o.views = only
		}
	case key == '<', key == '>':
		columns := o.columns()
		i := slices.Index(columns, strings.ToLower(o.sort))
		switch {
		case i < 0:
			i = 0
		case key == '>':
			i = (i + 1) % len(columns)
		default:
			i = (i - 1 + len(columns)) % len(columns)
		}
		o.sort = columns[i]
	}
	return false
}

// drawTop shows the state: on a screen in place, or else as what comes next.
func (a *app) drawTop(s *screen, state *topState, o *topOptions, now time.Time) error {
	nodes := state.sorted(now)
	j := topOf(now, nodes, o)
	if s == nil {
		return a.out.print(j, func() string { return topSummary(nodes, now) + "\n\n" + topText(j, o) + "\n" })
	}
	head := topSummary(nodes, now)
	if o.sort != "" {
		head += "  by " + o.sort
	}
	if state.missed > 0 {
		head += fmt.Sprintf("  %s missed", count(state.missed, "sample"))
	}
	if state.trouble != nil {
		head += "  no samples: " + shown(message(state.trouble))
	}
	return s.draw(head + "\n[n]odes [d]rives [a]pis [p]eers  < > sort  [r]everse  [q]uit\n\n" + topText(j, o))
}

// screen is a terminal that is drawn on in place. nil is none, and its methods
// do nothing.
type screen struct {
	out   *os.File
	keys  chan byte // nil: nobody can press any
	reset func()
}

// openScreen takes the terminal, if standard output is one and there is to be no
// JSON. Its close gives it back. The goroutine that waits for keys ends with the
// next one, or with the process: a read of a terminal can't be broken off.
func (a *app) openScreen() *screen {
	if a.json || !isTerminal(a.stdout) {
		return nil
	}
	s := &screen{out: a.stdout.(*os.File), reset: func() {}}
	if in, ok := a.stdin.(*os.File); ok && isTerminal(in) {
		if old, err := term.MakeRaw(int(in.Fd())); err == nil {
			s.reset = func() { _ = term.Restore(int(in.Fd()), old) }
			s.keys = make(chan byte, 1)
			go readKeys(in, s.keys)
		}
	}
	_, _ = io.WriteString(s.out, "\x1b[?1049h\x1b[?25l") // the other page, no cursor
	return s
}

// readKeys drops what nobody takes.
func readKeys(in io.Reader, to chan<- byte) {
	buf := make([]byte, 1)
	for {
		if n, err := in.Read(buf); err != nil || n == 0 {
			return
		}
		select {
		case to <- buf[0]:
		default:
		}
	}
}

func (s *screen) keyPresses() <-chan byte {
	if s == nil {
		return nil
	}
	return s.keys
}

// draw shows as much of text as there is room for, in one write.
func (s *screen) draw(text string) error {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	_, err = s.out.Write(frame(text, width, height))
	return err
}

// frame is text for a terminal of this size, over what was there before.
func frame(text string, width, height int) []byte {
	var b bytes.Buffer
	b.WriteString("\x1b[H")
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for i, line := range lines[:min(len(lines), height)] {
		if i > 0 {
			b.WriteString("\r\n")
		}
		if runes := []rune(line); len(runes) > width {
			line = string(runes[:width])
		}
		b.WriteString(line + "\x1b[K")
	}
	b.WriteString("\x1b[J")
	return b.Bytes()
}

func (s *screen) close() {
	if s == nil {
		return
	}
	_, _ = io.WriteString(s.out, "\x1b[?25h\x1b[?1049l")
	s.reset()
}
