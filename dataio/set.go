package dataio

import (
	"fmt"
	"sync"
)

// A Set is the drives that are used together, which Options.Set says when they
// are opened: two directories with the same drive id are one drive and a copy
// of it, and only one of them may be used. The zero value is ready for use.
type Set struct {
	mu    sync.Mutex
	paths map[string]string // by drive id
}

// add takes the id for the drive at path. A nil Set takes everything.
func (s *Set) add(id, path string) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if other, ok := s.paths[id]; ok {
		return &Error{Op: "open", Path: path, Kind: ErrDuplicate, Err: fmt.Errorf("drive %s is open at %s: this is a copy of it", id, other)}
	}
	if s.paths == nil {
		s.paths = make(map[string]string)
	}
	s.paths[id] = path
	return nil
}

// remove gives the id of a drive that add took free.
func (s *Set) remove(id string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.paths, id)
}
