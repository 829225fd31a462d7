package iam

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

const testMesh = "0b6e4f2c-mesh"

// world is a gate with users and keys to try it with.
type world struct {
	gate   *Gate
	root   Credential
	master Master
	rows   Rows
	keys   map[string]Credential // by id
	now    time.Time
	age    time.Duration // of the snapshot's rows
}

// newWorld has alice, who may do everything with photos, and bob, who reads
// what is below photos/2026/ and whom the certificate bob.example stands for.
// Each has a key by their name, and alice has a service key that reads.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{root: Generate(RootID), master: NewMaster(), keys: map[string]Credential{}, now: time.Unix(1_800_000_000, 0)}
	w.gate = NewGate(func() time.Duration { return w.age })
	if err := w.gate.SetRoots(w.root); err != nil {
		t.Fatal(err)
	}
	w.gate.SetDeployment(testMesh)
	w.rows.Users = []User{
		{Name: "alice", Grants: []Grant{{Role: Admin, Bucket: "photos"}}},
		{Name: "bob", Grants: []Grant{{Role: ReadOnly, Bucket: "photos", Prefix: "2026/"}}, Certificates: []string{"bob.example"}},
	}
	w.addKey(Key{ID: "alice", User: "alice"})
	w.addKey(Key{ID: "bob", User: "bob"})
	w.addKey(Key{ID: "alice-reads", User: "alice", Service: true, Grants: []Grant{{Role: ReadOnly, Bucket: AllBuckets}}})
	w.publish(t)
	return w
}

// addKey makes the credential of a key too.
func (w *world) addKey(k Key) {
	c := Generate(k.ID)
	k.Sealed, k.Created = w.master.SealKey(c, k.User), 1
	w.keys[k.ID] = c
	w.rows.Keys = append(w.rows.Keys, k)
}

// key finds a key's row, to be changed before publish.
func (w *world) key(id string) *Key {
	return &w.rows.Keys[slices.IndexFunc(w.rows.Keys, func(k Key) bool { return k.ID == id })]
}

func (w *world) user(name string) *User {
	return &w.rows.Users[slices.IndexFunc(w.rows.Users, func(u User) bool { return u.Name == name })]
}

// publish gives the gate a snapshot of the rows, which may be changed then.
func (w *world) publish(t testing.TB) {
	t.Helper()
	w.rows.Epoch++
	rows := &Rows{Epoch: w.rows.Epoch, Users: slices.Clone(w.rows.Users), Keys: slices.Clone(w.rows.Keys)}
	s, err := NewSnapshot(rows, w.master)
	if err != nil {
		t.Fatal(err)
	}
	w.gate.SetSnapshot(w.now, s)
}

func (w *world) bearer(credential string) (Principal, error) {
	return w.gate.Verify(Request{Authorization: "Bearer " + credential, Addr: "10.0.0.7:41000", Door: "http", Now: w.now})
}

func (w *world) mustBearer(t testing.TB, credential string) Principal {
	t.Helper()
	p, err := w.bearer(credential)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// refused checks that an error is of its kind and says what it should, and that
// nobody came of it.
func refused(t *testing.T, p Principal, err, kind error, want string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), want) || p != (Principal{}) {
		t.Errorf("got %+v, %v; want %v with %q", p, err, kind, want)
	}
	for _, other := range []error{ErrUnauthenticated, ErrPermissionDenied, ErrNotReady, ErrStale} {
		if other != kind && errors.Is(err, other) {
			t.Errorf("%v is %v too", err, other)
		}
	}
}

func TestRootKey(t *testing.T) {
	w := newWorld(t)
	empty := NewGate(nil) // the root key needs no copy of anything
	if err := empty.SetRoots(Generate(RootID), w.root); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*Gate{w.gate, empty} {
		for _, h := range []string{"Bearer " + w.root.String(), "bearer " + w.root.String(), "BEARER  " + w.root.String() + " "} {
			p, err := g.Verify(Request{Authorization: h, Addr: "10.0.0.7:41000", Door: "grpc", Certificate: []string{"bob.example"}, Now: w.now})
			if err != nil || p.ID != RootID || p.User != RootID || !p.Root || p.Via != ViaRoot || p.Addr != "10.0.0.7:41000" || p.Door != "grpc" {
				t.Errorf("%+v, %v", p, err)
			}
		}
	}
	// Nobody gets in without a root key, and no other key is one.
	if err := w.gate.SetRoots(); err != nil {
		t.Fatal(err)
	}
	p, err := w.bearer(w.root.String())
	refused(t, p, err, ErrUnauthenticated, "isn't valid here")
	for _, c := range []Credential{{}, w.keys["alice"]} {
		if err := w.gate.SetRoots(w.root, c); !errors.Is(err, ErrCredential) {
			t.Errorf("%v became a root key: %v", c, err)
		}
	}
	// The same secret under another id is another key.
	for _, c := range []Credential{{ID: RootID, secret: w.keys["alice"].secret}, {ID: "alice", secret: w.root.secret}, {ID: "bob", secret: w.keys["alice"].secret}} {
		p, err := w.bearer(c.String())
		refused(t, p, err, ErrUnauthenticated, "isn't valid here")
	}
}

func TestBearerKey(t *testing.T) {
	w := newWorld(t)
	w.key("alice").Expires = w.now.Add(time.Hour).UnixNano()
	w.publish(t)
	p := w.mustBearer(t, w.keys["alice"].String())
	if p.ID != "alice" || p.User != "alice" || p.Root || p.Service || p.Via != ViaKey || !p.ExpiresAt.Equal(w.now.Add(time.Hour)) {
		t.Errorf("%+v", p)
	}
	if p := w.mustBearer(t, w.keys["alice-reads"].String()); p.User != "alice" || !p.Service || !p.ExpiresAt.IsZero() {
		t.Errorf("%+v", p)
	}
}

// TestRefusals is every way not to get in with a header or a certificate.
func TestRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(w *world) // of the rows or the time, before
		header func(w *world) string
		names  []string
		kind   error
		want   string
	}{
		"nothing":          {kind: ErrUnauthenticated, want: "no credential"},
		"no scheme":        {header: func(w *world) string { return w.keys["bob"].String() }, kind: ErrUnauthenticated, want: "of the form Bearer"},
		"basic":            {header: func(w *world) string { return "Basic " + w.keys["bob"].String() }, kind: ErrUnauthenticated, want: "of the form Bearer"},
		"scheme alone":     {header: func(*world) string { return "Bearer" }, kind: ErrUnauthenticated, want: "empty"},
		"mistyped":         {header: func(w *world) string { return "Bearer " + w.keys["bob"].String() + "x" }, kind: ErrUnauthenticated, want: "check"},
		"too long":         {header: func(*world) string { return "Bearer " + strings.Repeat("x", maxAuthorizationBytes) }, kind: ErrUnauthenticated, want: "over 8192 bytes"},
		"unknown id":       {header: func(*world) string { return "Bearer " + Generate("carol").String() }, kind: ErrUnauthenticated, want: "isn't valid here"},
		"the decoy's id":   {header: func(*world) string { return "Bearer " + Generate("none").String() }, kind: ErrUnauthenticated, want: "isn't valid here"},
		"wrong secret":     {header: func(*world) string { return "Bearer " + Generate("bob").String() }, kind: ErrUnauthenticated, want: "isn't valid here"},
		"other root":       {header: func(*world) string { return "Bearer " + Generate(RootID).String() }, kind: ErrUnauthenticated, want: "isn't valid here"},
		"expired":          {change: func(w *world) { w.key("bob").Expires = w.now.UnixNano() }, header: bob, kind: ErrUnauthenticated, want: "the key has expired"},
		"disabled key":     {change: func(w *world) { w.key("bob").Disabled = true }, header: bob, kind: ErrUnauthenticated, want: "the key is disabled"},
		"disabled user":    {change: func(w *world) { w.user("bob").Disabled = true }, header: bob, kind: ErrUnauthenticated, want: "user is disabled"},
		"user gone":        {change: func(w *world) { w.rows.Users = w.rows.Users[:1] }, header: bob, kind: ErrUnauthenticated, want: "user is gone"},
		"revoked":          {change: func(w *world) { w.rows.Keys = w.rows.Keys[:1] }, header: bob, kind: ErrUnauthenticated, want: "isn't valid here"},
		"moved to another": {change: func(w *world) { w.key("bob").User = "alice" }, header: bob, kind: ErrUnauthenticated, want: "isn't valid here"},
		"renamed":          {change: func(w *world) { w.key("bob").Sealed = w.key("alice").Sealed }, header: bob, kind: ErrUnauthenticated, want: "isn't valid here"},
		"damaged row":      {change: func(w *world) { w.key("bob").Sealed = nil }, header: bob, kind: ErrUnauthenticated, want: "isn't valid here"},
		"zero row": {change: func(w *world) { w.key("bob").Sealed = make([]byte, sealedKeyBytes) }, header: bob,
			kind: ErrUnauthenticated, want: "isn't valid here"},
		"stale":             {change: func(w *world) { w.age = MaxAge + 1 }, header: bob, kind: ErrStale},
		"certificate":       {names: []string{"carol.example"}, kind: ErrUnauthenticated, want: "no user"},
		"certificate of 2":  {change: func(w *world) { w.user("alice").Certificates = []string{"a.example"} }, names: []string{"a.example", "bob.example"}, kind: ErrUnauthenticated, want: "more than one"},
		"name of 2":         {change: func(w *world) { w.user("alice").Certificates = []string{"bob.example"} }, names: []string{"bob.example"}, kind: ErrUnauthenticated, want: "more than one"},
		"certificate out":   {change: func(w *world) { w.user("bob").Disabled = true }, names: []string{"bob.example"}, kind: ErrUnauthenticated, want: "disabled"},
		"certificate stale": {change: func(w *world) { w.age = MaxAge + 1 }, names: []string{"bob.example"}, kind: ErrStale},
		"bearer before it":  {header: func(*world) string { return "Bearer x" }, names: []string{"bob.example"}, kind: ErrUnauthenticated, want: "gl_"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if tc.change != nil {
				tc.change(w)
				w.publish(t)
			}
			r := Request{Certificate: tc.names, Now: w.now, Addr: "a", Door: "grpc"}
			if tc.header != nil {
				r.Authorization = tc.header(w)
			}
			p, err := w.gate.Verify(r)
			refused(t, p, err, tc.kind, tc.want)
		})
	}
}

func bob(w *world) string { return "Bearer " + w.keys["bob"].String() }

// TestNotReady: what isn't there yet is a wait for all who depend on it, whether
// they are known or not, and for nobody else.
func TestNotReady(t *testing.T) {
	w := newWorld(t)
	token, _, err := w.gate.IssueToken(w.mustBearer(t, w.keys["bob"].String()), nil, 0, w.now)
	if err != nil {
		t.Fatal(err)
	}
	link := w.link(t, w.keys["bob"], LinkRequest{Method: "GET", Bucket: "photos", Key: "2026/a"})
	g := NewGate(func() time.Duration { return 0 })
	if err := g.SetRoots(w.root); err != nil {
		t.Fatal(err)
	}
	for _, r := range []Request{
		{Authorization: bob(w)},
		{Authorization: "Bearer " + Generate("carol").String()},
		{Authorization: "Bearer " + token},
		{Link: link},
		{Certificate: []string{"bob.example"}},
	} {
		r.Now = w.now
		p, err := g.Verify(r)
		refused(t, p, err, ErrNotReady, "not been read yet")
	}
	p, err := g.Verify(Request{Authorization: "Bearer gl_x", Now: w.now})
	refused(t, p, err, ErrUnauthenticated, "of the form")
	if _, err := g.SealKey(Generate("x"), "bob"); !errors.Is(err, ErrNotReady) {
		t.Errorf("a key was sealed without a master: %v", err)
	}
	if used := g.Used(); used != nil || g.Snapshot() != nil || g.Deployment() != "" {
		t.Errorf("%v %v %q", used, g.Snapshot(), g.Deployment())
	}
	select {
	case <-g.Ready():
		t.Error("ready with nothing")
	default:
	}
	g.SetDeployment(testMesh)
	g.SetSnapshot(w.now, w.gate.Snapshot())
	<-g.Ready()
	if _, err := g.Verify(Request{Authorization: bob(w), Now: w.now}); err != nil {
		t.Error(err)
	}
	if _, err := NewSnapshot(&Rows{}, Master{}); !errors.Is(err, ErrMaster) {
		t.Errorf("a snapshot without a master: %v", err)
	}
	// A gate that isn't told how old its copy is relies on none.
	blind := NewGate(nil)
	blind.SetDeployment(testMesh)
	blind.SetSnapshot(w.now, w.gate.Snapshot())
	p, err = blind.Verify(Request{Authorization: bob(w), Now: w.now})
	refused(t, p, err, ErrStale, "")
}

// TestStaleAt is the boundary: ten minutes are fine, more are not.
func TestStaleAt(t *testing.T) {
	w := newWorld(t)
	w.age = MaxAge
	w.mustBearer(t, w.keys["bob"].String())
	w.age = MaxAge + 1
	p, err := w.bearer(w.keys["bob"].String())
	refused(t, p, err, ErrStale, "")
	w.mustBearer(t, w.root.String())
}

func TestCertificate(t *testing.T) {
	w := newWorld(t)
	w.user("bob").Certificates = append(w.user("bob").Certificates, "bob@example")
	w.publish(t)
	p, err := w.gate.Verify(Request{Certificate: []string{"x", "bob@example", "bob.example"}, Addr: "a", Door: "grpc", Now: w.now})
	if err != nil || p.ID != "" || p.User != "bob" || p.Via != ViaCertificate || p.Name() != "bob" {
		t.Fatalf("%+v, %v", p, err)
	}
	if err := Authorize(p, ObjectRead, "photos", "2026/a"); err != nil {
		t.Error(err)
	}
	if err := Authorize(p, ObjectRead, "photos", "2025/a"); err == nil || !strings.Contains(err.Error(), "bob may not") {
		t.Error(err)
	}
}

// TestUsed: the last use of a key is kept to the minute, also over changes, until
// it is written down.
func TestUsed(t *testing.T) {
	w := newWorld(t)
	if used := w.gate.Used(); len(used) != 0 {
		t.Fatalf("%v", used)
	}
	first := w.now
	w.mustBearer(t, w.keys["bob"].String())
	w.now = w.now.Add(59 * time.Second)
	w.mustBearer(t, w.keys["bob"].String())
	if _, err := w.bearer(Generate("alice").String()); err == nil {
		t.Fatal("a wrong secret got in")
	}
	w.publish(t)
	if used := w.gate.Used(); len(used) != 1 || used["bob"] != first.UnixNano() {
		t.Errorf("%v", used)
	}
	w.now = first.Add(time.Minute)
	w.mustBearer(t, w.keys["bob"].String())
	if used := w.gate.Used(); used["bob"] != w.now.UnixNano() {
		t.Errorf("%v", used)
	}
	w.key("bob").LastUsed = w.now.UnixNano()
	w.publish(t)
	if used := w.gate.Used(); len(used) != 0 {
		t.Errorf("it was written, and is still there: %v", used)
	}
}

// TestSameWork: for an id that isn't there the same is done as for one that is.
func TestSameWork(t *testing.T) {
	w := newWorld(t)
	s := w.gate.Snapshot()
	opened, open := 0, s.open
	s.open = func(dst, sealed, context []byte) ([]byte, error) {
		opened++
		if len(sealed) != sealedKeyBytes {
			t.Errorf("%d bytes to open", len(sealed))
		}
		return open(dst, sealed, context)
	}
	var messages []string
	for _, id := range []string{"alice", "carol"} {
		_, byKey := w.bearer(Generate(id).String())
		_, byLink := w.gate.Verify(Request{Link: w.link(t, Generate(id), LinkRequest{Method: "GET", Bucket: "photos", Key: "a"}), Now: w.now})
		if byKey == nil || byLink == nil {
			t.Fatalf("%s got in", id)
		}
		messages = append(messages, byKey.Error()+byLink.Error())
	}
	if opened != 4 || messages[0] != messages[1] {
		t.Errorf("opened %d times; %q", opened, messages)
	}
}
