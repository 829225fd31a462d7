package control

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/fault"
)

// Once a try may have been carried out, no error of a later one is taken for
// the whole command's: only the outcome itself is.
func TestErrorsAfterALostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, 2, nil)
		a, b := m.open(0, nil), m.open(1, nil)
		ready(t, b)
		lost := &grid.Error{Op: "request", Host: "a", Err: grid.ErrDisconnected}
		says := func(kind fault.Kind) error {
			return &grid.Error{Op: "request", Host: "a", Remote: true, Err: ToWire(fault.New(kind, "index", "says no"))}
		}
		try := func(errs ...error) error {
			_, err := ask(t.Context(), b, func(context.Context, *grid.Connection, *Command) (*outcome, error) {
				err := errs[0]
				errs = errs[1:]
				return nil, err
			}, &Command{CreateBucket: &CreateBucket{Name: "b"}})
			return err
		}
		for _, kind := range []fault.Kind{fault.Conflict, fault.WrongMesh, fault.InvalidArgument, fault.PermissionDenied, fault.NoSpace, fault.Overloaded} {
			if err := try(says(kind)); fault.KindOf(err) != kind || Refused(err) {
				t.Errorf("at the first try: %v", err)
			}
			if err := try(lost, says(kind)); fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "isn't known") {
				t.Errorf("%v after a lost answer: %v", kind, err)
			}
		}
		// A try that wasn't executed says nothing about the one before it.
		m.Blackhole(0, 1)
		time.AfterFunc(time.Second, func() { m.Cut(0, 1) })
		_, err := b.Propose(t.Context(), &Command{CreateBucket: &CreateBucket{Name: "open"}})
		if fault.KindOf(err) != fault.Unavailable || grid.NotExecuted(err) {
			t.Errorf("%v, not executed: %v", err, grid.NotExecuted(err))
		}
		m.close(b)
		m.close(a)
	})
}
