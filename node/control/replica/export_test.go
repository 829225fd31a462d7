package replica

import "time"

// OpenStalling is Open with another limit than Stalled.
func OpenStalling(o Options, limit time.Duration) (*Engine, error) {
	e, err := newEngine(o)
	if err != nil {
		return nil, err
	}
	e.stalled = limit
	e.launch()
	return e, nil
}

// Alone tells whether reads here need no round.
func (e *Engine) Alone(g GroupID) bool { return e.groups[g].alone() }

// FirstIndex is of the log of a group.
func (e *Engine) FirstIndex(g GroupID) uint64 {
	index, _ := e.groups[g].storage.FirstIndex()
	return index
}
