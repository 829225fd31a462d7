package control

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/fault"
)

//go:generate go tool -modfile=../../internal/tools/go.mod msgp -unexported -file=wire.go -o=wire_gen.go -tests=false -io=false

//msgp:limit arrays:1024 maps:1024

// The handlers of the index. Every node has them, so that one which is asked
// by mistake can say so. An incompatible change is a new id.
const (
	proposeID  grid.HandlerID = 100
	readID     grid.HandlerID = 101
	greetID    grid.HandlerID = 102
	raftID     grid.HandlerID = 103
	manifestID grid.HandlerID = 104
	relayID    grid.HandlerID = 105
)

var (
	proposeCall  = grid.NewSingle[Command, proposed](proposeID, "control.propose")
	relayCall    = grid.NewSingle[Command, proposed](relayID, "control.relay")
	readCall     = grid.NewSingle[Query, Answer](readID, "control.read")
	greetCall    = grid.NewSingle[greeting, greeting](greetID, "control.greet")
	manifestCall = grid.NewSingle[snapshotRef, manifest](manifestID, "control.manifest")
)

// proposed is what became of a command at the node that was asked.
type proposed struct {
	Elsewhere bool    `msg:"e,omitempty"` // that node doesn't lead the group: nothing was done
	Leader    string  `msg:"l,omitempty"` // who does, as far as it knows
	Outcome   outcome `msg:"o"`
}

// greeting is what nodes tell each other of themselves: it is both the
// question and the answer.
type greeting struct {
	Name       string `msg:"n"`
	URL        string `msg:"u"`
	RaftID     uint64 `msg:"i"`
	Deployment string `msg:"d,omitempty"`
	Blank      bool   `msg:"b,omitempty"` // it has no part in any mesh
	// Founders are the nodes that its configuration names, and in a mesh that
	// has begun their raft ids as they were then.
	Founders []founder `msg:"f"`
	// Bound is the raft id that the asked node knows for the asking one's name,
	// in a mesh that has begun; Admitted tells whether it knows the name at all.
	// Epoch is the topology's that says so.
	Bound    uint64 `msg:"bi,omitempty"`
	Admitted bool   `msg:"a,omitempty"`
	Epoch    uint64 `msg:"e,omitempty"`
	// Clock is the time by the node's clock, unix ns.
	Clock int64 `msg:"t"`
	// Oldest and Newest are the command versions that its program applies.
	Oldest uint8 `msg:"vo"`
	Newest uint8 `msg:"vn"`
	// LeadsData: it leads the data group.
	LeadsData bool `msg:"ld,omitempty"`
	// Full: its disk has no room for what grows. Tight: it hadn't of late, and others
	// should lead.
	Full  bool `msg:"fu,omitempty"`
	Tight bool `msg:"ti,omitempty"`
	// Waits is why the system group's members stay as they are though they
	// should change, where the node leads it.
	Waits string `msg:"w,omitempty"`
	// Secrets are the fingerprints of the mesh secrets that it accepts.
	Secrets [][]byte `msg:"s,omitempty"`
}

// founder is one of the nodes that begin a mesh.
type founder struct {
	Name   string `msg:"n"`
	URL    string `msg:"u"`
	RaftID uint64 `msg:"i,omitempty"`
}

// opening begins a stream of raft's messages.
type opening struct {
	From uint64 `msg:"f"` // raft ids
	To   uint64 `msg:"t"`
}

// snapshotRef names a snapshot that a node offers, and who fetches it.
type snapshotRef struct {
	Group uint32 `msg:"g"`
	Index uint64 `msg:"i"`
	To    uint64 `msg:"t"` // raft id
}

// manifest lists a snapshot's files.
type manifest struct {
	Files []snapshotFile `msg:"f,limit=100000"`
}

// snapshotFile is a file of a snapshot.
type snapshotFile struct {
	Name   string `msg:"n"`
	Size   int64  `msg:"s"`
	CRC32C uint32 `msg:"c"`
}

// faultSeparator stands between the parts of a fault in a RemoteError's
// message: subject, detail, and milliseconds until a retry may help. It is a
// control character that no subject or detail needs.
const faultSeparator = "\x1f"

// maxFaultBytes bounds the parts of a fault on the wire.
const maxFaultBytes = 4 << 10

// ToWire makes of an error what a grid handler returns, so that its kind,
// subject, detail and retry hint reach the caller. Causes stay here. It
// returns nil for nil.
func ToWire(err error) error {
	if err == nil {
		return nil
	}
	fe := fault.From(err)
	part := func(s string) string {
		return strings.ReplaceAll(s[:min(len(s), maxFaultBytes)], faultSeparator, " ")
	}
	return &grid.RemoteError{
		Code:    uint32(fe.Kind),
		Message: part(fe.Subject) + faultSeparator + part(fe.Detail) + faultSeparator + strconv.FormatInt(fe.Retry.Milliseconds(), 10),
	}
}

// FromWire makes of a failed grid call's error a *fault.Error: the one that
// the handler gave to ToWire, or one for what happened to the call on its
// way. The context's own errors stay what they are. The cause is kept.
func FromWire(err error) error {
	if err == nil {
		return nil
	}
	if !grid.IsRemote(err) && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return err
	}
	subject := "grid"
	var ge *grid.Error
	if errors.As(err, &ge) {
		subject = "node at " + ge.Host
	}
	wrap := func(k fault.Kind, format string, args ...any) error {
		return &fault.Error{Kind: k, Subject: subject, Detail: fmt.Sprintf(format, args...), Err: err}
	}
	var re *grid.RemoteError
	switch {
	case errors.As(err, &re):
		return fromRemote(re, err, wrap)
	case errors.Is(err, grid.ErrOverloaded):
		retry, _ := grid.RetryAfter(err)
		return &fault.Error{Kind: fault.Overloaded, Subject: subject, Detail: "has more to do than it can take", Retry: retry, Err: err}
	case errors.Is(err, grid.ErrTooLarge):
		return wrap(fault.TooLarge, "the message is too large for the grid")
	case errors.Is(err, grid.ErrUnknownHandler):
		return wrap(fault.Unavailable, "isn't ready for this call, or runs another version")
	case errors.Is(err, grid.ErrUnknownHost):
		return wrap(fault.Unavailable, "isn't a known node")
	case errors.Is(err, grid.ErrDisconnected):
		return wrap(fault.Unavailable, "the connection was lost")
	}
	return wrap(fault.Internal, "the call failed")
}

// answered tells whether an error is what a handler said by ToWire, and not
// what became of the call.
func answered(err error) bool {
	var re *grid.RemoteError
	if !errors.As(err, &re) {
		return false
	}
	switch re.Code {
	case grid.CodePanic, grid.CodeMalformed, grid.CodeCanceled, grid.CodeDeadline:
		return false
	case uint32(fault.Canceled), uint32(fault.Deadline):
		return false // the call's own end, which the other node has seen sooner
	}
	return strings.Count(re.Message, faultSeparator) == 2
}

// fromRemote reads what ToWire wrote, and what the grid says for a handler
// that wrote nothing.
func fromRemote(re *grid.RemoteError, err error, wrap func(fault.Kind, string, ...any) error) error {
	switch re.Code {
	case grid.CodePanic:
		return wrap(fault.Internal, "the handler failed; that node's log has the cause")
	case grid.CodeMalformed:
		return wrap(fault.Internal, "the message could not be read at one end")
	case grid.CodeCanceled:
		return wrap(fault.Unavailable, "the call was cut off")
	case grid.CodeDeadline:
		return wrap(fault.Deadline, "the deadline ended before the answer was ready")
	}
	parts := strings.Split(re.Message, faultSeparator)
	if len(parts) != 3 || re.Code > uint32(^uint16(0)) {
		return wrap(fault.Internal, "internal error; that node's log has the cause")
	}
	ms, parseErr := strconv.ParseInt(parts[2], 10, 64)
	if parseErr != nil || ms < 0 || ms > time.Hour.Milliseconds() {
		ms = 0
	}
	return &fault.Error{
		Kind:    fault.Kind(re.Code),
		Subject: parts[0],
		Detail:  parts[1],
		Retry:   time.Duration(ms) * time.Millisecond,
		Err:     err,
	}
}
