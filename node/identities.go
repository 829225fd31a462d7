package node

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gridloom/gridloom/node/api"
	"github.com/gridloom/gridloom/node/control"
	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

const (
	// touchEvery is how often a node notes when keys were used.
	touchEvery = time.Minute
	// touchTimeout bounds one such note.
	touchTimeout = 30 * time.Second
	// seenTimeout is how long a change is waited for to be in effect here, and
	// seenEvery how often that is looked at.
	seenTimeout = 2 * time.Second
	seenEvery   = 2 * time.Millisecond
)

// identities keeps users and keys in the index, and notes there when keys were
// used. It implements api.Identities.
type identities struct {
	index      control.Index
	deployment func() string
	gate       *iam.Gate
	log        *slog.Logger

	noted map[string]int64 // run's: when keys were used, as far as the index knows it from here
}

func newIdentities(index control.Index, deployment func() string, gate *iam.Gate, log *slog.Logger) *identities {
	return &identities{index: index, deployment: deployment, gate: gate, log: log}
}

// Deployment implements api.Identities.
func (i *identities) Deployment() string { return i.deployment() }

// IssueToken implements api.Identities.
func (i *identities) IssueToken(p iam.Principal, grants []iam.Grant, ttl time.Duration) (string, time.Time, error) {
	token, expires, err := i.gate.IssueToken(p, grants, ttl, time.Now())
	return token, expires, api.IdentityFault(err)
}

// CreateUser implements api.Identities.
func (i *identities) CreateUser(ctx context.Context, u iam.User) (api.UserInfo, error) {
	res, err := i.propose(ctx, &control.Command{PutUser: &control.PutUser{User: u}})
	if err != nil {
		return api.UserInfo{}, err
	}
	u.Created = res.LogTime
	return api.UserInfo{User: u, Revision: res.Revision}, nil
}

// propose carries out a change, and waits a while for it to be in effect here:
// who makes a key can use it.
func (i *identities) propose(ctx context.Context, cmd *control.Command) (*control.Result, error) {
	cmd.Version = control.CommandVersion
	rand.Read(cmd.RequestID[:]) // never fails
	res, err := i.index.Propose(ctx, cmd)
	if err != nil || res.Revision == 0 {
		return res, err
	}
	ctx, cancel := context.WithTimeout(ctx, seenTimeout)
	defer cancel()
	tick := time.NewTicker(seenEvery)
	defer tick.Stop()
	for {
		if s := i.gate.Snapshot(); s != nil && s.Epoch() >= res.Revision {
			return res, nil
		}
		select {
		case <-ctx.Done(): // it will come: the change is made
			return res, nil
		case <-tick.C:
		}
	}
}

// GetUser implements api.Identities.
func (i *identities) GetUser(ctx context.Context, name string) (api.UserInfo, error) {
	a, err := i.index.Read(ctx, &control.Query{User: &control.UserQuery{Name: name}})
	if err != nil {
		return api.UserInfo{}, err
	}
	return userInfo(&a.Users[0]), nil
}

func userInfo(row *control.UserRow) api.UserInfo {
	return api.UserInfo{User: row.User, Revision: row.Revision}
}

// ListUsers implements api.Identities.
func (i *identities) ListUsers(ctx context.Context, after string, limit int) (users []api.UserInfo, next string, err error) {
	a, err := i.index.Read(ctx, &control.Query{Users: &control.UsersQuery{After: after, Limit: limit}})
	if err != nil {
		return nil, "", err
	}
	for j := range a.Users {
		users = append(users, userInfo(&a.Users[j]))
	}
	return users, a.Next, nil
}

// UpdateUser implements api.Identities.
func (i *identities) UpdateUser(ctx context.Context, u iam.User, revision uint64) (api.UserInfo, error) {
	res, err := i.propose(ctx, &control.Command{UpdateUser: &control.UpdateUser{
		Name: u.Name, Revision: revision, Disabled: u.Disabled, Grants: u.Grants, Certificates: u.Certificates,
	}})
	if err != nil {
		return api.UserInfo{}, err
	}
	if now, err := i.GetUser(ctx, u.Name); err == nil {
		return now, nil
	}
	return api.UserInfo{User: u, Revision: res.Revision}, nil // it is done, whatever became of it since
}

// DeleteUser implements api.Identities.
func (i *identities) DeleteUser(ctx context.Context, name string, revision uint64) error {
	_, err := i.propose(ctx, &control.Command{DeleteUser: &control.DeleteUser{Name: name, Revision: revision}})
	return err
}

// CreateKey implements api.Identities. What the index is told of the secret is
// sealed; the credential is nowhere but in the answer.
func (i *identities) CreateKey(ctx context.Context, k iam.Key) (api.KeyInfo, iam.Credential, error) {
	none := iam.Credential{}
	if err := i.awaitMaster(ctx); err != nil {
		return api.KeyInfo{}, none, err
	}
	credential := iam.Generate(iam.NewKeyID())
	sealed, err := i.gate.SealKey(credential, k.User)
	if err != nil {
		return api.KeyInfo{}, none, api.IdentityFault(err)
	}
	k.ID, k.Sealed = credential.ID, sealed
	res, err := i.propose(ctx, &control.Command{PutKey: &control.PutKey{Key: k}})
	if err != nil {
		return api.KeyInfo{}, none, err
	}
	k.Created, k.Sealed = res.LogTime, nil
	return api.KeyInfo{Key: k, Revision: res.Revision}, credential, nil
}

// awaitMaster waits for users and keys to be known here, as a request waits for
// the node: the root key gets in before they are.
func (i *identities) awaitMaster(ctx context.Context) error {
	patience, cancel := context.WithTimeout(ctx, fault.Patience(ctx, requestPatience))
	defer cancel()
	select {
	case <-i.gate.Ready():
		return nil
	case <-patience.Done():
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return api.IdentityFault(iam.ErrNotReady)
}

// GetKey implements api.Identities.
func (i *identities) GetKey(ctx context.Context, id string) (api.KeyInfo, error) {
	a, err := i.index.Read(ctx, &control.Query{Key: &control.KeyQuery{ID: id}})
	if err != nil {
		return api.KeyInfo{}, err
	}
	return keyInfo(&a.Keys[0]), nil
}

func keyInfo(row *control.KeyRow) api.KeyInfo {
	k := row.Key
	k.Sealed = nil
	return api.KeyInfo{Key: k, Revision: row.Revision}
}

// ListKeys implements api.Identities.
func (i *identities) ListKeys(ctx context.Context, user, after string, limit int) (keys []api.KeyInfo, next string, err error) {
	a, err := i.index.Read(ctx, &control.Query{Keys: &control.KeysQuery{User: user, After: after, Limit: limit}})
	if err != nil {
		return nil, "", err
	}
	for j := range a.Keys {
		keys = append(keys, keyInfo(&a.Keys[j]))
	}
	return keys, a.Next, nil
}

// UpdateKey implements api.Identities.
func (i *identities) UpdateKey(ctx context.Context, k iam.Key, revision uint64) (api.KeyInfo, error) {
	res, err := i.propose(ctx, &control.Command{UpdateKey: &control.UpdateKey{
		ID: k.ID, Revision: revision, Disabled: k.Disabled, Grants: k.Grants, Expires: k.Expires, Comment: k.Comment,
	}})
	if err != nil {
		return api.KeyInfo{}, err
	}
	if now, err := i.GetKey(ctx, k.ID); err == nil {
		return now, nil
	}
	return api.KeyInfo{Key: k, Revision: res.Revision}, nil // as in UpdateUser
}

// DeleteKey implements api.Identities.
func (i *identities) DeleteKey(ctx context.Context, id string, revision uint64) error {
	_, err := i.propose(ctx, &control.Command{DeleteKey: &control.DeleteKey{ID: id, Revision: revision}})
	return err
}

// run notes in the index, once a minute, when keys were used. It ends with ctx,
// which is no error.
func (i *identities) run(ctx context.Context) error {
	tick := time.NewTicker(touchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := i.touch(ctx, i.gate.Used()); err != nil && ctx.Err() == nil {
			i.log.Debug("it isn't noted yet when keys were used", "error", err)
		}
	}
}

// touch notes what has changed of used since the last time in one command, of
// control.MaxTouches keys at most. Of more, those go first that have waited
// longest, and the rest has its turn later.
func (i *identities) touch(ctx context.Context, used map[string]int64) error {
	maps.DeleteFunc(i.noted, func(id string, _ int64) bool { return used[id] == 0 }) // it is gone
	var touches []control.Touch
	for id, at := range used {
		if at > i.noted[id] {
			touches = append(touches, control.Touch{ID: id, At: at})
		}
	}
	if len(touches) == 0 {
		return nil
	}
	slices.SortFunc(touches, func(a, b control.Touch) int {
		return cmp.Or(cmp.Compare(i.noted[a.ID], i.noted[b.ID]), strings.Compare(a.ID, b.ID))
	})
	touches = touches[:min(len(touches), control.MaxTouches)]
	ctx, cancel := context.WithTimeout(ctx, touchTimeout)
	defer cancel()
	if _, err := i.propose(ctx, &control.Command{TouchKeys: &control.TouchKeys{Keys: touches}}); err != nil {
		return err
	}
	if i.noted == nil {
		i.noted = make(map[string]int64)
	}
	for _, t := range touches {
		i.noted[t.ID] = t.At
	}
	return nil
}
