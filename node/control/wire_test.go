package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/grid"
	"github.com/gridloom/gridloom/node/fault"
)

// The numbers that cross the wire are fixed.
func TestHandlerIDs(t *testing.T) {
	for want, got := range map[grid.HandlerID]grid.HandlerID{100: proposeCall.ID(), 101: readCall.ID(), 102: greetCall.ID(), 103: raftID, 104: manifestCall.ID()} {
		if got != want {
			t.Errorf("handler %d is %d", want, got)
		}
	}
}

// Every kind of error arrives with what its maker said, and nothing of its
// cause.
func TestFaultsCrossTheWire(t *testing.T) {
	for kind := fault.Kind(0); ; kind++ {
		if kind != fault.Internal && kind.Reason() == fault.Internal.Reason() {
			break // past the last one
		}
		sent := &fault.Error{Kind: kind, Subject: `bucket "ö"`, Detail: "is\nwrong: " + kind.Reason(), Retry: 1500 * time.Millisecond, Err: errors.New("the secret cause")}
		wire := ToWire(fmt.Errorf("while at it: %w", sent))
		if strings.Contains(wire.Error(), "secret") {
			t.Errorf("%v: the cause crosses the wire", kind)
		}
		var got *fault.Error
		if !errors.As(FromWire(fmt.Errorf("grid: %w", wire)), &got) || got.Kind != kind || got.Subject != sent.Subject || got.Detail != sent.Detail || got.Retry != sent.Retry {
			t.Errorf("%v arrived as %+v", sent, got)
		}
	}
	if ToWire(nil) != nil || FromWire(nil) != nil {
		t.Error("an error from nowhere")
	}
	plain := FromWire(ToWire(errors.New("open /secret/path")))
	if fault.KindOf(plain) != fault.Internal || strings.Contains(plain.Error(), "secret") {
		t.Errorf("an error of no kind arrived as %v", plain)
	}
	long := FromWire(ToWire(fault.New(fault.TooLarge, strings.Repeat("s", 1<<20), "%s", strings.Repeat("\x1f", 1<<20))))
	if fault.KindOf(long) != fault.TooLarge || len(long.Error()) > 3*maxFaultBytes {
		t.Errorf("%d bytes of %v", len(long.Error()), fault.KindOf(long))
	}
}

// What happens to a call on its way has a kind, and the node's name.
func TestFailedCallsHaveKinds(t *testing.T) {
	at := func(err error) error {
		return &grid.Error{Op: "request", Host: "http://a:7402", Handler: 101, Err: err}
	}
	remote := func(code uint32, message string) error {
		return &grid.Error{Op: "request", Host: "http://a:7402", Remote: true, Err: &grid.RemoteError{Code: code, Message: message}}
	}
	for _, tc := range []struct {
		err  error
		kind fault.Kind
	}{
		{at(grid.ErrDisconnected), fault.Unavailable},
		{at(grid.ErrGoingAway), fault.Unavailable},
		{at(grid.ErrClosed), fault.Unavailable},
		{at(grid.ErrUnknownHost), fault.Unavailable},
		{at(grid.ErrUnknownHandler), fault.Unavailable},
		{at(grid.ErrOverloaded), fault.Overloaded},
		{at(grid.ErrTooLarge), fault.TooLarge},
		{at(errors.New("something")), fault.Internal},
		{at(context.Canceled), fault.Canceled},
		{at(context.DeadlineExceeded), fault.Deadline},
		{remote(grid.CodePanic, "boom"), fault.Internal},
		{remote(grid.CodeMalformed, "bad"), fault.Internal},
		{remote(grid.CodeCanceled, ""), fault.Unavailable},
		{remote(grid.CodeDeadline, ""), fault.Deadline},
		{remote(grid.CodeUnspecified, "open /secret"), fault.Internal},
		{remote(1<<20, "a\x1fb\x1f0"), fault.Internal},
		{remote(9999, "a\x1fb\x1f0"), fault.Kind(9999)}, // a newer node's kind: shown as internal
	} {
		err := FromWire(tc.err)
		if got := fault.KindOf(err); got != tc.kind {
			t.Errorf("%v became %v", tc.err, got)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%v shows what is another node's", err)
		}
		if !errors.Is(err, tc.err) {
			t.Errorf("%v has lost its cause", err)
		}
	}
	if got := fault.Kind(9999).Status(); got != 500 {
		t.Errorf("a newer node's kind has the status %d", got)
	}
}

func FuzzFromWire(f *testing.F) {
	f.Add(uint32(1), "key\x1fis empty\x1f0")
	f.Add(uint32(0), "")
	f.Add(^uint32(0), "\x1f\x1f-1")
	f.Fuzz(func(t *testing.T, code uint32, message string) {
		err := FromWire(&grid.RemoteError{Code: code, Message: message})
		var fe *fault.Error
		if !errors.As(err, &fe) || fe.Retry < 0 || fe.Retry > time.Hour {
			t.Fatalf("%v", err)
		}
		again := FromWire(ToWire(err))
		if fault.KindOf(again) != fe.Kind {
			t.Fatalf("%v became %v", fe.Kind, fault.KindOf(again))
		}
	})
}
