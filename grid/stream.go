package grid

// Stream is the channel form of a stream at the end that opened it.
type Stream struct {
	Responses <-chan Response // closed after an error or when the remote closes; must be drained
	Requests  chan<- []byte   // close it to end the input; nil where the handler takes none

	done <-chan struct{}
}

// Response is one message of a stream, or its error, which is the last.
type Response struct {
	Msg []byte
	Err error
}

// Done is closed when the stream has ended, cleanly or not. A sender on
// Requests selects on it too, to learn that nobody will read what it sends.
func (s *Stream) Done() <-chan struct{} { return s.done }
