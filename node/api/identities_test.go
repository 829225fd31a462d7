package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

// keeper is Identities in memory, behind a gate that knows of every change at
// once.
type keeper struct {
	gate   *iam.Gate
	master iam.Master

	mu       sync.Mutex // guards what follows
	revision uint64
	users    map[string]UserInfo
	keys     map[string]KeyInfo // Sealed, too
}

const testDeployment = "11111111-2222-4333-8444-555555555555"

// newKeeper makes one that lets the root key in.
func newKeeper(t testing.TB, root iam.Credential) *keeper {
	t.Helper()
	k := &keeper{
		gate: iam.NewGate(func() time.Duration { return 0 }), master: iam.NewMaster(),
		users: map[string]UserInfo{}, keys: map[string]KeyInfo{},
	}
	if err := k.gate.SetRoots(root); err != nil {
		t.Fatal(err)
	}
	k.gate.SetDeployment(testDeployment)
	if err := k.publish(); err != nil {
		t.Fatal(err)
	}
	return k
}

// publish shows the gate what there is. It is called under mu.
func (k *keeper) publish() error {
	rows := &iam.Rows{Epoch: k.revision}
	for _, name := range slices.Sorted(maps.Keys(k.users)) {
		rows.Users = append(rows.Users, k.users[name].User)
	}
	for _, id := range slices.Sorted(maps.Keys(k.keys)) {
		rows.Keys = append(rows.Keys, k.keys[id].Key)
	}
	s, err := iam.NewSnapshot(rows, k.master)
	if err == nil {
		k.gate.SetSnapshot(time.Now(), s)
	}
	return err
}

func (k *keeper) Deployment() string { return testDeployment }

func (k *keeper) IssueToken(p iam.Principal, grants []iam.Grant, ttl time.Duration) (string, time.Time, error) {
	token, expires, err := k.gate.IssueToken(p, grants, ttl, time.Now())
	if errors.Is(err, iam.ErrPermissionDenied) {
		err = fault.Wrap(fault.PermissionDenied, "", err)
	}
	return token, expires, fieldFault(err)
}

func find[T any](all map[string]T, kind, name string, want uint64, have func(T) uint64) (T, error) {
	row, ok := all[name]
	subject := fmt.Sprintf("%s %q", kind, name)
	if !ok {
		return row, fault.New(fault.NotFound, subject, "doesn't exist")
	}
	if want != 0 && want != have(row) {
		return row, fault.New(fault.PreconditionFailed, subject, "has been changed")
	}
	return row, nil
}

func (k *keeper) findUser(name string, revision uint64) (UserInfo, error) {
	return find(k.users, "user", name, revision, func(u UserInfo) uint64 { return u.Revision })
}

func (k *keeper) findKey(id string, revision uint64) (KeyInfo, error) {
	return find(k.keys, "key", id, revision, func(i KeyInfo) uint64 { return i.Revision })
}

func (k *keeper) CreateUser(_ context.Context, u iam.User) (UserInfo, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := u.Validate(); err != nil {
		return UserInfo{}, fieldFault(err)
	}
	if _, there := k.users[u.Name]; there {
		return UserInfo{}, fault.New(fault.AlreadyExists, "user", "exists already")
	}
	k.revision++
	u.Created = int64(k.revision) * 1e9
	k.users[u.Name] = UserInfo{u, k.revision}
	return k.users[u.Name], k.publish()
}

func (k *keeper) GetUser(_ context.Context, name string) (UserInfo, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.findUser(name, 0)
}

func (k *keeper) ListUsers(_ context.Context, after string, limit int) (users []UserInfo, next string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(k.users)) {
		if name <= after {
			continue
		}
		if len(users) == limit {
			return users, users[limit-1].Name, nil
		}
		users = append(users, k.users[name])
	}
	return users, "", nil
}

func (k *keeper) UpdateUser(_ context.Context, u iam.User, revision uint64) (UserInfo, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	old, err := k.findUser(u.Name, revision)
	if err != nil {
		return UserInfo{}, err
	}
	k.revision++
	u.Created = old.Created
	k.users[u.Name] = UserInfo{u, k.revision}
	return k.users[u.Name], k.publish()
}

func (k *keeper) DeleteUser(_ context.Context, name string, revision uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.findUser(name, revision); err != nil {
		return err
	}
	delete(k.users, name)
	maps.DeleteFunc(k.keys, func(_ string, i KeyInfo) bool { return i.User == name })
	return k.publish()
}

func (k *keeper) CreateKey(_ context.Context, key iam.Key) (KeyInfo, iam.Credential, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.findUser(key.User, 0); err != nil {
		return KeyInfo{}, iam.Credential{}, err
	}
	k.revision++
	c := iam.Generate(fmt.Sprintf("key-%03d", k.revision))
	key.ID, key.Created, key.Sealed = c.ID, int64(k.revision)*1e9, k.master.SealKey(c, key.User)
	if err := key.Validate(); err != nil {
		return KeyInfo{}, iam.Credential{}, fieldFault(err)
	}
	k.keys[c.ID] = KeyInfo{key, k.revision}
	return k.keys[c.ID], c, k.publish()
}

func (k *keeper) GetKey(_ context.Context, id string) (KeyInfo, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.findKey(id, 0)
}

func (k *keeper) ListKeys(_ context.Context, user, after string, limit int) (keys []KeyInfo, next string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(k.keys)) {
		if id <= after || user != "" && k.keys[id].User != user {
			continue
		}
		if len(keys) == limit {
			return keys, keys[limit-1].ID, nil
		}
		keys = append(keys, k.keys[id])
	}
	return keys, "", nil
}

func (k *keeper) UpdateKey(_ context.Context, key iam.Key, revision uint64) (KeyInfo, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now, err := k.findKey(key.ID, revision)
	if err != nil {
		return KeyInfo{}, err
	}
	k.revision++
	now.Revision, now.Disabled, now.Grants, now.Expires, now.Comment = k.revision, key.Disabled, key.Grants, key.Expires, key.Comment
	k.keys[key.ID] = now
	return now, k.publish()
}

func (k *keeper) DeleteKey(_ context.Context, id string, revision uint64) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.findKey(id, revision); err != nil {
		return err
	}
	delete(k.keys, id)
	return k.publish()
}

// grants reads grants in their text form.
func grants(texts ...string) []iam.Grant {
	out := make([]iam.Grant, len(texts))
	for i, text := range texts {
		out[i] = must(iam.ParseGrant(text))
	}
	return out
}

// user makes a user with a key, of which it returns the credential.
func (k *keeper) user(t testing.TB, name string, texts ...string) string {
	t.Helper()
	must(k.CreateUser(t.Context(), iam.User{Name: name, Grants: grants(texts...)}))
	_, c, err := k.CreateKey(t.Context(), iam.Key{User: name})
	if err != nil {
		t.Fatal(err)
	}
	return c.String()
}

// service makes a service key of a user.
func (k *keeper) service(t testing.TB, user string, texts ...string) string {
	t.Helper()
	_, c, err := k.CreateKey(t.Context(), iam.Key{User: user, Service: true, Grants: grants(texts...)})
	if err != nil {
		t.Fatal(err)
	}
	return c.String()
}

// principal is who comes with a key or a token.
func (k *keeper) principal(bearer string) iam.Principal {
	return must(k.gate.Verify(iam.Request{Authorization: "Bearer " + bearer, Now: time.Now()}))
}

// token makes a token for who comes with a key.
func (k *keeper) token(t testing.TB, bearer string, texts ...string) string {
	t.Helper()
	token, _, err := k.IssueToken(k.principal(bearer), grants(texts...), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// as is a connection of who comes with a key or a token.
func (s *served) as(t testing.TB, bearer string) *grpc.ClientConn {
	t.Helper()
	return dial(t, s.addr, "Bearer "+bearer)
}
