package grid

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestWireConstants pins what SPEC.md promises. A change here is a new
// protocol and needs a new RoutePath.
func TestWireConstants(t *testing.T) {
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"path", RoutePath, "/grid/v1"},
		{"header", headerLen, 16},
		{"batch", maxBatchLen, 163840},
		{"chunk", maxChunkLen, 65536},
		{"crc", crcLen, 4},
		{"handshake", maxHandshake, 4096},
		{"metadata", MaxMetadata, 4096},
		{"error text", maxErrorText, 4096},
		{"calls", maxCallsInFlight, 1048576},
		{"nonce, instance", [2]int{nonceLen, instanceLen}, [2]int{32, 16}},
		{"frames", fmt.Sprint(frameRequest, frameReply, frameError, frameCancel, frameOpen, frameAccept, frameData, frameMore, frameEnd, frameCredit, frameSessionCredit, framePing, framePong, frameGoAway, frameRealm), "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15"},
		{"flags", fmt.Sprint(flagMore, flagNil, flagDeadline, flagMeta, flagInput), "1 2 4 8 16"},
		{"phases", fmt.Sprint(goAwaySoon, goAwayAck, goAwayFinal), "1 2 3"},
		{"features", fmt.Sprint(featureCRC, featureZeroMask), "1 2"},
		{"kinds", fmt.Sprint(kindHandler, kindUnknownHandler, kindTooLarge, kindOverloaded, kindGoingAway, kindMalformed, kindDisconnected, kindUnknownHost), "1 2 3 4 5 6 7 8"},
		{"codes", fmt.Sprintf("%x %x %x %x %x", CodeUnspecified, CodePanic, CodeCanceled, CodeDeadline, CodeMalformed), "0 ffffffff fffffffe fffffffd fffffffc"},
		{"origin", originAcceptor, uint64(1) << 63},
		{"id", makeID(originAcceptor, 0x7fffffff, 9), uint64(0xffffffff00000009)},
		{"headers", headerFrom + " " + headerTo, "Gridloom-Grid-From Gridloom-Grid-To"},
		{"frame", hex.EncodeToString(appendHeader(nil, header{typ: frameRequest, flags: flagNil, handler: 0x0203, length: 0x04050607, id: 0x08090a0b0c0d0e0f})), "01020302070605040f0e0d0c0b0a0908"},
		{"proof", hex.EncodeToString(proof([]byte("secret"), "dialler", []byte("hello"), []byte("welcome"))), "9d06b27c4683697eb6a538c546e25c7edae9ffe1c0ee3a73ca2934d3e925545f"},
		{"error", hex.EncodeToString((&wireError{Kind: 1, Code: 2, Message: "m", RetryAfterMS: 3, NotExecuted: true}).encode()), "85a16b01a16302a16da16da17203a16ec3"},
		{"dials", fmt.Sprint(dials("http://a:1", "http://b:1"), dials("http://b:1", "http://a:1"), dials("http://a:1", "http://c:1")), "true false true"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, pinned %v", c.name, c.got, c.want)
		}
	}
}

// TestSpecNamesEveryFrame keeps SPEC.md's table complete.
func TestSpecNamesEveryFrame(t *testing.T) {
	spec, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	for typ := frameRequest; typ <= frameRealm; typ++ {
		if !strings.Contains(string(spec), fmt.Sprintf("\n| %d | ", typ)) {
			t.Errorf("frame type %d is not in the table", typ)
		}
	}
}
