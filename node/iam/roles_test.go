package iam

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var (
	allActions = []Action{BucketCreate, BucketRead, BucketList, BucketDelete, BucketQuota, ObjectList, ObjectRead, ObjectWrite, ObjectDelete,
		ClusterRead, ClusterWrite, MetricsRead, APIRead, IAMRead, IAMWrite, IAMSelf, IAMSelfToken, IAMSelfKeys}
	always  = []Action{APIRead, IAMSelf, IAMSelfToken, IAMSelfKeys} // with a key of one's own
	reading = []Action{BucketRead, BucketList, ObjectList, ObjectRead}
	writing = slices.Concat(reading, []Action{ObjectWrite, ObjectDelete})
	owning  = slices.Concat(writing, []Action{BucketCreate, BucketDelete, BucketQuota})
)

// holder is a principal with these grants, as a key of its own would give it.
func holder(layers ...[]Grant) Principal {
	return Principal{ID: "k", User: "u", Via: ViaKey, is: &identity{layers: layers}}
}

func grants(texts ...string) (gs []Grant) {
	for _, s := range texts {
		g, err := ParseGrant(s)
		if err != nil {
			panic(fmt.Sprintf("%q: %v", s, err))
		}
		gs = append(gs, g)
	}
	return gs
}

// TestRoles is every role over every scope, tried with every action.
func TestRoles(t *testing.T) {
	mesh := []Action{ClusterRead, MetricsRead}
	for _, tc := range []struct {
		grant, bucket, key string
		want               []Action
	}{
		{"", "photos", "a", nil},
		{"metrics", "photos", "a", mesh},
		{"readonly:*", "photos", "a", reading},
		{"readwrite:*", "photos", "a", writing},
		{"admin:*", "photos", "a", allActions},
		{"readonly:photos", "photos", "a", reading},
		{"readwrite:photos", "photos", "a", writing},
		{"admin:photos", "photos", "a", owning},
		{"admin:photos", "photos", "", owning},
		// another bucket: its name alone may be asked for in a list
		{"readonly:photos", "videos", "a", []Action{BucketList}},
		{"readwrite:photos", "photos2", "a", []Action{BucketList}},
		{"readwrite:photos", "photo", "a", []Action{BucketList}},
		{"admin:photos", "videos", "a", []Action{BucketList}},
		{"admin:photos", "*", "a", []Action{BucketList}},
		{"admin:photos", "", "a", []Action{BucketList}},
		// a prefix
		{"readonly:photos/a", "photos", "a", reading},
		{"readonly:photos/a", "photos", "ab", reading},
		{"readwrite:photos/a", "photos", "a/b", writing},
		{"admin:photos/a", "photos", "a/b", writing},
		{"readwrite:photos/a/", "photos", "a/", writing},
		{"readwrite:photos/a/", "photos", "a/b", writing},
		{"readwrite:photos/a/", "photos", "a", []Action{BucketRead, BucketList}},
		{"readwrite:photos/a/", "photos", "ab", []Action{BucketRead, BucketList}},
		{"readwrite:photos/a/", "photos", "A/b", []Action{BucketRead, BucketList}},
		{"readwrite:photos/ab", "photos", "a", []Action{BucketRead, BucketList}},
		{"admin:photos/ab", "photos", "", []Action{BucketRead, BucketList}},
		{"admin:photos/ab", "videos", "ab", []Action{BucketList}},
	} {
		var gs []Grant
		if tc.grant != "" {
			gs = grants(tc.grant)
		}
		p := holder(gs)
		for _, a := range allActions {
			want := slices.Contains(tc.want, a) || slices.Contains(always, a)
			err := Authorize(p, a, tc.bucket, tc.key)
			if (err == nil) != want || err != nil && !errors.Is(err, ErrPermissionDenied) {
				t.Errorf("%s: %s of %q in %q: %v", tc.grant, a, tc.key, tc.bucket, err)
			}
		}
	}
}

// TestService: what a service key may do, its user may too.
func TestService(t *testing.T) {
	for _, tc := range []struct {
		user, key      string
		action         Action
		bucket, object string
		want           bool
	}{
		{"readonly:*", "admin:*", ObjectRead, "photos", "a", true},
		{"readonly:*", "admin:*", ObjectWrite, "photos", "a", false},
		{"readonly:*", "admin:*", IAMWrite, "", "", false},
		{"admin:*", "readonly:photos/a/", ObjectRead, "photos", "a/b", true},
		{"admin:*", "readonly:photos/a/", ObjectRead, "photos", "b", false},
		{"admin:*", "readonly:photos/a/", IAMRead, "", "", false},
		{"admin:*", "readonly:photos/a/", MetricsRead, "", "", false},
		{"readwrite:photos/a", "readwrite:photos/ab", ObjectWrite, "photos", "ab", true},
		{"readwrite:photos/ab", "readwrite:photos/a", ObjectWrite, "photos", "a", false},
		{"readwrite:photos", "readwrite:videos", ObjectWrite, "photos", "a", false},
		{"readwrite:photos", "readwrite:videos", ObjectWrite, "videos", "a", false},
		{"readwrite:photos", "metrics", MetricsRead, "", "", false},
	} {
		p := holder(grants(tc.user), grants(tc.key))
		if got := Allowed(p, tc.action, tc.bucket, tc.object); got != tc.want {
			t.Errorf("%+v: %t", tc, got)
		}
	}
	p := holder(grants("admin:*"), nil) // such a key can't be made, and may do nothing
	for _, a := range allActions {
		if Allowed(p, a, "photos", "a") != slices.Contains(always, a) {
			t.Errorf("a service key without grants: %s", a)
		}
	}
}

// TestSelf is about what a caller gives itself: nothing that is lent may outlive
// what it was lent by.
func TestSelf(t *testing.T) {
	for _, tc := range []struct {
		via         string
		service     bool
		token, keys bool
	}{
		{ViaKey, false, true, true},
		{ViaKey, true, true, false},
		{ViaToken, false, false, false},
		{ViaCertificate, false, false, true},
		{ViaLink, false, false, false},
	} {
		p := holder(grants("admin:*"))
		p.Via, p.Service = tc.via, tc.service
		if got := Allowed(p, IAMSelfToken, "", ""); got != tc.token {
			t.Errorf("%+v: a token: %t", tc, got)
		}
		if got := Allowed(p, IAMSelfKeys, "", ""); got != tc.keys {
			t.Errorf("%+v: keys: %t", tc, got)
		}
	}
}

// TestGrantsShown: what is handed out can't be used to change what is allowed.
func TestGrantsShown(t *testing.T) {
	p := holder(grants("readonly:photos"), grants("readonly:*"))
	p.is.narrowed = grants("readonly:photos/a")
	shown := p.Grants()
	if len(shown) != 3 || shown[2][0].Prefix != "a" {
		t.Fatalf("%v", shown)
	}
	for _, layer := range shown {
		layer[0] = Grant{Role: Admin, Bucket: AllBuckets}
	}
	if Allowed(p, ObjectWrite, "photos", "a") || Allowed(p, ObjectRead, "photos", "b") {
		t.Error("changed from outside")
	}
	if got := (Principal{ID: RootID, Root: true}).Grants(); got != nil {
		t.Errorf("%v", got)
	}
}

// modelAllows is what the roles mean, told in another way: a set of what each
// grant stands for, looked up.
func modelAllows(layers [][]Grant, a Action, bucket, key string) bool {
	for _, layer := range layers {
		found := false
		for _, g := range layer {
			var may []Action
			inBucket := g.Bucket == "*" && bucket != "" || g.Bucket == bucket && bucket != ""
			inPrefix := len(key) >= len(g.Prefix) && key[:len(g.Prefix)] == g.Prefix
			switch g.Role {
			case "metrics":
				may = []Action{"cluster.read", "metrics.read"}
			case "admin":
				if g.Bucket == "*" {
					may = append(may, "cluster.read", "cluster.write", "metrics.read", "iam.read", "iam.write")
				}
				if inBucket && g.Prefix == "" {
					may = append(may, "bucket.create", "bucket.delete", "bucket.quota")
				}
				fallthrough
			case "readwrite":
				if inBucket && inPrefix {
					may = append(may, "object.write", "object.delete")
				}
				fallthrough
			case "readonly":
				may = append(may, "bucket.list")
				if inBucket {
					may = append(may, "bucket.read")
				}
				if inBucket && inPrefix {
					may = append(may, "object.read", "object.list")
				}
			}
			found = found || slices.Contains(may, a)
		}
		if !found {
			return false
		}
	}
	return len(layers) > 0
}

func drawGrant() *rapid.Generator[Grant] {
	return rapid.Custom(func(t *rapid.T) Grant {
		g := Grant{Role: rapid.SampledFrom([]Role{ReadOnly, ReadWrite, Admin, Metrics}).Draw(t, "role")}
		if g.Role == Metrics {
			return g
		}
		g.Bucket = rapid.SampledFrom([]string{"*", "aaa", "aab", "bbb"}).Draw(t, "bucket")
		if g.Bucket != "*" {
			g.Prefix = rapid.StringMatching(`([ab][ab/]{0,3})?`).Draw(t, "prefix")
		}
		return g
	})
}

// TestRightsModel compares random users, service keys and narrowed tokens with
// the model, through the gate, with changes in between.
func TestRightsModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		layers := map[string][][]Grant{}
		set := func(user string) {
			gs := rapid.SliceOfN(drawGrant(), 0, 3).Draw(rt, "user's")
			own := rapid.SliceOfN(drawGrant(), 1, 3).Draw(rt, "key's")
			w.user(user).Grants = gs
			id := user + "-service"
			if i := slices.IndexFunc(w.rows.Keys, func(k Key) bool { return k.ID == id }); i >= 0 {
				w.rows.Keys[i].Grants = own
			} else {
				w.addKey(Key{ID: id, User: user, Service: true, Grants: own})
			}
			if err := errors.Join(w.user(user).Validate(), w.key(id).Validate()); err != nil {
				rt.Fatal(err)
			}
			layers[user], layers[id] = [][]Grant{gs}, [][]Grant{gs, own}
			w.publish(t)
		}
		set("alice")
		set("bob")
		for range rapid.IntRange(1, 20).Draw(rt, "steps") {
			if rapid.IntRange(0, 4).Draw(rt, "change") == 0 {
				set(rapid.SampledFrom([]string{"alice", "bob"}).Draw(rt, "whose"))
			}
			id := rapid.SampledFrom([]string{"alice", "bob", "alice-service", "bob-service"}).Draw(rt, "key")
			want := layers[id]
			p := w.mustBearer(t, w.keys[id].String())
			if rapid.Bool().Draw(rt, "token") {
				narrowed := rapid.SliceOfN(drawGrant(), 0, 2).Draw(rt, "token's")
				p = w.mustBearer(t, w.token(t, w.keys[id], narrowed...))
				if len(narrowed) > 0 {
					want = append(slices.Clone(want), narrowed)
				}
			}
			a := rapid.SampledFrom(allActions).Draw(rt, "action")
			bucket := rapid.SampledFrom([]string{"", "*", "aaa", "aab", "bbb", "aa"}).Draw(rt, "of bucket")
			key := rapid.StringMatching(`[ab/]{0,4}`).Draw(rt, "of key")
			if slices.Contains(always, a) {
				continue // see TestSelf
			}
			if got, want := Allowed(p, a, bucket, key), modelAllows(want, a, bucket, key); got != want {
				rt.Fatalf("%s with %v may %s of %q in %q: %t, want %t", id, p.Grants(), a, key, bucket, got, want)
			}
		}
	})
}

func TestAuthorizeSays(t *testing.T) {
	for _, tc := range []struct{ bucket, key, want string }{
		{"", "", "permission denied: k may not object.read"},
		{"b", "", `permission denied: k may not object.read in bucket "b"`},
		{"b", "k\n", `permission denied: k may not object.read of key "k\n" in bucket "b"`},
	} {
		if got := Authorize(holder(nil), ObjectRead, tc.bucket, tc.key).Error(); got != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
	if got := Authorize(Principal{}, ObjectRead, "", "").Error(); !strings.Contains(got, "an unknown caller") {
		t.Error(got)
	}
}
