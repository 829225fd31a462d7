package control

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/gridloom/gridloom/node/control/replica"
	"github.com/gridloom/gridloom/node/control/replica/replicatest"
	"github.com/gridloom/gridloom/node/fault"
)

// simulate runs seeds of replicatest's simulation, steps each, with states of
// one kind. tags are the build tags of the test.
func simulate(t *testing.T, kind replica.GroupID, seeds uint64, steps int, tags string) {
	var all replicatest.Counts
	total, seen, began := 0, map[string]int{}, time.Now()
	for seed := range seeds {
		t.Run(fmt.Sprint("seed_", seed), func(t *testing.T) {
			o, m := simulation(t, kind, seed, steps, tags)
			r := replicatest.Run(t, o)
			total += r.Steps
			all.Add(r.Counts)
			for what, n := range m.seen {
				seen[what] += n
			}
		})
	}
	rare := []string{"reclaimed", "quota_exceeded", "fate refused"}
	if raced() {
		rare = nil // of fewer steps
	}
	for _, what := range append(rare, "moved", "recopied") {
		if kind == dataGroup && seen[what] == 0 {
			t.Errorf("nothing was %s", what)
		}
	}
	t.Logf("%d steps in %v: %+v, %v", total, time.Since(began).Round(time.Millisecond), all, seen)
}

func simulation(t *testing.T, kind replica.GroupID, seed uint64, steps int, tags string) (replicatest.Options, *statesModel) {
	m := &statesModel{kind: kind, seed: seed, truths: map[replica.GroupID]*truth{}, aims: map[[2]uint64]*aim{}, seen: map[string]int{}}
	return replicatest.Options{
		Seed: seed, Steps: steps, Model: m, SumEvery: 8,
		Replay: fmt.Sprintf("go test%s -run '^%s$' ./node/control", tags, t.Name()),
	}, m
}

// The state machine, under everything that the simulation lets go wrong,
// agrees with the model of it in plain maps. Under the race detector it is a
// fifth of the steps, as it is in package replica.
func TestSimulation(t *testing.T) { simulate(t, dataGroup, 10, simulatedSteps(), "") }

// The same with users and keys, and with what nodes show of them.
func TestSimulationOfUsers(t *testing.T) { simulate(t, systemGroup, 6, simulatedSteps(), "") }

func simulatedSteps() int {
	if raced() {
		return 2_000
	}
	return 10_000
}

// raced tells whether the race detector watches.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// The same seed is the same run: what Pebble does in the background makes
// nothing durable that wasn't.
func TestSimulationRepeats(t *testing.T) {
	run := func() replicatest.Result {
		o, _ := simulation(t, dataGroup, 3, 5_000, "")
		return replicatest.Run(t, o)
	}
	if a, b := run(), run(); a != b {
		t.Errorf("a second run is %+v, not %+v", b, a)
	}
}

// statesModel is a replicatest.Model whose machines are states of data groups,
// or of system groups, and what they are compared with.
type statesModel struct {
	kind   replica.GroupID
	seed   uint64
	truths map[replica.GroupID]*truth
	aims   map[[2]uint64]*aim // by group and request
	seen   map[string]int     // what became of requests, by kind: that all of it happens
}

// truth is what a group's log comes to, by the model in plain maps.
type truth struct {
	*model
	outcomes []*outcome          // by index; nil for raft's own entries
	effects  map[uint64][]uint64 // by request: the entries by which it was carried out
}

func (m *statesModel) truth(g replica.GroupID) *truth {
	if m.truths[g] == nil {
		m.truths[g] = &truth{model: newModel(m.kind), outcomes: make([]*outcome, 2), effects: map[uint64][]uint64{}}
	}
	return m.truths[g]
}

// Open implements replicatest.Model.
func (m *statesModel) Open(disk vfs.FS, dir string, g replica.GroupID, first replica.Position) (replicatest.Machine, error) {
	_, missing := disk.Stat(dir)
	users := new(iamFeed)
	s, err := openState(disk, dir, m.kind, slog.New(slog.DiscardHandler), nil, users)
	if err != nil {
		return nil, err
	}
	if missing != nil && first.Index != 0 { // never again: it has to last
		if err := s.bootstrap(first.Conf, []Node{{Name: "n0", RaftID: 1}}); err != nil {
			return nil, err
		}
	}
	return &simulatedState{state: s, users: users, model: m, truth: m.truth(g)}, nil
}

// simulationEpoch is where the simulation's clocks begin.
var simulationEpoch = time.Unix(1e9, 0).UnixNano()

// Propose implements replicatest.Model. The simulation's clocks jump by hours.
// With every other seed they count as they are, so that outcomes are forgotten
// all the time; with the others they are off by some ten seconds, as those of
// leaders are.
func (m *statesModel) Propose(g replica.GroupID, request uint64, clock int64) []byte {
	if m.seed%2 == 0 {
		clock = simulationEpoch + (clock-simulationEpoch)/720
	}
	c := m.command(g, request)
	if c.PutRecord != nil {
		c.PutRecord.Birth = clock
	} else if c.Recopy != nil {
		c.Recopy.Birth = clock
	}
	if err := c.validate(); err != nil {
		panic(err)
	}
	data, err := encodeEntry(clock, c)
	if err != nil {
		panic(err)
	}
	return data
}

// requestID is a command's id: of all tries of a request the same.
func requestID(request uint64) (id [16]byte) {
	id[0] = 1
	binary.BigEndian.PutUint64(id[8:], request)
	return id
}

func requestOf(c *Command) uint64 { return binary.BigEndian.Uint64(c.RequestID[8:]) }

// Request implements replicatest.Model.
func (m *statesModel) Request(data []byte) uint64 {
	e, err := decodeEntry(&replica.Entry{Data: data})
	if err != nil {
		panic(err)
	}
	return requestOf(e.Command)
}

// command makes a request's command, over few keys in two buckets, which are
// others after a while: a closed one stays so.
func (m *statesModel) command(g replica.GroupID, request uint64) *Command {
	rng := rand.New(rand.NewPCG(m.seed, uint64(g)<<48|request))
	id := [16]byte{1 + byte(rng.IntN(2)), byte(request / 100 >> 8), byte(request / 100), 1}
	name := fmt.Sprintf("bucket-%x", id[:3])
	tags := func() []string {
		return [][]string{nil, nil, nil, nil, {"*"}, {"e1"}, {"e2", "e3"}}[rng.IntN(7)]
	}
	keys := []string{"a", "a/b", "ab", "b"}
	rng.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	c := &Command{Version: CommandVersion, RequestID: requestID(request), Slots: 1}
	if m.kind == systemGroup {
		m.fillIAM(c, rng, request)
		return c
	}
	switch n := rng.IntN(60); {
	case n >= 40:
		m.fillCopies(c, rng, g, request, name, id)
	case n == 0:
		c.CloseBucket = &CloseBucket{Name: name, ID: id}
	case n < 12:
		d := &DeleteRecords{Bucket: name, BucketID: id, Keys: keys[:1+rng.IntN(len(keys))]}
		if len(d.Keys) == 1 {
			d.IfMatch = tags()
		}
		c.DeleteRecords = d
	case n < 20:
		other := id
		other[0] = 1 + byte(rng.IntN(2))
		c.MoveRecord = &MoveRecord{
			From:      Place{Bucket: name, BucketID: id, Key: keys[0], IfMatch: tags()},
			To:        Place{Bucket: fmt.Sprintf("bucket-%x", other[:3]), BucketID: other, Key: keys[1], IfNoneMatch: tags()},
			VersionID: requestID(request),
		}
	default:
		r := Record{Key: keys[0], VersionID: requestID(request), ETag: fmt.Sprint("e", rng.IntN(4))}
		if rng.IntN(2) == 0 {
			r.SizeBytes = 1
			segment := [16]byte{3, byte(request / 4 >> 8), byte(request / 4)} // others may have it too
			r.Segments = []Segment{{ID: segment, SizeBytes: 1, Drives: []string{"d1", "d2"}}}
		} else {
			r.Inline = binary.BigEndian.AppendUint64(nil, request)
			r.SizeBytes = int64(len(r.Inline))
		}
		c.PutRecord = &PutRecord{
			BucketName: name, BucketID: id, Record: r,
			IfMatch: tags(), IfNoneMatch: tags(), Copies: uint8(rng.IntN(4)),
		}
	}
	return c
}

// fillCopies makes a command that changes copies of a segment, or reclaims some,
// or sets a bucket's quota.
func (m *statesModel) fillCopies(c *Command, rng *rand.Rand, g replica.GroupID, request uint64, name string, id [16]byte) {
	drives := []string{"d1", "d2", "d3"}
	switch n := rng.IntN(20); {
	case n == 0:
		c.SetQuota = &SetQuota{Bucket: name, BucketID: id, MaxObjects: 1 + rng.Int64N(3), MaxBytes: 10 * rng.Int64N(2)}
	case n == 1:
		c.NoteScrub = &NoteScrub{Scrub: ScrubState{Round: 1 + request/50, Segments: int64(request)}}
	case n < 6:
		c.Reclaim = &Reclaim{Entries: m.aim(g, request).garbage}
	default:
		e := CopyChange{ID: m.aim(g, request).segment, Settled: rng.IntN(3) == 0}
		rng.Shuffle(len(drives), func(i, j int) { drives[i], drives[j] = drives[j], drives[i] })
		e.Add, e.Remove = drives[:1], drives[1:1+rng.IntN(2)]
		if rng.IntN(4) == 0 {
			e.Remove, e.Drop = nil, e.Remove
		}
		c.Recopy = &Recopy{Entries: []CopyChange{e}}
	}
}

// aim is what a request is about: of what there was at its first try, for all of
// them.
type aim struct {
	segment [16]byte
	garbage []Garbage
}

func (m *statesModel) aim(g replica.GroupID, request uint64) *aim {
	of := [2]uint64{uint64(g), request}
	if m.aims[of] == nil {
		t := m.truth(g)
		a := &aim{segment: [16]byte{9}, garbage: append([]Garbage{{Drive: "d0"}}, t.garbage[:min(len(t.garbage), 1+int(request%4))]...)}
		if all := t.segments(); len(all) > 0 && request%8 > 0 {
			a.segment = all[request%uint64(len(all))]
		}
		m.aims[of] = a
	}
	return m.aims[of]
}

// simulatedState is a state that is compared with the truth all the time.
type simulatedState struct {
	*state
	users *iamFeed
	model *statesModel
	truth *truth
}

var _ replicatest.Machine = (*simulatedState)(nil)

// Apply implements replica.Machine. Every outcome that is told is looked at.
func (s *simulatedState) Apply(entries []replica.Entry) error {
	waiting := map[uint64]*proposal{} // by index
	for i := range entries {
		e, err := decodeEntry(&entries[i])
		if err != nil {
			return err
		}
		s.extend(e)
		if e.Command == nil {
			continue
		}
		first := !slices.ContainsFunc(entries[:i], func(o replica.Entry) bool {
			return waiting[o.Index] != nil && s.model.Request(o.Data) == requestOf(e.Command)
		})
		if first { // a later one in the batch isn't waited for any more
			p := s.expect(e.Command.RequestID)
			defer s.forget(e.Command.RequestID, p)
			waiting[e.Index] = p
		}
	}
	if err := s.state.Apply(entries); err != nil {
		return err
	}
	for index, p := range waiting {
		select {
		case out := <-p.done:
			if err := s.same(out, index); err != nil {
				return err
			}
		default:
			return fmt.Errorf("entry %d: nobody is told of it", index)
		}
	}
	return nil
}

// extend applies an entry that nobody has applied before to the truth.
func (s *simulatedState) extend(e *entry) {
	t := s.truth
	if e.Index != t.applied+1 {
		return // replicatest sees to it that it is the same as then
	}
	out := t.apply(e)
	t.outcomes = append(t.outcomes, out)
	if e.Command == nil {
		return
	}
	request := requestOf(e.Command)
	if t.issued[e.Index-1] == ([16]byte{}) {
		s.model.seen["repeated"]++
		return
	}
	t.effects[request] = append(t.effects[request], e.Index)
	if len(t.effects[request]) > 1 {
		s.model.seen["done again"]++
	}
	switch {
	case out.Refused:
		s.model.seen["refused"]++
		s.model.seen[fault.Kind(out.Kind).Reason()]++
	case e.Command.CloseBucket != nil:
		s.model.seen["closed"]++
	case e.Command.MoveRecord != nil:
		s.model.seen["moved"]++
	case e.Command.Reclaim != nil && len(e.Command.Reclaim.Entries) > 1:
		s.model.seen["reclaimed"]++
	case e.Command.Recopy != nil:
		s.model.seen[[]string{"gone", "recopied", "fate refused"}[out.Fates[0]]]++
	default:
		s.model.seen["done"]++
	}
}

// same compares an outcome with the one that an entry had in truth.
func (s *simulatedState) same(got *outcome, index uint64) error {
	seen, want := *got, *s.truth.outcomes[index]
	seen.Subject, seen.Detail = "", "" // the model has no words
	if len(seen.Fates) == 0 {
		seen.Fates = nil
	}
	if !reflect.DeepEqual(seen, want) {
		return fmt.Errorf("entry %d came to %+v, and not to %+v", index, *got, want)
	}
	return nil
}

// Times implements replicatest.Machine: how often a request has been carried
// out. It is known by its row, for as long as outcomes are remembered, and
// beyond that it may be carried out once more.
func (s *simulatedState) Times(request uint64) (int, error) {
	v := s.acquire()
	defer s.release(v)
	t := s.truth
	var effects []uint64
	for _, index := range t.effects[request] {
		if index <= v.applied {
			effects = append(effects, index)
		}
	}
	if len(effects) == 0 {
		return 0, nil
	}
	last := effects[len(effects)-1]
	var known replyRow
	found, err := get(v.rows, replyKey(requestID(request)), &known)
	switch {
	case err != nil:
		return 0, err
	case found && known.Index != last:
		return 0, fmt.Errorf("it was carried out by entry %d, and not by %d", known.Index, last)
	case found:
		err = s.same(&known.Outcome, last)
	case v.logTime-t.times[last-1] <= int64(replyWindow):
		return 0, nil // forgotten too early
	}
	times := 1
	for i, index := range effects[1:] {
		if t.times[index-1]-t.times[effects[i]-1] <= int64(replyWindow) {
			times++
		}
	}
	return times, err
}

// Sum implements replicatest.Machine: it is of all rows.
func (s *simulatedState) Sum() (uint64, error) {
	v := s.acquire()
	defer s.release(v)
	if at := s.Position().Index; v.applied != at {
		return 0, fmt.Errorf("entry %d is applied, and readers see entry %d", at, v.applied)
	}
	if v.applied == s.truth.applied {
		if err := s.compare(v); err != nil {
			return 0, err
		}
	}
	return checksum(v.rows)
}

// Close implements replicatest.Machine.
func (s *simulatedState) Close() error {
	s.close()
	return nil
}
