package certs

import "time"

// grace is how long what is in a file may be unfit before it is told: it may be
// half written, and two files are seldom written at the same time.
const grace = 2 * time.Second

// Trouble decides when to tell of what is wrong with files that are read again
// and again: once, when it has been wrong for two seconds. The zero Trouble is
// ready. One goroutine at a time may use it.
type Trouble struct {
	text string // "" while all is well
	from time.Time
	told bool
}

// Tell says whether err is to be told now. It is asked each time; nil is well.
func (t *Trouble) Tell(err error, now time.Time) bool {
	if err == nil {
		*t = Trouble{}
		return false
	}
	if err.Error() != t.text {
		*t = Trouble{text: err.Error(), from: now}
	}
	if t.told || now.Sub(t.from) < grace {
		return false
	}
	t.told = true
	return true
}
