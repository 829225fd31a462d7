package control

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

// modelIAM is the model's users and keys.
type modelIAM struct {
	epoch       uint64
	users       map[string]UserRow // without Keys
	keys        map[string]KeyRow
	used        map[string]int64
	boxes       []iam.Box
	boxRevision uint64
}

func newModelIAM() *modelIAM {
	return &modelIAM{users: map[string]UserRow{}, keys: map[string]KeyRow{}, used: map[string]int64{}}
}

// keysOf gives the ids of a user's keys, in order.
func (m *modelIAM) keysOf(user string) (ids []string) {
	for _, id := range slices.Sorted(maps.Keys(m.keys)) {
		if user == "" || m.keys[id].Key.User == user {
			ids = append(ids, id)
		}
	}
	return ids
}

// taken tells whether one of the certificate names is that of another user.
func (m *modelIAM) taken(user string, certificates []string) bool {
	for name, row := range m.users {
		if name != user && slices.ContainsFunc(certificates, func(c string) bool { return slices.Contains(row.User.Certificates, c) }) {
			return true
		}
	}
	return false
}

// executeIAM is execute for what is done to users and keys, and tells whether
// the command is one of those.
func (m *model) executeIAM(c *Command, out *outcome) (kind fault.Kind, is bool) {
	i := m.iam
	switch {
	case c.PutUser != nil:
		kind = i.putUser(c.PutUser, m.applied, m.logTime)
	case c.UpdateUser != nil:
		kind = i.updateUser(c.UpdateUser, m.applied)
	case c.DeleteUser != nil:
		row, ok := i.users[c.DeleteUser.Name]
		if kind = changeable(ok, c.DeleteUser.Revision, row.Revision); kind == 0 {
			for _, id := range i.keysOf(c.DeleteUser.Name) {
				delete(i.keys, id)
				delete(i.used, id)
			}
			delete(i.users, c.DeleteUser.Name)
		}
	case c.PutKey != nil:
		kind = i.putKey(c.PutKey, m.applied, m.logTime)
	case c.UpdateKey != nil:
		kind = i.updateKey(c.UpdateKey, m.applied)
	case c.DeleteKey != nil:
		row, ok := i.keys[c.DeleteKey.ID]
		if kind = changeable(ok, c.DeleteKey.Revision, row.Revision); kind == 0 {
			delete(i.keys, c.DeleteKey.ID)
			delete(i.used, c.DeleteKey.ID)
		}
	case c.SealMaster != nil:
		if c.SealMaster.Revision != i.boxRevision {
			return fault.PreconditionFailed, true
		}
		i.boxes, i.boxRevision = c.SealMaster.Boxes, m.applied
	case c.TouchKeys != nil:
		for _, t := range c.TouchKeys.Keys {
			if _, ok := i.keys[t.ID]; ok {
				i.used[t.ID] = max(i.used[t.ID], min(t.At, m.logTime))
			}
		}
		return 0, true
	default:
		return 0, false
	}
	if kind == 0 {
		i.epoch, out.Revision = m.applied, m.applied
	}
	return kind, true
}

// changeable is the refusal of a change of what isn't there, or is another.
func changeable(there bool, want, have uint64) fault.Kind {
	switch {
	case !there:
		return fault.NotFound
	case want != 0 && want != have:
		return fault.PreconditionFailed
	}
	return 0
}

func (m *modelIAM) putUser(c *PutUser, index uint64, logTime int64) fault.Kind {
	if _, ok := m.users[c.User.Name]; ok || m.taken(c.User.Name, c.User.Certificates) {
		return fault.AlreadyExists
	}
	row := UserRow{User: c.User, Revision: index}
	row.User.Created = logTime
	m.users[c.User.Name] = row
	return 0
}

func (m *modelIAM) updateUser(c *UpdateUser, index uint64) fault.Kind {
	row, ok := m.users[c.Name]
	if kind := changeable(ok, c.Revision, row.Revision); kind != 0 {
		return kind
	}
	if m.taken(c.Name, c.Certificates) {
		return fault.AlreadyExists
	}
	row.User.Disabled, row.User.Grants, row.User.Certificates, row.Revision = c.Disabled, c.Grants, c.Certificates, index
	m.users[c.Name] = row
	return 0
}

func (m *modelIAM) putKey(c *PutKey, index uint64, logTime int64) fault.Kind {
	if _, ok := m.keys[c.Key.ID]; ok {
		return fault.AlreadyExists
	}
	if _, ok := m.users[c.Key.User]; !ok {
		return fault.NotFound
	}
	row := KeyRow{Key: c.Key, Revision: index}
	row.Key.Created, row.Key.LastUsed = logTime, 0
	m.keys[c.Key.ID] = row
	return 0
}

func (m *modelIAM) updateKey(c *UpdateKey, index uint64) fault.Kind {
	row, ok := m.keys[c.ID]
	if kind := changeable(ok, c.Revision, row.Revision); kind != 0 {
		return kind
	}
	if row.Key.Service != (len(c.Grants) > 0) {
		return fault.InvalidArgument
	}
	row.Key.Disabled, row.Key.Grants, row.Key.Expires, row.Key.Comment, row.Revision = c.Disabled, c.Grants, c.Expires, c.Comment, index
	m.keys[c.ID] = row
	return 0
}

// rows are what everybody should see.
func (m *modelIAM) rows() *iam.Rows {
	r := &iam.Rows{Epoch: m.epoch, Boxes: m.boxes}
	for _, name := range slices.Sorted(maps.Keys(m.users)) {
		r.Users = append(r.Users, m.users[name].User)
	}
	for _, id := range m.keysOf("") {
		r.Keys = append(r.Keys, m.keys[id].Key)
	}
	return r
}

// userRows and keyRows are the answers to queries.
func (m *modelIAM) userRows() (rows []UserRow) {
	for _, name := range slices.Sorted(maps.Keys(m.users)) {
		row := m.users[name]
		row.Keys = len(m.keysOf(name))
		rows = append(rows, row)
	}
	return rows
}

func (m *modelIAM) keyRows(user string) (rows []KeyRow) {
	for _, id := range m.keysOf(user) {
		row := m.keys[id]
		row.Key.Sealed, row.Key.LastUsed = nil, m.used[id]
		rows = append(rows, row)
	}
	return rows
}

// sameRows compares rows; empty lists are nil.
func sameRows(want, got *iam.Rows) string {
	seen := *got
	seen.Users, seen.Keys, seen.Boxes = nilIfEmpty(got.Users), nilIfEmpty(got.Keys), nilIfEmpty(got.Boxes)
	return gocmp.Diff(want, &seen)
}

// compareIAM reads everything through queries.
func (m *model) compareIAM(ask func(Query) *Answer, same func(what string, got, want any)) {
	want := m.iam.userRows()
	same("users", ask(Query{Users: &UsersQuery{}}).Users, want)
	for i := range want {
		name := want[i].User.Name
		same("user", ask(Query{User: &UserQuery{Name: name}}).Users, want[i:i+1])
		same("keys of "+name, ask(Query{Keys: &KeysQuery{User: name}}).Keys, m.iam.keyRows(name))
	}
	keys := m.iam.keyRows("")
	same("keys", ask(Query{Keys: &KeysQuery{}}).Keys, keys)
	for i := range keys {
		same("key", ask(Query{Key: &KeyQuery{ID: keys[i].Key.ID}}).Keys, keys[i:i+1])
	}
}

// sealedFor stands for what a key has sealed.
func sealedFor(id string) []byte {
	b := make([]byte, 61)
	copy(b, id)
	return b
}

// fillIAM draws commands over few users and keys.
func (g *commands) fillIAM(t *rapid.T, c *Command) {
	m := g.m.iam
	user := rapid.SampledFrom([]string{"ann", "ann2", "bob"}).Draw(t, "user")
	id := rapid.SampledFrom([]string{"k1", "k2", "k3", "k4"}).Draw(t, "key")
	grants := func(least int) []iam.Grant {
		return nilIfEmpty(rapid.SliceOfN(rapid.SampledFrom([]iam.Grant{
			{Role: iam.ReadOnly, Bucket: iam.AllBuckets}, {Role: iam.ReadWrite, Bucket: "photos", Prefix: "2026/"}, {Role: iam.Metrics},
		}), least, 2).Draw(t, "grants"))
	}
	certs := func() []string {
		return nilIfEmpty(rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a.example", "b.example", "c.example"}), 0, 2, rapid.ID).Draw(t, "certificates"))
	}
	revision := func(now uint64) uint64 { return rapid.SampledFrom([]uint64{0, now, now, now + 1}).Draw(t, "revision") }
	flag := func(what string) bool { return rapid.Bool().Draw(t, what) }
	switch kind := rapid.IntRange(0, 11).Draw(t, "change"); kind {
	case 0, 1:
		c.PutUser = &PutUser{User: iam.User{Name: user, Grants: grants(0), Certificates: certs(), Created: 7, Disabled: flag("disabled")}}
	case 2:
		c.UpdateUser = &UpdateUser{Name: user, Revision: revision(m.users[user].Revision), Grants: grants(0), Certificates: certs(), Disabled: flag("disabled")}
	case 3:
		c.DeleteUser = &DeleteUser{Name: user, Revision: revision(m.users[user].Revision)}
	case 4, 5, 6:
		key := iam.Key{ID: id, User: user, Sealed: sealedFor(id), Comment: "c", LastUsed: 7, Expires: int64(rapid.IntRange(0, 3).Draw(t, "expires"))}
		if flag("service") {
			key.Service, key.Grants = true, grants(1)
		}
		c.PutKey = &PutKey{Key: key}
	case 7, 8:
		c.UpdateKey = &UpdateKey{ID: id, Revision: revision(m.keys[id].Revision), Disabled: flag("disabled"), Comment: fmt.Sprint(g.ids)}
		if flag("service") {
			c.UpdateKey.Grants = grants(1)
		}
	case 9:
		c.DeleteKey = &DeleteKey{ID: id, Revision: revision(m.keys[id].Revision)}
	case 10:
		box := iam.Box{Fingerprint: []byte{1}, Sealed: []byte{byte(g.ids)}}
		c.SealMaster = &SealMaster{Boxes: []iam.Box{box}, Revision: rapid.SampledFrom([]uint64{m.boxRevision, m.boxRevision, 1}).Draw(t, "revision")}
	default:
		at := max(1, g.m.logTime+int64(rapid.IntRange(-90, 90).Draw(t, "used"))*1e9)
		c.TouchKeys = &TouchKeys{Keys: []Touch{{ID: id, At: at}, {ID: "gone", At: at}}}
	}
}

// fillIAM makes a request's command for users and keys: those of the last
// requests, so that they meet.
func (m *statesModel) fillIAM(c *Command, rng *rand.Rand, request uint64) {
	user := fmt.Sprintf("user%d-%d", request/64%4, rng.IntN(2))
	id := fmt.Sprintf("key%d-%d", request/16%8, rng.IntN(4))
	grants := []iam.Grant{{Role: iam.ReadOnly, Bucket: fmt.Sprint("bucket-", rng.IntN(3))}}
	revision := []uint64{0, 0, 0, request}[rng.IntN(4)]
	switch rng.IntN(12) {
	case 0, 1:
		c.PutUser = &PutUser{User: iam.User{Name: user, Grants: grants, Certificates: []string{fmt.Sprint("cert", rng.IntN(8))}}}
	case 2:
		c.UpdateUser = &UpdateUser{Name: user, Revision: revision, Disabled: rng.IntN(2) == 0}
	case 3:
		c.DeleteUser = &DeleteUser{Name: user, Revision: revision}
	case 4, 5, 6, 7:
		c.PutKey = &PutKey{Key: iam.Key{ID: id, User: user, Service: true, Grants: grants, Sealed: sealedFor(id)}}
	case 8:
		c.UpdateKey = &UpdateKey{ID: id, Revision: revision, Grants: grants, Disabled: rng.IntN(2) == 0}
	case 9:
		c.DeleteKey = &DeleteKey{ID: id, Revision: revision}
	case 10:
		c.TouchKeys = &TouchKeys{Keys: []Touch{{ID: id, At: simulationEpoch + int64(rng.IntN(100))*1e9}}}
	default:
		c.SealMaster = &SealMaster{Boxes: []iam.Box{{Fingerprint: []byte{1}, Sealed: []byte{byte(request)}}}}
	}
}

// compareIAM compares what is stored and what is shown with the truth.
func (s *simulatedState) compareIAM(v *view) error {
	want := s.truth.iam
	if diff := sameRows(want.rows(), s.users.now()); diff != "" {
		return fmt.Errorf("at entry %d users and keys are shown as (-want +got):\n%s", v.applied, diff)
	}
	var got Answer
	if err := cmp.Or(v.users(&got, &UsersQuery{}), v.keys(&got, &KeysQuery{})); err != nil {
		return err
	}
	if diff := gocmp.Diff(want.userRows(), got.Users) + gocmp.Diff(want.keyRows(""), got.Keys); diff != "" {
		return fmt.Errorf("at entry %d users and keys are stored as (-want +got):\n%s", v.applied, diff)
	}
	row := &s.machine.iam.row
	var owned, used, certs, bytes int
	count := func(n *int) func(_, _ []byte) error { return func(_, _ []byte) error { *n++; return nil } }
	err := cmp.Or(scan(v.rows, []byte{kindOwned}, count(&owned)), scan(v.rows, []byte{kindUsed}, count(&used)), scan(v.rows, []byte{kindCertificate}, count(&certs)))
	for _, u := range want.users {
		certs -= len(u.User.Certificates)
		bytes += sizeOf(&u.User)
	}
	for _, k := range want.keys {
		bytes += sizeOf(&k.Key)
	}
	if err == nil && (row.Users != len(want.users) || row.Keys != len(want.keys) || owned != len(want.keys) || used != len(want.keys) || certs != 0 || row.Bytes != int64(bytes)) {
		err = fmt.Errorf("at entry %d %+v is counted, and %d rows of owners, %d of uses and %d of certificates too many, for %d users and %d keys of %d bytes", v.applied, row, owned, used, certs, len(want.users), len(want.keys), bytes)
	}
	return err
}
