package grid

import (
	"errors"
	"fmt"
	"time"

	"github.com/tinylib/msgp/msgp"
)

//go:generate go tool -modfile=../internal/tools/go.mod msgp -file wire.go -o wire_gen.go -io=false -tests=false -unexported

// The msgpack messages of the protocol. Each arrives in a frame or a WebSocket
// message whose size is checked first, which bounds what decoding can cost.

// The kinds of a wireError; append only.
const (
	kindNone           uint8 = 0
	kindHandler        uint8 = 1 // the handler's own error: Code and Message
	kindUnknownHandler uint8 = 2
	kindTooLarge       uint8 = 3
	kindOverloaded     uint8 = 4
	kindGoingAway      uint8 = 5
	kindMalformed      uint8 = 6
	kindDisconnected   uint8 = 7 // of a call that the handler made itself, like the next
	kindUnknownHost    uint8 = 8
)

// wireError is the body of frameError.
type wireError struct {
	Kind         uint8  `msg:"k"`
	Code         uint32 `msg:"c"`
	Message      string `msg:"m"`
	RetryAfterMS uint32 `msg:"r"`
	NotExecuted  bool   `msg:"n"`
}

// hello is the dialling end's first message.
type hello struct {
	Protocol   string `msg:"protocol"` // RoutePath
	From       string `msg:"from"`
	To         string `msg:"to"`
	Instance   string `msg:"instance"` // 16 random bytes of the process
	Attempt    uint64 `msg:"attempt"`  // counts the dial attempts of an instance
	Nonce      []byte `msg:"nonce"`    // 32 random bytes
	Realm      string `msg:"realm"`
	Features   uint64 `msg:"features"`
	MaxMessage uint32 `msg:"max_message"`
	Reassembly uint32 `msg:"reassembly"`
	Window     uint32 `msg:"window"`
	UnixMicros int64  `msg:"unix_us"`
}

// welcome is the accepting end's answer: the same about itself, and its proof.
type welcome struct {
	From       string `msg:"from"`
	Instance   string `msg:"instance"`
	Nonce      []byte `msg:"nonce"`
	Realm      string `msg:"realm"`
	Features   uint64 `msg:"features"` // that both ends have
	MaxMessage uint32 `msg:"max_message"`
	Reassembly uint32 `msg:"reassembly"`
	Window     uint32 `msg:"window"`
	UnixMicros int64  `msg:"unix_us"`
}

// step is every handshake message after hello: what the accepting end says
// about itself, a proof, or the reason why this is the end.
type step struct {
	Welcome []byte `msg:"welcome"` // an encoded welcome
	Proof   []byte `msg:"proof"`
	Refused string `msg:"refused"`
	Ready   bool   `msg:"ready"`
}

func (w *wireError) encode() []byte {
	b, _ := w.MarshalMsg(nil) // cannot fail: no field is an interface
	return b
}

func (w *wireError) decode(b []byte) error {
	rest, err := w.UnmarshalMsg(b)
	if err == nil && len(rest) > 0 {
		err = errTrailing
	}
	return err
}

var errTrailing = errors.New("bytes after the message")

// error makes of it what a caller gets.
func (w *wireError) error(op, host string, h HandlerID) *Error {
	e := &Error{Op: op, Host: host, Handler: h, Remote: true, notExecuted: w.NotExecuted}
	e.retryAfter = time.Duration(w.RetryAfterMS) * time.Millisecond
	var kind error
	switch w.Kind {
	case kindUnknownHandler:
		kind = ErrUnknownHandler
	case kindTooLarge:
		kind = ErrTooLarge
	case kindOverloaded:
		kind = ErrOverloaded
	case kindGoingAway:
		kind = ErrGoingAway
	case kindDisconnected:
		kind = ErrDisconnected
	case kindUnknownHost:
		kind = ErrUnknownHost
	default:
		e.Err = &RemoteError{Code: w.Code, Message: w.Message}
		return e
	}
	e.Err = kind
	if w.Message != "" {
		e.Err = fmt.Errorf("%w: %s", kind, w.Message)
	}
	return e
}

// encodeMetadataMap writes md as a msgpack map of strings.
func encodeMetadataMap(md Metadata) ([]byte, error) {
	b := msgp.AppendMapHeader(nil, uint32(len(md)))
	for k, v := range md {
		b = msgp.AppendString(b, k)
		b = msgp.AppendString(b, v)
		if len(b) > MaxMetadata {
			return nil, fmt.Errorf("%w: metadata over %d bytes", ErrTooLarge, MaxMetadata)
		}
	}
	return b, nil
}

var errMetadata = errors.New("malformed metadata")

// decodeMetadata reads what encodeMetadataMap wrote. b is at most MaxMetadata
// bytes, which bounds the map.
func decodeMetadata(b []byte) (Metadata, error) {
	if b == nil {
		return nil, nil
	}
	n, b, err := msgp.ReadMapHeaderBytes(b)
	if err != nil || int(n) > len(b)/2 {
		return nil, errMetadata
	}
	md := make(Metadata, n)
	for range n {
		var k, v string
		if k, b, err = msgp.ReadStringBytes(b); err != nil {
			return nil, errMetadata
		}
		if v, b, err = msgp.ReadStringBytes(b); err != nil {
			return nil, errMetadata
		}
		md[k] = v
	}
	if len(b) > 0 {
		return nil, errMetadata
	}
	return md, nil
}
