package replica

import (
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
)

// run steps the groups.
func (e *Engine) run() {
	defer close(e.stepped)
	ticker := time.NewTicker(e.o.Tick)
	defer ticker.Stop()
	for ticks := 1; ; {
		e.dispatch(e.core.pump())
		select {
		case <-e.stop.Done():
			return
		case <-ticker.C:
			e.tick(ticks)
			ticks++
		case <-e.inbox.wake:
		}
		for _, do := range e.inbox.take() {
			do(e.core)
		}
	}
}

// tick is what run does with the passing of time.
func (e *Engine) tick(ticks int) {
	e.core.tick(e.o.Stand == nil || e.o.Stand())
	e.watch(ticks)
}

// dispatch gives what is ready to those who do it.
func (e *Engine) dispatch(r ready) {
	for _, c := range r.change {
		e.changed(c)
	}
	for _, g := range r.conf {
		e.groups[g.id].settle() // before a message tells anyone
	}
	e.send(r.send)
	for _, a := range r.write {
		if s := a.message.GetSnapshot(); !raft.IsEmptySnap(s) {
			e.groups[a.group.id].copies.take(s)
		}
	}
	e.writes.put(r.write...)
	for _, a := range r.apply {
		e.groups[a.group.id].applies.put(a)
	}
	for _, s := range r.reads {
		e.groups[s.group].reads.resolve(e, s)
	}
	for _, r := range e.sorted {
		r.copies.settle()
		if r.copies.due {
			r.copies.due = false
			r.applies.put(applying{group: r.group, checkpoint: true})
		}
	}
}

// changed notes who leads a group.
func (e *Engine) changed(c change) {
	r := e.groups[c.group]
	before := r.lead.Swap(&c.Leadership)
	r.settle()
	if *before == c.Leadership {
		return
	}
	if e.o.Changed != nil {
		e.o.Changed(c.group, c.Leadership)
	}
}

// settle notes whether this node leads a group that has no other members. It
// is called by run whenever the leader or the membership has changed.
func (r *running) settle() {
	var now *lonely
	if l := r.lead.Load(); l.Leads && r.conf.alone {
		now = &lonely{term: l.Term, since: r.conf.since}
	}
	r.lonely.Store(now)
}

// watch is what has to be done now and then.
func (e *Engine) watch(ticks int) {
	if e.log.stalled(e.stalled) {
		e.fail(fmt.Errorf("raft log: a write to its disk has taken more than %v", e.stalled))
		return
	}
	for _, r := range e.sorted {
		r.reads.repeat(e, r.id)
		if untidy := r.copies.watch(); ticks%cutEvery == 0 && (untidy || r.storage.bytes.Load() > e.o.LogBytes/4*3) {
			r.applies.put(applying{group: r.group}) // for upkeep
		}
	}
}

// send passes messages on, those for one node together.
func (e *Engine) send(all []outgoing) {
	for len(all) > 0 {
		to, room := all[0].message.GetTo(), 0
		for _, out := range all {
			if out.message.GetTo() == to {
				room += messageRoom + int(size(out.message.GetEntries()))
			}
		}
		batch := make([]byte, 0, room)
		rest := all[:0:0]
		for _, out := range all {
			if out.message.GetTo() != to {
				rest = append(rest, out)
				continue
			}
			if out.message.GetType() == pb.MsgSnap {
				e.groups[out.group].copies.sent(to)
			}
			batch = appendMessage(batch, out)
		}
		e.o.Send(to, batch)
		all = rest
	}
}

// messageRoom is about what a message takes in a batch beside its entries.
const messageRoom = 64

// write makes the log durable.
func (e *Engine) write() {
	for {
		select {
		case <-e.stop.Done():
			return
		case <-e.writes.wake:
		case <-e.cuts.wake:
		}
		if err := e.writeOnce(); err != nil {
			e.fail(err)
			return
		}
	}
}

func (e *Engine) writeOnce() error {
	if all := e.writes.take(); len(all) > 0 {
		responses, err := e.log.write(all, e.install)
		if err != nil {
			return fmt.Errorf("raft log: %w", err)
		}
		e.respond(responses)
		for _, a := range all {
			if a.secret != 0 {
				e.inbox.put(func(*core) { a.group.told(a.secret) })
			}
		}
	}
	for _, c := range e.cuts.take() {
		index := c.r.storage.spare(c.durable, e.o.LogBytes/2)
		if err := e.log.cut(c.r.group, index); err != nil {
			return fmt.Errorf("raft log: %w", err)
		}
	}
	return nil
}

// respond delivers what the writes have promised: to the groups here, and to
// other nodes.
func (e *Engine) respond(all []outgoing) {
	remote := all[:0:0]
	local := all[:0:0]
	for _, r := range all {
		if r.message.GetTo() == e.o.ID {
			local = append(local, r)
		} else {
			remote = append(remote, r)
		}
	}
	e.send(remote)
	if len(local) > 0 {
		e.inbox.put(func(c *core) {
			for _, r := range local {
				c.step(r.group, r.message)
			}
		})
	}
}

// install puts a snapshot that was fetched in the place of the machine's state.
func (e *Engine) install(g *group, s *pb.Snapshot) error {
	r := e.groups[g.id]
	at := s.GetMetadata()
	dir, ok := r.copies.fetched(s)
	if !ok {
		return fmt.Errorf("snapshot %d of group %s isn't here", at.GetIndex(), g.name)
	}
	r.applyMu.Lock()
	defer r.applyMu.Unlock()
	if err := g.machine.Install(dir); err != nil {
		return fmt.Errorf("snapshot %d of group %s: %w", at.GetIndex(), g.name, err)
	}
	got := g.machine.Position()
	if got.Index != at.GetIndex() || got.Term != at.GetTerm() {
		return fmt.Errorf("snapshot %d of group %s holds the state at %d", at.GetIndex(), g.name, got.Index)
	}
	r.applied.Store(got.Index)
	return nil
}

// apply applies a group's committed entries.
func (e *Engine) apply(r *running) {
	for {
		select {
		case <-e.stop.Done():
			return
		case <-r.applies.wake:
		}
		for _, a := range r.applies.take() {
			if err := e.applyOne(r, a); err != nil {
				e.fail(fmt.Errorf("group %s: %w", r.name, err))
				return
			}
		}
	}
}

// applyOne applies what was committed; or, without entries, does what is due.
func (e *Engine) applyOne(r *running, a applying) error {
	if len(a.entries) == 0 {
		return e.upkeep(r, a.checkpoint)
	}
	if err := r.advance(a.entries); err != nil {
		return err
	}
	e.inbox.put(func(c *core) {
		for _, m := range a.responses {
			c.step(r.id, m)
		}
	})
	return nil
}

// advance applies entries, but not those that a snapshot has brought already.
func (r *running) advance(entries []Entry) error {
	r.applyMu.Lock()
	defer r.applyMu.Unlock()
	at := r.machine.Position()
	for len(entries) > 0 && entries[0].Index <= at.Index {
		entries = entries[1:]
	}
	if len(entries) == 0 {
		return nil
	}
	if err := r.machine.Apply(entries); err != nil {
		return err
	}
	// Who has left may be switched off once that is known, so it must not be
	// forgotten: others might wait for a vote that never comes.
	if slices.ContainsFunc(entries, func(e Entry) bool { return e.Conf != nil }) {
		if err := r.machine.Sync(); err != nil {
			return err
		}
	}
	last := entries[len(entries)-1]
	r.appliedTerm.Store(last.Term)
	r.applied.Store(last.Index)
	return nil
}

// upkeep makes a checkpoint where one is asked for, removes what is of no use
// any more, and has a log cut that has grown: once run has stepped what was
// applied, since raft reads the log from there on. A state that is late with
// making itself durable is made to.
func (e *Engine) upkeep(r *running, checkpoint bool) error {
	r.applyMu.Lock()
	defer r.applyMu.Unlock()
	if checkpoint {
		if err := r.copies.make(); err != nil {
			return err
		}
	}
	r.copies.clear()
	held := r.storage.bytes.Load()
	if held <= e.o.LogBytes/4*3 {
		return nil
	}
	if held > e.o.LogBytes {
		if err := r.machine.Sync(); err != nil {
			return err
		}
	}
	durable, err := r.machine.Durable()
	if err != nil {
		return err
	}
	if held < logWaits*e.o.LogBytes {
		durable = min(durable, r.copies.needed())
	}
	e.inbox.put(func(*core) { e.cuts.put(cut{r, durable}) })
	return nil
}
