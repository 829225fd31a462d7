package e2e

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// The model that histories are held to: a group of a few keys that are listed
// together, each an object or none. An operation happens at one moment between
// its call and its return, a listing for all keys at the same one. Groups have
// nothing to do with each other, so each is checked by itself.

// keysOfGroup is how many keys a group has. The state of one fits in a word
// or two, and a listing is short.
const keysOfGroup = 3

// content names what an object holds: every body that is made up has a number
// of its own, and its entity tag is known from it. 0 is no object.
type content int32

// state is what a group holds.
type state [keysOfGroup]content

// kind is what an operation does.
type kind uint8

const (
	opPut kind = iota
	opDelete
	opMove
	opRead
	opList
)

// call is an operation as it was asked for.
type call struct {
	kind    kind
	group   int
	key     int     // in the group; of a move, where it comes from
	to      int     // of a move
	content content // of a put
	ifMatch content // the object must be this one; of a move, that which is moved
	ifNone  bool    // there must be no object; of a move, at its target
	through int     // the node, for whoever reads the history
	how     string  // the same: "PUT", "copy from 2"
}

// answer is what came of it.
type answer struct {
	is      verdict
	content content // of a read, and what a move has moved
	state   state   // of a listing
	// replaced is whether a put found an object there; copies and moves don't say.
	replaced, says bool
}

// verdict is how an operation ended.
type verdict uint8

const (
	unknown   verdict = iota // it may have happened, or yet happen, or never
	done                     // it happened
	missing                  // there was no object
	differs                  // a condition didn't hold
	unchanged                // a read found what the caller has already
)

// step is the model: whether a call may have that answer in that state, and
// the state afterwards.
func (s state) step(c call, a answer) (bool, state) {
	had := s[c.key]
	if c.kind == opMove {
		return s.move(c, a)
	}
	holds := !(c.ifNone && had != 0) && (c.ifMatch == 0 || had == c.ifMatch)
	next := s
	switch c.kind {
	case opPut:
		next[c.key] = c.content
		switch a.is {
		case unknown:
			if !holds {
				next = s
			}
			return true, next
		case done:
			return holds && (!a.says || a.replaced == (had != 0)), next
		case differs:
			return !holds, s
		}
	case opDelete:
		next[c.key] = 0
		switch a.is {
		case unknown:
			if !holds {
				next = s
			}
			return true, next
		case done:
			return had != 0 && holds, next
		case missing:
			return had == 0, s
		case differs:
			return !holds, s
		}
	case opRead:
		switch a.is {
		case done:
			return had == a.content && had != 0, s
		case missing:
			return had == 0, s
		case unchanged:
			return had == c.ifMatch, s
		case differs:
			return had != 0 && had != c.ifMatch, s
		}
	case opList:
		return s == a.state, s
	}
	return false, s
}

// move is step for a move: both keys change at the same moment.
func (s state) move(c call, a answer) (bool, state) {
	had := s[c.key]
	holds := (c.ifMatch == 0 || had == c.ifMatch) && !(c.ifNone && s[c.to] != 0)
	next := s
	if had != 0 && holds {
		next[c.key], next[c.to] = 0, had
	}
	switch a.is {
	case unknown:
		return true, next
	case done:
		return had != 0 && had == a.content && holds, next
	case missing:
		return had == 0, s
	case differs:
		return had != 0 && !holds, s
	}
	return false, s
}

// model is the form that porcupine takes.
var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		groups := map[int][]porcupine.Operation{}
		for _, op := range history {
			g := op.Input.(call).group
			groups[g] = append(groups[g], op)
		}
		var parts [][]porcupine.Operation
		for _, ops := range groups {
			parts = append(parts, ops)
		}
		return parts
	},
	Init: func() any { return state{} },
	Step: func(s, in, out any) (bool, any) {
		ok, next := s.(state).step(in.(call), out.(answer))
		return ok, next
	},
	DescribeOperation: func(in, out any) string { return in.(call).String() + " → " + out.(answer).String() },
	DescribeState:     func(s any) string { return fmt.Sprint(s) },
}

// String is for whoever reads a history.
func (c call) String() string {
	cond := ""
	if c.ifNone {
		cond += " if none"
	}
	if c.ifMatch != 0 {
		cond += fmt.Sprintf(" if %d", c.ifMatch)
	}
	what := ""
	if c.content != 0 {
		what = fmt.Sprintf(" := %d", c.content)
	}
	key := fmt.Sprintf(" g%d/%d", c.group, c.key)
	if c.kind == opMove {
		key += fmt.Sprintf(" to %d", c.to)
	}
	if c.kind == opList {
		key = fmt.Sprintf(" g%d", c.group)
	}
	return fmt.Sprintf("%s%s%s%s by n%d", c.how, key, what, cond, c.through)
}

// String is for whoever reads a history.
func (a answer) String() string {
	s := [...]string{"?", "done", "missing", "condition failed", "not modified"}[a.is]
	if a.content != 0 {
		s = fmt.Sprint(a.content)
	}
	if a.state != (state{}) {
		s = fmt.Sprint(a.state)
	}
	if a.replaced {
		s += ", replaced"
	}
	return s
}

// history is what was asked and answered, in the time of one clock.
type history struct {
	began time.Time

	mu     sync.Mutex // guards the rest
	ops    []porcupine.Operation
	client int // the next one's number
}

func newHistory() *history { return &history{began: time.Now()} }

// newClient gives the number of a client: one has one operation at a time, so
// one whose operation never ended is followed by another.
func (h *history) newClient() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.client++
	return h.client - 1
}

// now is the time of the history.
func (h *history) now() int64 { return int64(time.Since(h.began)) }

// add records an operation that was called at that time and ends now. One
// whose outcome isn't known never ends.
func (h *history) add(client int, called int64, c call, a answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	end := int64(time.Since(h.began))
	if a.is == unknown {
		end = math.MaxInt64
	}
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: c, Call: called, Output: a, Return: end})
}

// checkTime bounds the check of a whole history.
const checkTime = 2 * time.Minute

// check holds the history to the model. On failure it says where the group's
// history and the picture of it are, which outlive the test; the first of them
// is in the test's log as well.
func (h *history) check(t *testing.T) {
	t.Helper()
	shown := false
	for _, ops := range model.Partition(h.ops) {
		result, info := porcupine.CheckOperationsVerbose(model, ops, checkTime)
		if result == porcupine.Ok {
			continue
		}
		dir, err := os.MkdirTemp("", "gridloom-history-")
		if err != nil {
			t.Fatal(err)
		}
		t.Errorf("%s: group %d is not shown to be linearizable; see %s", result, ops[0].Input.(call).group, dir)
		picture := filepath.Join(dir, "history.html")
		if err := porcupine.VisualizePath(model, info, picture); err != nil {
			t.Errorf("%s: %v", picture, err)
		}
		text := written(ops)
		if err := os.WriteFile(filepath.Join(dir, "history.txt"), []byte(text), 0o600); err != nil {
			t.Error(err)
		}
		if !shown {
			t.Logf("the history:\n%s", text)
		}
		shown = true
	}
}

// written is a history as text, in the order of the calls.
func written(ops []porcupine.Operation) string {
	ops = slices.Clone(ops)
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
	var b strings.Builder
	for _, op := range ops {
		end := "never"
		if op.Return != math.MaxInt64 {
			end = fmt.Sprintf("%.3f", time.Duration(op.Return).Seconds())
		}
		fmt.Fprintf(&b, "%8.3f %8s  client %d: %s\n", time.Duration(op.Call).Seconds(), end, op.ClientId, model.DescribeOperation(op.Input, op.Output))
	}
	return b.String()
}

// counts is how the operations ended.
func (h *history) counts() (total, open int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, op := range h.ops {
		if op.Output.(answer).is == unknown {
			open++
		}
	}
	return len(h.ops), open
}

// TestModel makes sure that the model turns down what it must, so that the
// histories of the other tests mean something.
func TestModel(t *testing.T) {
	put := func(key int, v content) call { return call{kind: opPut, key: key, content: v, how: "PUT"} }
	get := func(key int) call { return call{kind: opRead, key: key, how: "GET"} }
	list := call{kind: opList, how: "list"}
	op := func(from, to int64, c call, a answer) porcupine.Operation {
		return porcupine.Operation{ClientId: int(from), Input: c, Call: from, Output: a, Return: to}
	}
	fresh, over := answer{is: done, says: true}, answer{is: done, says: true, replaced: true}
	saw := func(v content) answer { return answer{is: done, content: v} }
	move := call{kind: opMove, key: 0, to: 1, how: "move"}
	moveNone, moveFirst := move, move
	moveNone.ifNone, moveFirst.ifMatch = true, 1
	sees := func(s state) answer { return answer{is: done, state: s} }
	const never = math.MaxInt64
	ifNone, ifFirst := put(0, 2), put(0, 2)
	ifNone.ifNone, ifFirst.ifMatch = true, 1
	for name, tc := range map[string]struct {
		ops  []porcupine.Operation
		want bool
	}{
		"a read of what was put":                {[]porcupine.Operation{op(1, 2, put(0, 1), fresh), op(3, 4, get(0), saw(1))}, true},
		"a stale read":                          {[]porcupine.Operation{op(1, 2, put(0, 1), fresh), op(3, 4, put(0, 2), over), op(5, 6, get(0), saw(1))}, false},
		"a lost put":                            {[]porcupine.Operation{op(1, 2, put(0, 1), fresh), op(3, 4, get(0), answer{is: missing})}, false},
		"a put that may yet happen":             {[]porcupine.Operation{op(1, never, put(0, 1), answer{}), op(3, 4, get(0), answer{is: missing}), op(5, 6, get(0), saw(1))}, true},
		"a put that happens and is undone":      {[]porcupine.Operation{op(1, never, put(0, 1), answer{}), op(3, 4, get(0), saw(1)), op(5, 6, get(0), answer{is: missing})}, false},
		"two winners":                           {[]porcupine.Operation{op(1, 5, put(0, 1), fresh), op(2, 6, ifNone, fresh)}, false},
		"a replacement that there wasn't":       {[]porcupine.Operation{op(1, 2, put(0, 1), over)}, false},
		"a lost update":                         {[]porcupine.Operation{op(1, 2, put(0, 1), fresh), op(3, 4, put(0, 3), over), op(5, 6, ifFirst, over)}, false},
		"a condition that failed for no reason": {[]porcupine.Operation{op(1, 2, put(0, 1), fresh), op(3, 4, ifFirst, answer{is: differs})}, false},
		"a delete of nothing":                   {[]porcupine.Operation{op(1, 2, call{kind: opDelete, how: "DELETE"}, answer{is: done})}, false},
		"a listing of two moments": {[]porcupine.Operation{
			op(1, 2, put(0, 1), fresh), op(3, 10, put(0, 2), over), op(3, 10, put(1, 3), fresh),
			op(4, 5, list, answer{is: done, state: state{1, 3}}), op(6, 7, list, answer{is: done, state: state{2, 0}})}, false},
		"listings of one moment each": {[]porcupine.Operation{
			op(1, 2, put(0, 1), fresh), op(3, 10, put(0, 2), over), op(3, 10, put(1, 3), fresh),
			op(4, 5, list, answer{is: done, state: state{1, 3}}), op(6, 7, list, answer{is: done, state: state{2, 3}})}, true},
		"a move": {[]porcupine.Operation{
			op(1, 2, put(0, 1), fresh), op(3, 4, put(1, 2), fresh), op(5, 6, move, saw(1)), op(7, 8, list, sees(state{0, 1})), op(9, 10, move, answer{is: missing})}, true},
		"a move that is seen at both places":   {[]porcupine.Operation{op(1, 2, put(0, 1), fresh), op(3, 9, move, saw(1)), op(4, 5, list, sees(state{1, 1}))}, false},
		"a move that is seen at neither place": {[]porcupine.Operation{op(1, 2, put(0, 1), fresh), op(3, 9, move, saw(1)), op(4, 5, list, sees(state{}))}, false},
		"a move that is undone":                {[]porcupine.Operation{op(1, 2, put(0, 1), fresh), op(3, 9, move, saw(1)), op(4, 5, list, sees(state{0, 1})), op(6, 7, get(0), saw(1))}, false},
		"two that move the same":               {[]porcupine.Operation{op(1, 2, put(0, 1), fresh), op(3, 9, move, saw(1)), op(3, 9, call{kind: opMove, to: 2, how: "move"}, saw(1))}, false},
		"a move of what was replaced":          {[]porcupine.Operation{op(1, 2, put(0, 1), fresh), op(3, 4, put(0, 2), over), op(5, 6, move, saw(1))}, false},
		"a move that found nothing":            {[]porcupine.Operation{op(1, 2, put(0, 1), fresh), op(3, 4, move, answer{is: missing})}, false},
		"a move over what it mustn't":          {[]porcupine.Operation{op(1, 2, put(0, 1), fresh), op(3, 4, put(1, 2), fresh), op(5, 6, moveNone, saw(1))}, false},
		"a move refused for its target":        {[]porcupine.Operation{op(1, 2, put(0, 1), fresh), op(3, 4, put(1, 2), fresh), op(5, 6, moveNone, answer{is: differs}), op(7, 8, get(0), saw(1))}, true},
		"a move refused for no reason":         {[]porcupine.Operation{op(1, 2, put(0, 1), fresh), op(5, 6, moveFirst, answer{is: differs})}, false},
		"a move that may yet happen":           {[]porcupine.Operation{op(1, 2, put(0, 1), fresh), op(3, never, move, answer{}), op(5, 6, get(0), saw(1)), op(7, 8, get(1), saw(1))}, true},
		"half of a move that may yet happen":   {[]porcupine.Operation{op(1, 2, put(0, 1), fresh), op(3, never, move, answer{}), op(5, 6, get(0), answer{is: missing}), op(7, 8, get(1), answer{is: missing})}, false},
		"a move that may not happen any more":  {[]porcupine.Operation{op(1, 2, put(0, 1), fresh), op(3, never, moveFirst, answer{}), op(5, 6, put(0, 2), over), op(7, 8, get(1), saw(1))}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := porcupine.CheckOperations(model, tc.ops); got != tc.want {
				t.Errorf("linearizable: %t, want %t\n%s", got, tc.want, written(tc.ops))
			}
		})
	}
}
