package datatest_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/gridloom/gridloom/dataio"
	"github.com/gridloom/gridloom/dataio/datatest"
)

func TestFaults(t *testing.T) {
	first, second, own := errors.New("first"), errors.New("second"), errors.New("own")
	open := make(chan struct{})
	close(open)
	f := new(datatest.Faults)
	f.Add(datatest.Fault{Op: dataio.OpSync, Name: "payload/*/x", Skip: 1, Times: 2, Err: first})
	f.Add(datatest.Fault{Op: dataio.OpWrite, Err: second, Done: true})
	f.Add(datatest.Fault{Op: dataio.OpSyncDir, Times: -1, Wait: open}) // a lie
	for i, c := range []struct {
		op   dataio.OpKind
		name string
		does error // what do returns
		want error
		done bool
	}{
		{dataio.OpSync, "payload/ab/y", nil, nil, true},
		{dataio.OpSync, "payload/ab/x", nil, nil, true},
		{dataio.OpSync, "payload/ab/x", nil, first, false},
		{dataio.OpRead, "payload/ab/x", own, own, true},
		{dataio.OpSync, "payload/ab/x", nil, first, false},
		{dataio.OpSync, "payload/ab/x", nil, nil, true},
		{dataio.OpWrite, "a", nil, second, true},
		{dataio.OpWrite, "a", own, own, true},
		{dataio.OpSyncDir, "a", nil, nil, false},
		{dataio.OpSyncDir, "a", nil, nil, false},
	} {
		done := false
		err := f.Intercept(dataio.Op{Kind: c.op, Name: c.name}, func() error {
			done = true
			return c.does
		})
		if err != c.want || done != c.done {
			t.Errorf("operation %d: error %v, done %t; want %v, %t", i, err, done, c.want, c.done)
		}
	}
	if ops := f.Ops(); len(ops) != 10 || ops[6].Name != "a" || len(f.Ops()) != 0 {
		t.Errorf("remembered %v", ops)
	}
	f.Clear()
	done := false
	err := f.Intercept(dataio.Op{Kind: dataio.OpSyncDir}, func() error { done = true; return nil })
	if err != nil || !done {
		t.Errorf("after Clear: error %v, done %t", err, done)
	}
}

// TestOpNames: every operation has a name, and only those.
func TestOpNames(t *testing.T) {
	var names []string
	for k := dataio.OpMkdir; k <= dataio.OpUsage; k++ {
		names = append(names, k.String())
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != 12 || names[0] == "" || (dataio.OpUsage+1).String() != fmt.Sprintf("op(%d)", dataio.OpUsage+1) {
		t.Errorf("names are %q", names)
	}
}
