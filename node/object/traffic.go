package object

import "sync/atomic"

// traffic counts payload that goes to and comes from other nodes by the bulk
// port, as it moves: a window or chunk at a time.
type traffic struct{ received, sent atomic.Int64 }

// BulkTraffic returns how many bytes of payload, snapshots included, the bulk
// port has brought from other nodes and taken to them since the start.
func (s *Service) BulkTraffic() (received, sent int64) {
	return s.traffic.received.Load(), s.traffic.sent.Load()
}
