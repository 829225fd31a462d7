package control

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/gridloom/gridloom/node/fault"
	"github.com/gridloom/gridloom/node/iam"
)

func putUser(name string, certificates ...string) *Command {
	return &Command{PutUser: &PutUser{User: iam.User{Name: name, Grants: []iam.Grant{{Role: iam.ReadOnly, Bucket: "photos"}}, Certificates: certificates}}}
}

func putKey(id, user string) *Command {
	return &Command{PutKey: &PutKey{Key: iam.Key{ID: id, User: user, Sealed: sealedFor(id)}}}
}

// refused says how a command was refused: "kind: subject: detail", "" if it wasn't.
func refused(o *outcome) string {
	if !o.Refused {
		return ""
	}
	return fault.Kind(o.Kind).Reason() + ": " + o.Subject + ": " + o.Detail
}

// Every refusal says what it is about, and changes nothing.
func TestRefusalsOfUsersAndKeys(t *testing.T) {
	a := newApplier(t, systemGroup, vfs.NewMem())
	defer a.close(t)
	service := putKey("svc", "ann")
	service.PutKey.Key.Service, service.PutKey.Key.Grants = true, []iam.Grant{{Role: iam.Metrics}}
	orphan := *service.PutKey
	orphan.Key.ID, orphan.Key.User = "svc2", "nobody"
	for _, c := range []*Command{putUser("ann", "ann.example"), putUser("bob"), putKey("k1", "ann"), service} {
		if out := a.next(t, 1, c); out.Refused {
			t.Fatalf("%+v", out)
		}
	}
	before := a.m.meta.Applied - 3 // revision of ann
	a.commit(t)
	rows := a.feed.now()
	for _, tc := range []struct {
		c    *Command
		want string
	}{
		{putUser("ann"), `already_exists: user "ann": exists already`},
		{putUser("cat", "ann.example"), `already_exists: certificate name "ann.example": stands for user "ann" already`},
		{&Command{UpdateUser: &UpdateUser{Name: "bob", Certificates: []string{"ann.example"}}}, `already_exists: certificate name "ann.example"`},
		{&Command{UpdateUser: &UpdateUser{Name: "cat"}}, `not_found: user "cat": doesn't exist`},
		{&Command{UpdateUser: &UpdateUser{Name: "ann", Revision: before + 1}}, fmt.Sprintf(`precondition_failed: user "ann": has been changed: it has revision %d, and not %d`, before, before+1)},
		{&Command{DeleteUser: &DeleteUser{Name: "cat"}}, `not_found: user "cat"`},
		{&Command{DeleteUser: &DeleteUser{Name: "ann", Revision: 99}}, `precondition_failed: user "ann"`},
		{putKey("k1", "bob"), `already_exists: key "k1": exists already`},
		{putKey("k2", "cat"), `not_found: user "cat": doesn't exist`},
		{&Command{PutKey: &orphan}, `not_found: user "nobody": doesn't exist`},
		{&Command{UpdateKey: &UpdateKey{ID: "k2"}}, `not_found: key "k2": doesn't exist`},
		{&Command{UpdateKey: &UpdateKey{ID: "k1", Revision: 99}}, `precondition_failed: key "k1"`},
		{&Command{UpdateKey: &UpdateKey{ID: "k1", Grants: service.PutKey.Key.Grants}}, `invalid_argument: grants: are for service keys, and key "k1" is none`},
		{&Command{UpdateKey: &UpdateKey{ID: "svc"}}, `invalid_argument: grants: are missing: key "svc" is a service key`},
		{&Command{DeleteKey: &DeleteKey{ID: "k2"}}, `not_found: key "k2"`},
		{&Command{DeleteKey: &DeleteKey{ID: "k1", Revision: 99}}, `precondition_failed: key "k1"`},
		{&Command{SealMaster: &SealMaster{Boxes: []iam.Box{{Fingerprint: []byte{1}, Sealed: []byte{1}}}, Revision: 1}}, `precondition_failed: master: is in other boxes by now: they have revision 0, and not 1`},
	} {
		if got := refused(a.next(t, 1, tc.c)); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
	a.commit(t)
	if a.feed.now() != rows {
		t.Error("a refusal changed what is shown")
	}
	if out := a.next(t, 1, &Command{UpdateUser: &UpdateUser{Name: "ann", Revision: before}}); out.Refused || out.Revision != a.m.meta.Applied {
		t.Errorf("an update of what was seen: %+v", out)
	}
	if got := refused(a.next(t, 1, putUser("cat", "ann.example"))); got != "" {
		t.Errorf("a certificate name that is free again: %s", got)
	}
}

// There is room for so many users, so many keys and so many bytes, and where
// there is no more everything can still be revoked.
func TestLimitsOfUsersAndKeys(t *testing.T) {
	a := newApplier(t, systemGroup, vfs.NewMem())
	defer a.close(t)
	a.next(t, 1, putUser("ann"))
	for i := range MaxUserKeys {
		if out := a.next(t, 1, putKey(fmt.Sprint("k", i), "ann")); out.Refused {
			t.Fatalf("%+v", out)
		}
	}
	check := func(c *Command, want string) {
		t.Helper()
		if got := refused(a.next(t, 1, c)); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%q, want %q", got, want)
		}
	}
	check(putKey("more", "ann"), `quota_exceeded: key "more": can't be made: user "ann" has 1000 keys`)
	check(putUser("bob"), "")
	row := a.m.iam.row
	a.m.iam.row.Users = iam.MaxUsers
	check(putUser("cat"), `quota_exceeded: user "cat": can't be made: there are 10000 users`)
	a.m.iam.row = row
	a.m.iam.row.Keys = iam.MaxKeys
	check(putKey("more", "bob"), `quota_exceeded: key "more": can't be made: there are 100000 keys`)
	a.m.iam.row = row
	a.m.iam.row.Bytes = maxIAMBytes
	check(putUser("cat"), `quota_exceeded: user "cat": doesn't fit`)
	check(putKey("more", "bob"), `quota_exceeded: key "more": doesn't fit`)
	large := []iam.Grant{{Role: iam.ReadOnly, Bucket: "b23", Prefix: strings.Repeat("p", 1000)}}
	check(&Command{UpdateUser: &UpdateUser{Name: "bob", Grants: large}}, `quota_exceeded: user "bob": doesn't fit`)
	check(&Command{UpdateKey: &UpdateKey{ID: "k0", Disabled: true, Expires: 5}}, "")
	check(&Command{UpdateUser: &UpdateUser{Name: "bob", Disabled: true}}, "")
	a.m.iam.row.Bytes -= maxIAMBytes - row.Bytes
	// A user of that many keys goes in one command, with all that was theirs.
	check(&Command{TouchKeys: &TouchKeys{Keys: []Touch{{ID: "k0", At: 1}}}}, "")
	check(&Command{DeleteUser: &DeleteUser{Name: "ann"}}, "")
	check(&Command{DeleteUser: &DeleteUser{Name: "bob"}}, "")
	a.commit(t)
	for _, kind := range []byte{kindUser, kindAccessKey, kindOwned, kindUsed, kindCertificate} {
		if err := scan(a.store, []byte{kind}, func(row, _ []byte) error { return fmt.Errorf("%q is left", row) }); err != nil {
			t.Error(err)
		}
	}
	if r := a.m.iam.row; r.Users != 0 || r.Keys != 0 || r.Bytes != 0 {
		t.Errorf("of nothing there is %+v", r)
	}
	if rows := a.feed.now(); len(rows.Users) != 0 || len(rows.Keys) != 0 || rows.Epoch == 0 {
		t.Errorf("%d users and %d keys at %d", len(rows.Users), len(rows.Keys), rows.Epoch)
	}
}

// When a key was used is noted, changes neither revision nor epoch, and never
// goes back or ahead of log time. A retry is known.
func TestTouchKeys(t *testing.T) {
	a := newApplier(t, systemGroup, vfs.NewMem())
	defer a.close(t)
	now := int64(1e18)
	a.next(t, now, putUser("ann"))
	made := a.next(t, now, putKey("k", "ann"))
	a.commit(t)
	rows := a.feed.now()
	id := randomID()
	for _, tc := range []struct{ at, want int64 }{{now - 10, now - 10}, {now - 20, now - 10}, {now + 1000, now + 1}, {now, now + 1}} {
		c := &Command{TouchKeys: &TouchKeys{Keys: []Touch{{ID: "k", At: tc.at}, {ID: "gone", At: tc.at}}}}
		if out := a.next(t, now+1, c); out.Refused {
			t.Fatalf("%+v", out)
		}
		a.commit(t)
		got, err := a.ask(&Query{Key: &KeyQuery{ID: "k"}})
		if err != nil || got.Keys[0].Key.LastUsed != tc.want || got.Keys[0].Revision != made.Revision || got.Keys[0].Key.Sealed != nil {
			t.Errorf("used at %d: %+v, %v", tc.at, got, err)
		}
	}
	if a.feed.now() != rows {
		t.Error("a use made others look at all keys")
	}
	update := &Command{RequestID: id, UpdateKey: &UpdateKey{ID: "k", Revision: made.Revision, Comment: "new"}}
	first := a.next(t, now, update)
	if second := a.next(t, now, update); first.Refused || second.Refused || second.Revision != first.Revision {
		t.Errorf("once %+v, twice %+v", first, second)
	}
}

// Pages of users and keys add up to all of them, in order.
func TestPagesOfUsersAndKeys(t *testing.T) {
	a := newApplier(t, systemGroup, vfs.NewMem())
	defer a.close(t)
	for _, name := range []string{"a", "a-b", "aa", "b"} {
		a.next(t, 1, putUser(name))
		for i := range 25 {
			a.next(t, 1, putKey(fmt.Sprintf("%d-%s", i, name), name))
		}
	}
	a.commit(t)
	read := func(ask func(behind string) *Query) (names []string) {
		t.Helper()
		for behind := ""; ; {
			got, err := a.ask(ask(behind))
			if err != nil || len(got.Users)+len(got.Keys) > 7 || got.More != (got.Next != "") {
				t.Fatalf("%+v, %v", got, err)
			}
			for _, u := range got.Users {
				names = append(names, u.User.Name)
			}
			for _, k := range got.Keys {
				names = append(names, k.Key.ID)
			}
			if behind = got.Next; !got.More {
				return names
			}
		}
	}
	rows := a.feed.now()
	var keys []string
	byUser := map[string][]string{}
	for _, k := range rows.Keys {
		keys, byUser[k.User] = append(keys, k.ID), append(byUser[k.User], k.ID)
	}
	if got := read(func(b string) *Query { return &Query{Users: &UsersQuery{After: b, Limit: 3}} }); !slices.Equal(got, []string{"a", "a-b", "aa", "b"}) {
		t.Errorf("users %q", got)
	}
	if got := read(func(b string) *Query { return &Query{Keys: &KeysQuery{After: b, Limit: 7}} }); !slices.Equal(got, keys) || len(keys) != 100 {
		t.Errorf("keys %q", got)
	}
	for name, want := range byUser {
		if got := read(func(b string) *Query { return &Query{Keys: &KeysQuery{User: name, After: b, Limit: 7}} }); !slices.Equal(got, want) || len(want) != 25 {
			t.Errorf("keys of %s %q, want %q", name, got, want)
		}
	}
	for _, q := range []*Query{{User: &UserQuery{Name: "c"}}, {Key: &KeyQuery{ID: "c"}}, {Keys: &KeysQuery{User: "c"}}} {
		if _, err := a.ask(q); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

// A page is bounded in bytes, too.
func TestLargePagesOfUsers(t *testing.T) {
	a := newApplier(t, systemGroup, vfs.NewMem())
	defer a.close(t)
	var grants []iam.Grant
	for i := range iam.MaxGrants {
		grants = append(grants, iam.Grant{Role: iam.ReadOnly, Bucket: "b23", Prefix: fmt.Sprint(i, strings.Repeat("p", 1000))})
	}
	for i := range 100 {
		c := putUser(fmt.Sprintf("u%02d", i))
		c.PutUser.User.Grants = grants
		a.next(t, 1, c)
	}
	a.commit(t)
	got, err := a.ask(&Query{Users: &UsersQuery{}})
	if size := got.Msgsize(); err != nil || !got.More || len(got.Users) < 2 || size > 2*maxPageBytes {
		t.Errorf("%d users in %d bytes, more %t, %v", len(got.Users), size, got.More, err)
	}
	if got.Next != got.Users[len(got.Users)-1].User.Name {
		t.Errorf("next is %q", got.Next)
	}
}

// Whoever asks while changes are being put in gets all that was shown before,
// and rows never go back.
func TestFeedNeverGoesBack(t *testing.T) {
	const changes = 2000
	feed := &iamFeed{}
	s := &iamState{}
	done := make(chan error)
	for range 4 {
		go func() {
			for last := uint64(0); last < changes; {
				rows := feed.now()
				if rows.Epoch < last || len(rows.Users) != int(rows.Epoch) {
					done <- fmt.Errorf("%d users at %d after %d", len(rows.Users), rows.Epoch, last)
					return
				}
				last = rows.Epoch
			}
			done <- nil
		}()
	}
	for i := range uint64(changes) {
		s.changed.epoch = i + 1
		s.changed.setUser(&iam.User{Name: fmt.Sprint(i * 7919 % changes)})
		feed.show(s)
		if i%10 == 0 && feed.now().Epoch != i+1 {
			t.Errorf("what was shown at %d isn't there", i+1)
		}
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	rows := feed.now()
	if !slices.IsSortedFunc(rows.Users, func(a, b iam.User) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("they are in no order")
	}
	s.first = &iam.Rows{Epoch: 1}
	feed.show(s)
	if rows := feed.now(); rows != feed.now() || rows.Epoch != 1 {
		t.Errorf("after a snapshot it is %d", rows.Epoch)
	}
}

// 100,000 keys: what a change costs, and what a start.
func BenchmarkKeys(b *testing.B) {
	a := newApplier(b, systemGroup, vfs.NewMem())
	a.close(b)
	a.sizes = stateOptions(systemGroup)
	a.open(b)
	for u := range 100 {
		user := fmt.Sprintf("user%02d", u)
		a.next(b, 1, putUser(user))
		for k := range 1000 {
			if out := a.next(b, 1, putKey(fmt.Sprintf("key-%02d-%04d", u, k), user)); out.Refused {
				b.Fatalf("%+v", out)
			}
		}
		a.commit(b)
	}
	rows := a.feed.now()
	if len(rows.Keys) != iam.MaxKeys {
		b.Fatalf("%d keys", len(rows.Keys))
	}
	n := 0
	touch := func() *Command {
		c := &TouchKeys{}
		for range MaxTouches {
			n++
			c.Keys = append(c.Keys, Touch{ID: fmt.Sprintf("key-%02d-%04d", n/1000%100, n%1000), At: int64(n)})
		}
		return &Command{TouchKeys: c}
	}
	for name, change := range map[string]func() *Command{
		"touch=1000": touch,
		"update": func() *Command {
			n++
			return &Command{UpdateKey: &UpdateKey{ID: fmt.Sprintf("key-%02d-%04d", n/1000%100, n%1000), Comment: fmt.Sprint(n)}}
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if out := a.next(b, int64(n), change()); out.Refused {
					b.Fatalf("%+v", out)
				}
				a.commit(b)
			}
		})
	}
	b.Run("show", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			a.feed.pending = &iamChanges{epoch: 1, keys: map[string]*iam.Key{rows.Keys[5].ID: &rows.Keys[5]}}
			a.feed.now()
		}
	})
	b.Run("delete_user=1000", func(b *testing.B) {
		for b.Loop() {
			batch := a.store.NewIndexedBatch()
			before := a.m.iam.row
			if err := a.m.deleteUser(batch, &DeleteUser{Name: "user07"}); err != nil {
				b.Fatal(err)
			}
			a.m.iam.row, a.m.iam.changed = before, iamChanges{}
			if err := batch.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			if _, err := loadMachine(systemGroup, a.store); err != nil {
				b.Fatal(err)
			}
		}
	})
	a.close(b)
}

// Bad commands and queries are refused with the part that is bad.
func TestBadCommandsOfUsers(t *testing.T) {
	key := func(change func(*iam.Key)) *Command {
		c := putKey("k", "ann")
		change(&c.PutKey.Key)
		return c
	}
	user := func(change func(*iam.User)) *Command {
		c := putUser("ann")
		change(&c.PutUser.User)
		return c
	}
	box := iam.Box{Fingerprint: []byte{1}, Sealed: []byte{1}}
	for _, tc := range []struct {
		c    *Command
		want string
	}{
		{user(func(u *iam.User) { u.Name = "" }), "name: is empty"},
		{user(func(u *iam.User) { u.Name = "a\x00" }), "name: "},
		{user(func(u *iam.User) { u.Name = iam.RootID }), "name: is that of the root key"},
		{user(func(u *iam.User) { u.Grants = make([]iam.Grant, iam.MaxGrants+1) }), "grants: are 65"},
		{user(func(u *iam.User) { u.Grants[0].Role = "king" }), "grants[0].role: "},
		{user(func(u *iam.User) { u.Certificates = []string{"c", "c"} }), "certificates[1]: "},
		{user(func(u *iam.User) { u.Certificates = []string{"a\x00b"} }), "certificates[0]: "},
		{&Command{UpdateUser: &UpdateUser{Name: "A"}}, "name: "},
		{&Command{UpdateUser: &UpdateUser{Name: "ann", Grants: []iam.Grant{{Role: iam.Admin}}}}, "grants[0].bucket: "},
		{&Command{DeleteUser: &DeleteUser{}}, "name: is empty"},
		{key(func(k *iam.Key) { k.ID = "K" }), "id: "},
		{key(func(k *iam.Key) { k.ID = iam.RootID }), "id: is that of the root key"},
		{key(func(k *iam.Key) { k.User = "" }), "user: is empty"},
		{key(func(k *iam.Key) { k.Sealed = nil }), "sealed: "},
		{key(func(k *iam.Key) { k.Service = true }), "grants: are missing"},
		{key(func(k *iam.Key) { k.Expires = -1 }), "expires: "},
		{&Command{UpdateKey: &UpdateKey{}}, "key: is empty"},
		{&Command{UpdateKey: &UpdateKey{ID: "k", Expires: -1}}, "expires: is -1"},
		{&Command{UpdateKey: &UpdateKey{ID: "k", Comment: strings.Repeat("c", iam.MaxCommentBytes+1)}}, "comment: has 257 bytes"},
		{&Command{UpdateKey: &UpdateKey{ID: "k", Comment: "a\nb"}}, "comment: isn't"},
		{&Command{UpdateKey: &UpdateKey{ID: "k", Grants: make([]iam.Grant, iam.MaxGrants+1)}}, "grants: are 65"},
		{&Command{DeleteKey: &DeleteKey{ID: "a\x00"}}, "key: isn't UTF-8 without NUL"},
		{&Command{TouchKeys: &TouchKeys{}}, "keys: has 0 entries"},
		{&Command{TouchKeys: &TouchKeys{Keys: make([]Touch, MaxTouches+1)}}, "keys: has 1001 entries"},
		{&Command{TouchKeys: &TouchKeys{Keys: []Touch{{ID: "k", At: 1}, {ID: "k", At: 2}}}}, `keys: has "k" twice`},
		{&Command{TouchKeys: &TouchKeys{Keys: []Touch{{ID: "k"}}}}, "keys: has the time 0"},
		{&Command{SealMaster: &SealMaster{}}, "boxes: are 0"},
		{&Command{SealMaster: &SealMaster{Boxes: make([]iam.Box, iam.MaxBoxes+1)}}, "boxes: are 17"},
		{&Command{SealMaster: &SealMaster{Boxes: []iam.Box{box, box}}}, "boxes: have one that is empty, or two"},
		{&Command{SealMaster: &SealMaster{Boxes: []iam.Box{{}}}}, "boxes: have one that is empty"},
	} {
		err := complete(tc.c).validate()
		if fault.KindOf(err) != fault.InvalidArgument || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%v, want %s", err, tc.want)
		}
	}
	for _, q := range []*Query{
		{User: &UserQuery{}}, {Key: &KeyQuery{}}, {Keys: &KeysQuery{User: "\xff"}}, {Keys: &KeysQuery{Limit: -1}},
		{Users: &UsersQuery{After: strings.Repeat("a", maxAfterBytes+1)}}, {Users: &UsersQuery{}, Keys: &KeysQuery{}},
	} {
		q.Version = QueryVersion
		if err := q.validate(); fault.KindOf(err) != fault.InvalidArgument {
			t.Errorf("%+v: %v", q, err)
		}
	}
}
