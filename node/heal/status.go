package heal

//go:generate go tool -modfile=../../internal/tools/go.mod msgp -file=status.go -o=status_gen.go -tests=false -io=false

import "time"

//msgp:limit arrays:4096 maps:0

// The phases that Status.Phase names, the first that fits.
const (
	PhaseIdle        = "idle"
	PhaseCopying     = "copying"     // copies that are missing are made
	PhaseDraining    = "draining"    // copies are moved off what drains
	PhaseRebalancing = "rebalancing" // copies are moved to where more is free
	PhaseScrubbing   = "scrubbing"   // copies are read, as asked for by Start
)

// listMax bounds the lists of a Status.
const listMax = 100

// Status is how healing goes, as its coordinator sees it.
type Status struct {
	Leader string    `msg:"l"` // the node that coordinates
	Phase  string    `msg:"p"`
	Since  time.Time `msg:"s"` // when the phase began, or the node to lead

	// Of the pass under way, or the last one. Pass counts them, in this term.
	Pass          uint64        `msg:"n"`
	Passing       bool          `msg:"pg"` // it is under way
	Scanned       int64         `msg:"sc"` // segments that were looked at because they aren't as they should be
	Total         int64         `msg:"t"`  // of them, 0 until the first run has counted
	Done          int64         `msg:"d"`  // brought in order
	Failed        int64         `msg:"f"`  // given up until the next pass
	Bytes         int64         `msg:"b"`  // copied
	RatePerSecond int64         `msg:"r"`  // bytes copied a second, of late, by all that copies
	ETA           time.Duration `msg:"e"`  // of the pass; 0: not known, or none

	Pending            int64   `msg:"pe"` // heal rows, when they were last read
	Endangered         int64   `msg:"en"` // segments with at most one copy left, of more, when last counted
	UnrecoverableCount int64   `msg:"uc"` // segments without any good copy
	Unrecoverable      []Lost  `msg:"u"`  // the first 100 of them
	Stuck              []Stuck `msg:"st"` // at most 100

	Draining  []DrainProgress `msg:"dr"`
	Scrub     ScrubProgress   `msg:"sb"`
	Rebalance Rebalance       `msg:"rb"`
}

// Lost is a segment of which no good copy is left.
type Lost struct {
	Bucket  string   `msg:"b"`
	Key     string   `msg:"k"`
	Segment [16]byte `msg:"s"`
	Why     string   `msg:"w"`
}

// Stuck is what couldn't be done in the pass, and why not.
type Stuck struct {
	What string `msg:"t"` // "12 segments of pool default", "segment …"
	Why  string `msg:"w"`
}

// DrainProgress is something that drains.
type DrainProgress struct {
	Kind         string        `msg:"k"` // "drive", "node" or "pool"
	Name         string        `msg:"n"`
	Counted      bool          `msg:"c"` // what is left has been counted
	LeftSegments int64         `msg:"s"`
	LeftBytes    int64         `msg:"b"`
	ETA          time.Duration `msg:"e"` // 0: not known, or none
	Blocked      string        `msg:"w"` // what stops it; "" while nothing does
}

// ScrubProgress is the round of the scrub under way, or the last one.
type ScrubProgress struct {
	Round    uint64        `msg:"r"` // counts them
	Running  bool          `msg:"a"` // a round is under way
	Fast     bool          `msg:"f"` // as fast as it may, since Start asked for it
	Started  time.Time     `msg:"s"`
	Ended    time.Time     `msg:"d"` // zero while it is under way
	Segments int64         `msg:"n"` // looked at, each with all its copies
	Bytes    int64         `msg:"b"` // read of copies
	Total    int64         `msg:"t"` // bytes of all copies, about; 0: not known
	Bad      int64         `msg:"x"` // copies that weren't as they should be
	ETA      time.Duration `msg:"e"` // 0: not known
}

// Rebalance is the run under way, or the last one.
type Rebalance struct {
	Running bool          `msg:"a"`
	Started time.Time     `msg:"s"`
	Ended   time.Time     `msg:"d"`
	Scanned int64         `msg:"n"` // segments looked at
	Moved   int64         `msg:"m"` // segments
	Bytes   int64         `msg:"b"` // of them
	Failed  int64         `msg:"f"`
	ETA     time.Duration `msg:"e"`
	Why     string        `msg:"w"` // why it ended before its time; "" if it didn't
}

// StartRequest asks for a pass now.
type StartRequest struct {
	// Verify has a new round of the scrub begin at once as well, as fast as
	// Options.BytesPerSecond allows.
	Verify bool `msg:"v"`
}
