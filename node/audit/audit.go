package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Level says which requests are recorded. Those about health never are.
type Level string

// The levels.
const (
	Off     Level = "off"
	Changes Level = "changes" // everything but reads that succeeded
	All     Level = "all"
)

// ParseLevel reads a level.
func ParseLevel(s string) (Level, error) {
	switch l := Level(s); l {
	case Off, Changes, All:
		return l, nil
	}
	return "", fmt.Errorf("%q is none of off, changes and all", s)
}

// Options configures a Log. File is required.
type Options struct {
	Node  string
	File  string // the file that is written; older ones stand beside it
	Level Level  // (Changes)
	// MaxBytes is the size at which a file is put aside, and Keep how many of
	// those are kept: (64 MiB, 10).
	MaxBytes int64
	Keep     int
	// Failed is told of lines that were lost, once until one is written again.
	Failed func(error)
}

const (
	bufferBytes = 64 << 10
	flushEvery  = time.Second
	// asideForm is the time in the name of a file that was put aside, UTC.
	asideForm = "20060102T150405.000000000Z"

	// Refused requests of nobody known that get a line: so many a second, and so
	// many at once. They cost nobody a credential, and the files are bounded: at
	// some 250 bytes a line, a flood of them takes more than a day to push out
	// what the default of 700 MiB has of others.
	strangersPerSecond = 20
	strangersAtOnce    = 1000

	// patience is how long a disk may take for a write until it counts as hanging:
	// no line, and no Close, waits for it any longer.
	patience = 5 * time.Second
)

// errHangs is why a line is lost, or the last ones are, of a file whose disk
// doesn't answer.
var errHangs = fmt.Errorf("a write to its disk has taken more than %v", patience)

// Log writes records. A nil Log, and one whose level is Off, writes nothing.
type Log struct {
	o         Options
	lost      atomic.Int64
	strangers *rate.Limiter
	unlisted  atomic.Int64 // of the strangers' requests, since the last line that said so
	hangs     atomic.Bool  // the last who wanted the turn didn't get it, and that was told
	closed    atomic.Bool

	turn turn // guards what follows
	file io.WriteCloser
	buf  *bufio.Writer
	size int64 // of the file with what is buffered
	// failed: the last write failed, and was told of.
	failed bool
}

// turn is a lock that nobody waits for while who has it hangs.
type turn struct {
	taken chan struct{} // has room for one: who has the turn
	made  time.Time
	since atomic.Int64 // when it was taken last, ns after made
}

func newTurn() turn { return turn{taken: make(chan struct{}, 1), made: time.Now()} }

// take tells whether the turn is the caller's now: it isn't where somebody has
// had it for patience.
func (t *turn) take() bool {
	select {
	case t.taken <- struct{}{}:
	default:
		left := patience - (time.Since(t.made) - time.Duration(t.since.Load()))
		if left <= 0 {
			return false
		}
		timer := time.NewTimer(left)
		defer timer.Stop()
		select {
		case t.taken <- struct{}{}:
		case <-timer.C:
			return false
		}
	}
	t.since.Store(int64(time.Since(t.made)))
	return true
}

func (t *turn) give() { <-t.taken }

// Open opens the file, for adding to it. Whoever can write it can change the
// record: it is made for its owner alone.
func Open(o Options) (*Log, error) {
	if o.Level == "" {
		o.Level = Changes
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 64 << 20
	}
	if o.Keep <= 0 {
		o.Keep = 10
	}
	l := &Log{o: o, turn: newTurn(), strangers: rate.NewLimiter(strangersPerSecond, strangersAtOnce)}
	if o.Level == Off {
		return l, nil
	}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// open opens the present file. The turn is the caller's, or l is nobody else's yet.
func (l *Log) open() error {
	f, err := os.OpenFile(l.o.File, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, info.Size()
	if l.buf == nil {
		l.buf = bufio.NewWriterSize(f, bufferBytes)
	} else {
		l.buf.Reset(f)
	}
	return nil
}

// Begin makes the record of a request that has just come in by a door.
func (l *Log) Begin(door, address, method string) *Record {
	return l.Since(time.Now(), door, address, method)
}

// Reads says that reads that succeeded are recorded, too. Who makes records of
// others only needs Since.
func (l *Log) Reads() bool { return l != nil && l.o.Level == All }

// Since is Begin for a request that came in at a time.
func (l *Log) Since(began time.Time, door, address, method string) *Record {
	if l == nil || l.o.Level == Off {
		return nil
	}
	r := &Record{began: began, line: line{
		Node: l.o.Node, Door: door, Address: address, Method: bounded(method, maxMethodBytes),
	}}
	r.line.Resources = r.first[:0]
	return r
}

// End writes a record, but not each of many that were refused to nobody known:
// those are counted in the next line. read tells that the request could change nothing; trace
// is its trace's id, if it has one.
func (l *Log) End(r *Record, read bool, trace string) {
	if l == nil || r == nil {
		return
	}
	r.mu.Lock()
	if r.line.Outcome == "" {
		r.line.Outcome = "ok"
	}
	if l.o.Level != All && read && r.line.Outcome == "ok" {
		r.mu.Unlock()
		return
	}
	if r.line.User == "" && r.line.Outcome != "ok" && !l.strangers.Allow() {
		r.mu.Unlock()
		l.unlisted.Add(1)
		return
	}
	r.line.Time = r.began.UTC().Format(time.RFC3339Nano)
	r.line.Trace, r.line.Seconds = trace, time.Since(r.began).Seconds()
	r.line.Unlisted = l.unlisted.Swap(0)
	text, err := json.Marshal(&r.line)
	r.mu.Unlock()
	if err == nil {
		err = l.write(append(text, '\n'))
	}
	if err != nil {
		l.lost.Add(1)
	}
}

// Lost is how many lines could not be written.
func (l *Log) Lost() int64 {
	if l == nil {
		return 0
	}
	return l.lost.Load()
}

func (l *Log) write(text []byte) (err error) {
	if !l.turn.take() {
		if !l.hangs.Swap(true) && l.o.Failed != nil {
			l.o.Failed(errHangs)
		}
		return errHangs
	}
	defer l.turn.give()
	l.hangs.Store(false)
	defer func() { l.tell(err) }()
	switch {
	case l.closed.Load():
		return fs.ErrClosed
	case l.file == nil: // it could not be opened anew
		err = l.open()
	case l.size > 0 && l.size+int64(len(text)) > l.o.MaxBytes:
		err = l.rotate()
	}
	if err != nil {
		return err
	}
	l.size += int64(len(text))
	if _, err := l.buf.Write(text); err != nil {
		return l.giveUp(err)
	}
	return nil
}

// giveUp drops the file after a failed write: a bufio.Writer that has failed
// writes no more. The next line opens it again.
func (l *Log) giveUp(err error) error {
	err = errors.Join(err, l.file.Close())
	l.file = nil
	return err
}

// tell reports the first of several failures.
func (l *Log) tell(err error) {
	if err != nil && !l.failed && l.o.Failed != nil {
		l.o.Failed(err)
	}
	l.failed = err != nil
}

// rotate puts the file aside and begins another. The turn is the caller's.
func (l *Log) rotate() error {
	if err := l.buf.Flush(); err != nil {
		return l.giveUp(err)
	}
	err := l.file.Close()
	l.file = nil
	if err != nil {
		return err
	}
	if err := os.Rename(l.o.File, l.o.File+"."+time.Now().UTC().Format(asideForm)); err != nil {
		return err
	}
	if err := l.open(); err != nil {
		return err
	}
	return l.prune()
}

// prune removes the oldest of the files that were put aside.
func (l *Log) prune() error {
	dir, name := filepath.Split(l.o.File)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return err
	}
	var aside []string
	for _, e := range entries {
		if when, ok := strings.CutPrefix(e.Name(), name+"."); ok {
			if _, err := time.Parse(asideForm, when); err == nil {
				aside = append(aside, e.Name())
			}
		}
	}
	slices.Sort(aside) // by time
	for len(aside) > l.o.Keep {
		if err := os.Remove(filepath.Join(dir, aside[0])); err != nil {
			return err
		}
		aside = aside[1:]
	}
	return nil
}

// Run writes out what is buffered, again and again until ctx ends. It waits for
// no disk that hangs then.
func (l *Log) Run(ctx context.Context) {
	if l == nil || l.o.Level == Off {
		return
	}
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		flushed := make(chan struct{})
		go func() {
			defer close(flushed)
			l.flush()
		}()
		select {
		case <-ctx.Done():
			return
		case <-flushed:
		}
	}
}

func (l *Log) flush() {
	if !l.turn.take() {
		return
	}
	defer l.turn.give()
	if l.file == nil || l.buf.Buffered() == 0 {
		return
	}
	if err := l.buf.Flush(); err != nil {
		l.lost.Add(1) // at the least
		l.tell(l.giveUp(err))
	}
}

// Close writes out what is left. Records that end later are lost. Where the disk
// hangs it says so, within some seconds, and leaves behind whoever writes: the
// process has to end then.
func (l *Log) Close() error {
	if l == nil || l.closed.Swap(true) {
		return nil
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	ended := make(chan error, 1)
	go func() {
		if !l.turn.take() {
			ended <- errHangs
			return
		}
		defer l.turn.give()
		if l.file == nil {
			ended <- nil
			return
		}
		err := errors.Join(l.buf.Flush(), l.file.Close())
		l.file = nil
		ended <- err
	}()
	select {
	case err := <-ended:
		if err == errHangs {
			err = fmt.Errorf("audit log %s: the last lines are lost: %w", l.o.File, err)
		}
		return err
	case <-timer.C:
		return fmt.Errorf("audit log %s: the last lines are lost: %w", l.o.File, errHangs)
	}
}
