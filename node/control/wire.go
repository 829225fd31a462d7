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
	proposeID grid.HandlerID = 100
	readID    grid.HandlerID = 101
	followID  grid.HandlerID = 102
)

var (
	proposeCall = grid.NewSingle[Command, outcome](proposeID, "control.propose")
	readCall    = grid.NewSingle[Query, Answer](readID, "control.read")
	followCall  = grid.NewSingle[greeting, standing](followID, "control.follow")
)

// greeting asks the owner how things stand.
type greeting struct {
	Epoch uint64 `msg:"e"` // of the topology that the asking node has
}

// standing is the owner's answer.
type standing struct {
	Deployment string    `msg:"d"`
	Topology   *Topology `msg:"t,omitempty"` // nil where the node has it
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
