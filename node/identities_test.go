package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

// openIdentities are those of a mesh of one node, behind a gate that follows
// them.
func openIdentities(t *testing.T) *identities {
	t.Helper()
	secret, err := iam.ParseMeshSecret(iam.NewMeshSecret())
	if err != nil {
		t.Fatal(err)
	}
	gate, secrets := iam.NewGate(func() time.Duration { return 0 }), [][]byte{secret}
	index, err := control.Open(t.Context(), control.Options{
		Dir: t.TempDir(), Self: "a", MeshSecrets: func() [][]byte { return secrets },
		Hooks: control.Hooks{IAM: func(rows *iam.Rows) {
			master, err := iam.OpenMaster(rows.Boxes, secrets)
			if err != nil {
				return // there is none yet
			}
			s, err := iam.NewSnapshot(rows, master)
			if err != nil {
				t.Error(err)
				return
			}
			gate.SetSnapshot(time.Now(), s)
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = index.Close() })
	if err := index.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	gate.SetDeployment(index.Deployment())
	return newIdentities(index, index.Deployment, gate, slog.New(slog.DiscardHandler))
}

// came is who comes with a credential.
func (i *identities) came(c iam.Credential) (iam.Principal, error) {
	return i.gate.Verify(iam.Request{Authorization: "Bearer " + c.String(), Now: time.Now()})
}

func wantKind(t *testing.T, what string, err error, kind fault.Kind) {
	t.Helper()
	if err == nil || fault.KindOf(err) != kind {
		t.Errorf("%s: %v, want %v", what, err, kind)
	}
}

func TestIdentities(t *testing.T) {
	i, ctx := openIdentities(t), t.Context()
	all := []iam.Grant{{Role: iam.ReadWrite, Bucket: "photos"}}
	ann, err := i.CreateUser(ctx, iam.User{Name: "ann", Grants: all})
	if err != nil || ann.Revision == 0 || ann.Created == 0 {
		t.Fatalf("%+v, %v", ann, err)
	}
	key, credential, err := i.CreateKey(ctx, iam.Key{User: "ann", Comment: "c"})
	if err != nil || key.ID != credential.ID || key.Sealed != nil || key.Revision == 0 || key.Created == 0 {
		t.Fatalf("%+v, %v", key, err)
	}
	// It is good at once, here.
	p, err := i.came(credential)
	if err != nil || p.User != "ann" || p.ID != key.ID || !iam.Allowed(p, iam.ObjectWrite, "photos", "a") {
		t.Errorf("%+v, %v", p, err)
	}
	token, _, err := i.IssueToken(p, nil, time.Minute)
	if err != nil || strings.Count(token, ".") != 2 {
		t.Errorf("%v", err)
	}
	_, _, err = i.IssueToken(p, nil, time.Hour)
	wantKind(t, "a token for an hour", err, fault.InvalidArgument)
	_, _, err = i.IssueToken(iam.Principal{}, nil, time.Minute)
	wantKind(t, "a token for nobody", err, fault.PermissionDenied)

	other, _, err := i.CreateKey(ctx, iam.Key{User: "ann", Service: true, Grants: all})
	if err != nil || other.ID == key.ID {
		t.Errorf("%+v, %v", other, err)
	}
	keys, next, err := i.ListKeys(ctx, "ann", "", 1)
	if err != nil || len(keys) != 1 || next != keys[0].ID || keys[0].Sealed != nil {
		t.Errorf("%+v, %q, %v", keys, next, err)
	}
	rest, next, err := i.ListKeys(ctx, "", next, 1)
	if err != nil || len(rest) != 1 || next != "" || rest[0].ID <= keys[0].ID {
		t.Errorf("%+v, %q, %v", rest, next, err)
	}
	users, next, err := i.ListUsers(ctx, "", 10)
	if err != nil || len(users) != 1 || next != "" || users[0].Revision != ann.Revision {
		t.Errorf("%+v, %q, %v", users, next, err)
	}

	// A change is in effect here when it is answered.
	set, err := i.UpdateKey(ctx, iam.Key{ID: key.ID, Disabled: true, Comment: "d"}, key.Revision)
	if err != nil || !set.Disabled || set.Comment != "d" || set.User != "ann" || set.Sealed != nil || set.Revision == key.Revision {
		t.Errorf("%+v, %v", set, err)
	}
	if _, err := i.came(credential); !errors.Is(err, iam.ErrUnauthenticated) {
		t.Errorf("with a disabled key: %v", err)
	}
	_, err = i.UpdateKey(ctx, iam.Key{ID: key.ID}, key.Revision)
	wantKind(t, "another revision", err, fault.PreconditionFailed)
	if _, err = i.UpdateKey(ctx, iam.Key{ID: key.ID}, set.Revision); err != nil {
		t.Error(err)
	}
	changed, err := i.UpdateUser(ctx, iam.User{Name: "ann", Disabled: true}, ann.Revision)
	if err != nil || !changed.Disabled || changed.Grants != nil || changed.Created != ann.Created {
		t.Errorf("%+v, %v", changed, err)
	}
	if _, err := i.came(credential); !errors.Is(err, iam.ErrUnauthenticated) {
		t.Errorf("with the key of a disabled user: %v", err)
	}
	if err := i.DeleteKey(ctx, other.ID, 0); err != nil {
		t.Error(err)
	}
	_, err = i.GetKey(ctx, other.ID)
	wantKind(t, "a key that is gone", err, fault.NotFound)
	wantKind(t, "another revision", i.DeleteUser(ctx, "ann", ann.Revision), fault.PreconditionFailed)
	if err := i.DeleteUser(ctx, "ann", 0); err != nil {
		t.Error(err)
	}
	_, err = i.GetKey(ctx, key.ID)
	wantKind(t, "the key of a user that is gone", err, fault.NotFound)
	_, _, err = i.CreateKey(ctx, iam.Key{User: "ann"})
	wantKind(t, "a key for nobody", err, fault.NotFound)
	_, err = i.CreateUser(ctx, iam.User{Name: "root"})
	wantKind(t, "a user root", err, fault.InvalidArgument)
}

// TestKeysWaitForTheMaster: there is no key before the mesh's master is known,
// and till then it is a wait.
func TestKeysWaitForTheMaster(t *testing.T) {
	i := newIdentities(nil, func() string { return "" }, iam.NewGate(nil), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, _, err := i.CreateKey(ctx, iam.Key{User: "ann"})
	wantKind(t, "not ready", err, fault.Waiting)
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	_, _, err = i.CreateKey(ctx, iam.Key{User: "ann"})
	wantKind(t, "gone", err, fault.Canceled)
}

func TestTouch(t *testing.T) {
	i, ctx := openIdentities(t), t.Context()
	if _, err := i.CreateUser(ctx, iam.User{Name: "ann"}); err != nil {
		t.Fatal(err)
	}
	key, credential, err := i.CreateKey(ctx, iam.Key{User: "ann"})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.touch(ctx, i.gate.Used()); err != nil {
		t.Fatal(err)
	}
	if k, err := i.GetKey(ctx, key.ID); err != nil || k.LastUsed != 0 {
		t.Errorf("%+v, %v: it hasn't been used", k, err)
	}
	if _, err := i.came(credential); err != nil {
		t.Fatal(err)
	}
	if err := i.touch(ctx, i.gate.Used()); err != nil {
		t.Fatal(err)
	}
	k, err := i.GetKey(ctx, key.ID)
	if err != nil || time.Since(time.Unix(0, k.LastUsed)) > time.Minute || k.Revision != key.Revision {
		t.Errorf("%+v, %v", k, err)
	}
}

// touchIndex remembers what is noted.
type touchIndex struct {
	control.Index
	notes  [][]control.Touch
	refuse error
}

func (x *touchIndex) Propose(_ context.Context, cmd *control.Command) (*control.Result, error) {
	x.notes = append(x.notes, cmd.TouchKeys.Keys)
	return &control.Result{}, x.refuse
}

// TestTouchIsBounded: one command at a time, of so many keys, and nothing twice.
func TestTouchIsBounded(t *testing.T) {
	x := &touchIndex{}
	i := newIdentities(x, nil, nil, slog.New(slog.DiscardHandler))
	used := map[string]int64{}
	for n := range control.MaxTouches + 500 {
		used[fmt.Sprintf("k%04d", n)] = int64(n + 1)
	}
	touch := func(want int) []control.Touch {
		t.Helper()
		before := len(x.notes)
		if err := i.touch(t.Context(), used); !errors.Is(err, x.refuse) {
			t.Fatal(err)
		}
		if want == 0 {
			if len(x.notes) != before {
				t.Errorf("noted %d keys, of which nothing is new", len(x.notes[before]))
			}
			return nil
		}
		if len(x.notes) != before+1 || len(x.notes[before]) != want {
			t.Fatalf("noted %d times, want once, %d keys", len(x.notes)-before, want)
		}
		return x.notes[before]
	}
	x.refuse = errors.New("the index is away")
	touch(control.MaxTouches)
	x.refuse = nil
	touch(control.MaxTouches)
	// Those that have waited go before those that are known already.
	used["k0000"] = 5000
	if next := touch(501); next[len(next)-1].ID != "k0000" || next[0].ID != fmt.Sprintf("k%04d", control.MaxTouches) {
		t.Errorf("from %v to %v", next[0], next[len(next)-1])
	}
	touch(0)
	delete(used, "k0001")
	touch(0)
	if _, there := i.noted["k0001"]; there || len(i.noted) != len(used) {
		t.Errorf("%d keys are remembered, and there are %d", len(i.noted), len(used))
	}
}

// TestUnreadableRows: users and keys that can't be read are no reason to go on
// with older ones, among whom somebody may have been shut out since.
func TestUnreadableRows(t *testing.T) {
	secrets := [2][]byte{}
	for i := range secrets {
		var err error
		if secrets[i], err = iam.ParseMeshSecret(iam.NewMeshSecret()); err != nil {
			t.Fatal(err)
		}
	}
	n := &Node{cfg: Config{MeshSecrets: func() [][]byte { return secrets[:1] }}, gate: iam.NewGate(func() time.Duration { return 0 })}
	n.gate.SetDeployment("d")
	master, key := iam.NewMaster(), iam.Generate("k")
	rows := &iam.Rows{
		Epoch: 1, Boxes: []iam.Box{master.Seal(secrets[0])}, Users: []iam.User{{Name: "eve"}},
		Keys: []iam.Key{{ID: "k", User: "eve", Sealed: master.SealKey(key, "eve")}},
	}
	come := func() error {
		_, err := n.gate.Verify(iam.Request{Authorization: "Bearer " + key.String(), Now: time.Now()})
		return err
	}
	if err := errors.Join(n.takeOver(rows), come()); err != nil {
		t.Fatal(err)
	}
	shut := &iam.Rows{Epoch: 2, Boxes: []iam.Box{master.Seal(secrets[1])}, Users: rows.Users}
	if err := n.takeOver(shut); !errors.Is(err, iam.ErrMaster) {
		t.Errorf("taking over what another secret opens: %v", err)
	}
	if err := come(); !errors.Is(err, iam.ErrNotReady) {
		t.Errorf("who has been shut out comes: %v", err)
	}
	if err := errors.Join(n.takeOver(rows), come()); err != nil {
		t.Errorf("once they can be read: %v", err)
	}
}
