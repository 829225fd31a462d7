package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	gridloomv1 "github.com/gridloom/gridloom/gen/gridloom/v1"
)

const (
	// pollEvery is how often a mesh is asked that is waited for.
	pollEvery = time.Second
	// blockedFor is how long something must be at the same place, with the same
	// reason, to be told to have stopped.
	blockedFor = 20 * time.Second
	// silentFor is how long the mesh may give no answer meanwhile.
	silentFor = time.Minute
)

func waitFlag(cmd *cobra.Command, usage string) *bool {
	return cmd.Flags().Bool("wait", false, usage)
}

// follow asks how healing goes until look says that it is done, or fails. What
// look gives as text is shown on standard error, where it has changed.
func (a *app) follow(ctx context.Context, c *client, look func(*gridloomv1.GetHealStatusResponse) (text string, done bool, err error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	told, heard := "", time.Now()
	for {
		s, err := c.healStatus(ctx)
		switch {
		case err == nil:
			heard = time.Now()
			text, done, err := look(s)
			if done || err != nil {
				return err
			}
			if text != told && !a.json {
				fmt.Fprintln(a.stderr, text)
			}
			told = text
		case ctx.Err() != nil || time.Since(heard) > silentFor || !passing(err):
			return err
		}
		select {
		case <-ctx.Done():
			return errInterrupted
		case <-tick.C:
		}
	}
}

// passing tells whether an error may be over by the next time: who coordinates
// may change meanwhile, and the node that is asked may be drained itself.
func passing(err error) bool {
	switch reason(err) {
	case "waiting", "unavailable", "deadline", "overloaded":
		return true
	}
	return false
}

// standstill notices that nothing moves.
type standstill struct {
	at    string
	since time.Time
}

// of tells for how long it has been at the same place.
func (s *standstill) of(at string) time.Duration {
	if now := time.Now(); at != s.at || s.since.IsZero() {
		s.at, s.since = at, now
	}
	return time.Since(s.since)
}

// awaitDrain waits until something is empty, and fails with what stops it.
func (a *app) awaitDrain(ctx context.Context, c *client, kind gridloomv1.DrainKind, name string) error {
	w := drainWait{kind: kind, name: name}
	if err := a.follow(ctx, c, w.look); err != nil {
		return err
	}
	w.last.Type = "drain"
	return a.out.print(w.last, func() string { return fmt.Sprintf("%s %s is empty\n", w.last.Kind, shown(w.last.Name)) })
}

// drainWait waits for something to be empty.
type drainWait struct {
	kind  gridloomv1.DrainKind
	name  string
	still standstill
	last  jsonDrain
}

func (w *drainWait) look(s *gridloomv1.GetHealStatusResponse) (text string, done bool, err error) {
	var found *gridloomv1.Drain
	for _, d := range s.GetDraining() {
		if d.GetKind() == w.kind && d.GetName() == w.name {
			found = d
		}
	}
	if found == nil {
		return "", false, fmt.Errorf("%s %s is drained no more: somebody has ended that, or it has left", enumWord(w.kind, "DRAIN_KIND_"), shown(w.name))
	}
	w.last = drainJSON(found)
	if w.last.Done {
		return "", true, nil
	}
	text = fmt.Sprintf("%s %s: %s", w.last.Kind, shown(w.name), w.last.left())
	stands := w.still.of(fmt.Sprintf("%d %s", found.GetLeftSegments(), w.last.Blocked))
	switch {
	case w.last.Blocked == "":
		return text, false, nil
	case stands > blockedFor:
		return "", false, fmt.Errorf("%s %s can't be emptied: %s left: %s", w.last.Kind, shown(w.name), count(found.GetLeftSegments(), "segment"), shown(w.last.Blocked))
	}
	return text + ": " + shown(w.last.Blocked), false, nil
}

// awaitRebalance waits until payload is moved no more.
func (a *app) awaitRebalance(ctx context.Context, c *client) error {
	var last jsonHeal
	err := a.follow(ctx, c, func(s *gridloomv1.GetHealStatusResponse) (string, bool, error) {
		last = healJSON(s)
		r := last.Rebalance
		if r.Running {
			return fmt.Sprintf("rebalance: %s, %s moved%s", count(r.Moved, "segment"), byteSize(r.Bytes), etaText(r.ETA)), false, nil
		}
		if r.Stopped != "" {
			return "", false, fmt.Errorf("it has ended before its time, with %s moved: %s", count(r.Moved, "segment"), shown(r.Stopped))
		}
		return "", true, nil
	})
	if err != nil {
		return err
	}
	r := last.Rebalance
	return a.out.print(last, func() string {
		return fmt.Sprintf("done: %s, %s moved, %d failed\n", count(r.Moved, "segment"), byteSize(r.Bytes), r.Failed)
	})
}

// awaitHeal waits until all copies were looked at once more, and those that are
// missing are made. What couldn't be done is an error.
func (a *app) awaitHeal(ctx context.Context, c *client, before *gridloomv1.GetHealStatusResponse, verify bool) error {
	w := healWait{leader: before.GetLeader(), pass: before.GetPass(), round: before.GetScrub().GetRound(), verify: verify}
	if err := a.follow(ctx, c, w.look); err != nil {
		return err
	}
	if err := a.out.print(w.last, func() string { return healText(w.last) }); err != nil {
		return err
	}
	return w.outcome()
}

// healWait waits for a pass, and a round of the scrub where verify says so.
type healWait struct {
	leader      string
	pass, round int64 // the last before those that are waited for
	verify      bool
	last        jsonHeal
}

func (w *healWait) look(s *gridloomv1.GetHealStatusResponse) (text string, done bool, err error) {
	w.last = healJSON(s)
	if w.last.Leader != w.leader { // it begins anew, and counts its own passes
		w.leader, w.pass = w.last.Leader, 0
	}
	p, r := w.last.Pass, w.last.Scrub
	switch {
	case p.Number <= w.pass || p.Running:
		return fmt.Sprintf("pass: %d looked at, %d in order, %d failed, %s copied%s", p.Scanned, p.Done, p.Failed, byteSize(p.Bytes), etaText(p.ETA)), false, nil
	case w.verify && (r.Round <= w.round || r.Running && r.Fast):
		return fmt.Sprintf("scrub: %s, %s read, %s bad%s", count(r.Segments, "segment"), byteSize(r.Bytes), count(r.Bad, "copy"), etaText(r.ETA)), false, nil
	case len(w.last.Stuck) == 0 && (w.last.Phase == "copying" || w.last.Pending > 0):
		return fmt.Sprintf("copying: %s with copies missing", count(w.last.Pending, "segment")), false, nil
	}
	return "", true, nil
}

// outcome is what couldn't be done.
func (w *healWait) outcome() error {
	switch {
	case w.last.Unrecoverable > 0:
		return fmt.Errorf("%s without a good copy", count(w.last.Unrecoverable, "segment"))
	case len(w.last.Stuck) > 0:
		return errors.New("not everything could be done: " + shown(w.last.Stuck[0].What) + ": " + shown(w.last.Stuck[0].Why))
	}
	return nil
}
