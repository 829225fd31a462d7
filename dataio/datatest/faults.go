package datatest

import (
	"path"
	"slices"
	"sync"

	"github.com/gridloom/gridloom/dataio"
)

// maxOps bounds what Faults remembers.
const maxOps = 1 << 16

// A Fault is something that a drive's file system does wrong.
type Fault struct {
	Op    dataio.OpKind // to this operation,
	Name  string        // on files whose name path.Match matches; "" on all,
	Skip  int           // after so many went well,
	Times int           // so often: 0 is once, negative for ever.

	// Err is returned. Nil is success: with Done unset that is a lie, as of a
	// disk that acknowledges a sync and does nothing.
	Err error
	// Done has the operation done nevertheless, before Err is returned.
	Done bool
	// Wait, if set, is received from before anything else happens: a hanging
	// disk.
	Wait <-chan struct{}
}

// Faults is a dataio.Interceptor that has the operations done, but for the
// faults added to it, and remembers them. The zero value is ready for use, by
// several drives at once.
type Faults struct {
	mu     sync.Mutex // guards what follows
	faults []*Fault
	ops    []dataio.Op
}

var _ dataio.Interceptor = (*Faults)(nil)

// Add adds a fault. Of several that fit an operation the first added is used.
func (f *Faults) Add(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fault.Times == 0 {
		fault.Times = 1
	}
	f.faults = append(f.faults, &fault)
}

// Clear removes the faults that were added.
func (f *Faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

// Ops returns the operations since the last call of it, in the order in which
// they began, without their data: at most the first 65,536. Those that failed
// are among them.
func (f *Faults) Ops() []dataio.Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	ops := f.ops
	f.ops = nil
	return ops
}

// Intercept implements dataio.Interceptor.
func (f *Faults) Intercept(op dataio.Op, do func() error) error {
	fault, found := f.next(op)
	if !found {
		return do()
	}
	if fault.Wait != nil {
		<-fault.Wait
	}
	if fault.Done {
		if err := do(); err != nil {
			return err
		}
	}
	return fault.Err
}

// next remembers op and finds what is to go wrong with it.
func (f *Faults) next(op dataio.Op) (Fault, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.ops) < maxOps {
		op.Data = nil
		f.ops = append(f.ops, op)
	}
	for i, fault := range f.faults {
		if fault.Op != op.Kind {
			continue
		}
		if fault.Name != "" {
			if ok, err := path.Match(fault.Name, op.Name); err != nil {
				panic("datatest: Fault.Name: " + err.Error())
			} else if !ok {
				continue
			}
		}
		if fault.Skip > 0 {
			fault.Skip--
			continue
		}
		if fault.Times > 0 {
			if fault.Times--; fault.Times == 0 {
				f.faults = slices.Delete(f.faults, i, i+1)
			}
		}
		return *fault, true
	}
	return Fault{}, false
}
