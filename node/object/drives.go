package object

// RemoveDrive makes a drive of this node serve no more: it was taken out of the
// mesh, or is about to be opened anew. What is being read from it or written to
// it fails by itself once the caller closes it.
func (s *Service) RemoveDrive(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.drives, id)
}
