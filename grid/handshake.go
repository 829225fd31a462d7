package grid

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/gobwas/ws"
	"github.com/tinylib/msgp/msgp"
)

// The handshake follows the HTTP upgrade, as WebSocket messages of their own:
//
//	dialler                        acceptor
//	hello  ───────────────────────▶
//	       ◀─────────────────────── step{welcome, proof}
//	step{proof} ──────────────────▶
//	       ◀─────────────────────── step{ready}
//
// A proof is an HMAC over both messages, so over both nonces, both names and
// everything that was agreed; each end makes its own, for its own role.

const (
	maxHandshake = 4 << 10 // bytes of one handshake message
	nonceLen     = 32
	instanceLen  = 16

	featureCRC      uint64 = 1 << 0 // batches end in CRC32C; plaintext links
	featureZeroMask uint64 = 1 << 1 // the dialling end masks with the zero key
	ourFeatures            = featureCRC | featureZeroMask
)

// errRefused is the cause where the other end turned us down, or we it.
var errRefused = errors.New("refused")

// handshaker runs one handshake over a fresh connection.
type handshaker struct {
	m     *Manager
	conn  net.Conn
	in    batchReader
	dials bool
}

func newHandshaker(m *Manager, conn net.Conn, dials bool, buffered []byte) *handshaker {
	h := &handshaker{m: m, conn: conn, dials: dials}
	h.in = batchReader{conn: conn, small: make([]byte, smallRead), masked: !dials}
	h.in.buf = h.in.small
	h.in.before, h.in.reads = func() {}, func(int) {}
	h.in.unread(buffered)
	return h
}

func (h *handshaker) send(msg msgp.Marshaler) ([]byte, error) {
	payload, err := msg.MarshalMsg(nil)
	if err != nil {
		return nil, err
	}
	f := ws.NewBinaryFrame(append([]byte(nil), payload...))
	if h.dials {
		f = ws.MaskFrameInPlace(f)
	}
	b, err := ws.CompileFrame(f)
	if err != nil {
		return nil, err
	}
	_, err = h.conn.Write(b)
	return payload, err
}

// receive reads the next message and returns its bytes.
func (h *handshaker) receive(msg msgp.Unmarshaler) ([]byte, error) {
	op, payload, err := h.in.next(maxHandshake)
	if err != nil {
		return nil, err
	}
	if op == ws.OpClose {
		return nil, h.closed(payload)
	}
	if op != ws.OpBinary {
		return nil, fmt.Errorf("%w: opcode %d in the handshake", errProtocol, op)
	}
	payload = append([]byte(nil), payload...)
	rest, err := msg.UnmarshalMsg(payload)
	if err == nil && len(rest) > 0 {
		err = errTrailing
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errProtocol, err)
	}
	return payload, nil
}

func (h *handshaker) closed(payload []byte) error {
	code, reason := ws.ParseCloseFrameData(payload)
	return &closeError{code: code, reason: reason}
}

// receiveStep is receive for a step, a refusal being its error.
func (h *handshaker) receiveStep() (step, error) {
	var st step
	if _, err := h.receive(&st); err != nil {
		return st, err
	}
	if st.Refused != "" {
		return st, fmt.Errorf("%w by the peer: %s", errRefused, clip(st.Refused))
	}
	return st, nil
}

// refuse tells the other end why and returns that as an error.
func (h *handshaker) refuse(format string, args ...any) error {
	reason := fmt.Sprintf(format, args...)
	_, _ = h.send(&step{Refused: clip(reason)[:min(len(reason), 512)]}) // it is lost anyway
	return fmt.Errorf("%w: %s", errRefused, reason)
}

// proof is role's HMAC over the two messages under a secret.
func proof(secret []byte, role string, helloMsg, welcomeMsg []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	var n [8]byte
	for _, part := range [][]byte{[]byte("gridloom grid v1 " + role), helloMsg, welcomeMsg} {
		binary.LittleEndian.PutUint64(n[:], uint64(len(part)))
		mac.Write(n[:])
		mac.Write(part)
	}
	return mac.Sum(nil)
}

// prove makes our proof with the first secret; nil without secrets.
func (h *handshaker) prove(role string, helloMsg, welcomeMsg []byte) []byte {
	secrets := h.m.secrets()
	if len(secrets) == 0 || len(secrets[0]) == 0 {
		return nil
	}
	return proof(secrets[0], role, helloMsg, welcomeMsg)
}

// verify checks the other end's proof against every secret. Secrets that give
// none, or an empty one, let nobody in.
func (h *handshaker) verify(got []byte, role string, helloMsg, welcomeMsg []byte) bool {
	if h.m.o.Secrets == nil {
		return true // its certificate was checked instead, or nothing is asked for
	}
	ok := false
	for _, secret := range h.m.secrets() {
		ok = len(secret) > 0 && hmac.Equal(got, proof(secret, role, helloMsg, welcomeMsg)) || ok
	}
	return ok
}

// dial runs the dialling end's handshake with host.
func (h *handshaker) dial(host string, attempt uint64, secure bool) (agreement, error) {
	var none agreement
	o := &h.m.o
	our := hello{
		Protocol: RoutePath, From: h.m.local, To: host, Instance: h.m.instance, Attempt: attempt,
		Nonce: randomBytes(nonceLen), Realm: h.m.realm(), Features: h.features(secure),
		MaxMessage: uint32(o.MaxMessage), Reassembly: uint32(o.ReassemblyBudget), Window: uint32(o.SessionWindow),
		UnixMicros: time.Now().UnixMicro(),
	}
	helloMsg, err := h.send(&our)
	if err != nil {
		return none, err
	}
	st, err := h.receiveStep()
	if err != nil {
		return none, err
	}
	var w welcome
	if rest, err := w.UnmarshalMsg(st.Welcome); err != nil || len(rest) > 0 {
		return none, fmt.Errorf("%w: malformed welcome", errProtocol)
	}
	if !h.verify(st.Proof, "acceptor", helloMsg, st.Welcome) {
		return none, fmt.Errorf("%w: %s has not proved that it knows the secret", errRefused, host)
	}
	peer, err := checkPeer(w.From, host, w.Instance, w.Nonce, w.MaxMessage, w.Reassembly, w.Window)
	if err != nil {
		return none, err
	}
	if err := h.m.checkRealm(w.Realm); err != nil {
		return none, err
	}
	if w.Features&^our.Features != 0 {
		return none, fmt.Errorf("%w: features that were not offered", errProtocol)
	}
	if _, err := h.send(&step{Proof: h.prove("dialler", helloMsg, st.Welcome)}); err != nil {
		return none, err
	}
	if st, err = h.receiveStep(); err != nil {
		return none, err
	}
	if !st.Ready {
		return none, fmt.Errorf("%w: not ready", errProtocol)
	}
	peer.attempt = attempt
	return agreement{peer, w.Features, time.Duration(w.UnixMicros-our.UnixMicros) * time.Microsecond}, nil
}

func (h *handshaker) features(secure bool) uint64 {
	if secure {
		return ourFeatures &^ featureCRC
	}
	return ourFeatures
}

// agreement is what a handshake ends in.
type agreement struct {
	peer     peerParams
	features uint64
	skew     time.Duration // the peer's clock minus ours, roughly
}

// accept runs the accepting end's handshake. check is asked once the peer is
// proven, before it is told that the session is up.
func (h *handshaker) accept(claimed string, secure bool, check func(peerParams) error) (agreement, error) {
	var his hello
	helloMsg, err := h.receive(&his)
	if err != nil {
		return agreement{}, err
	}
	if his.Protocol != RoutePath || his.From != claimed || his.To != h.m.local {
		return agreement{}, h.refuse("hello from %q to %q by %q does not fit the request of %q", clip(his.From), clip(his.To), clip(his.Protocol), claimed)
	}
	peer, err := checkPeer(his.From, claimed, his.Instance, his.Nonce, his.MaxMessage, his.Reassembly, his.Window)
	if err != nil {
		return agreement{}, h.refuse("%v", err)
	}
	o := &h.m.o
	w := welcome{
		From: h.m.local, Instance: h.m.instance, Nonce: randomBytes(nonceLen),
		Realm: h.m.realm(), Features: his.Features & h.features(secure),
		MaxMessage: uint32(o.MaxMessage), Reassembly: uint32(o.ReassemblyBudget), Window: uint32(o.SessionWindow),
		UnixMicros: time.Now().UnixMicro(),
	}
	welcomeMsg, err := w.MarshalMsg(nil)
	if err != nil {
		return agreement{}, err
	}
	if _, err := h.send(&step{Welcome: welcomeMsg, Proof: h.prove("acceptor", helloMsg, welcomeMsg)}); err != nil {
		return agreement{}, err
	}
	st, err := h.receiveStep()
	if err != nil {
		return agreement{}, err
	}
	if !h.verify(st.Proof, "dialler", helloMsg, welcomeMsg) {
		return agreement{}, h.refuse("%s has not proved that it knows the secret", claimed)
	}
	if err := h.m.checkRealm(his.Realm); err != nil { // told only to a proven peer
		return agreement{}, h.refuse("%v", err)
	}
	peer.attempt = his.Attempt
	if err := check(peer); err != nil {
		return agreement{}, h.refuse("%v", err)
	}
	skew := time.Duration(his.UnixMicros-w.UnixMicros) * time.Microsecond
	_, err = h.send(&step{Ready: true})
	return agreement{peer, w.Features, skew}, err
}

// checkPeer checks what an end says about itself.
func checkPeer(name, want, instance string, nonce []byte, maxMessage, reassembly, window uint32) (peerParams, error) {
	p := peerParams{name: name, instance: instance, maxMessage: int(maxMessage), reassembly: int(reassembly), window: int(window)}
	switch {
	case name != want:
		return p, fmt.Errorf("%w: peer says it is %q, expected %q", errRefused, clip(name), want)
	case len(instance) != instanceLen || len(nonce) != nonceLen:
		return p, fmt.Errorf("%w: malformed instance or nonce", errProtocol)
	case window < maxChunkLen || maxMessage < 1 || reassembly < maxMessage || reassembly > 1<<31-1:
		return p, fmt.Errorf("%w: limits out of range", errProtocol)
	}
	return p, nil
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

func newMaskKey() (key [4]byte) {
	for key == [4]byte{} {
		rand.Read(key[:])
	}
	return key
}
