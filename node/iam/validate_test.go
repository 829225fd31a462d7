package iam

import (
	"errors"
	"strings"
	"testing"
)

func wantField(t *testing.T, err error, field, problem string) {
	t.Helper()
	var f *FieldError
	switch {
	case field == "":
		if err != nil {
			t.Errorf("%v", err)
		}
	case !errors.As(err, &f) || f.Field != field || !strings.Contains(f.Problem, problem):
		t.Errorf("%v, want %s: %s", err, field, problem)
	}
}

func TestGrantText(t *testing.T) {
	for text, want := range map[string]Grant{
		"metrics":                {Role: Metrics},
		"readonly:*":             {Role: ReadOnly, Bucket: "*"},
		"admin:photos":           {Role: Admin, Bucket: "photos"},
		"admin:photos/x":         {Role: Admin, Bucket: "photos", Prefix: "x"},
		"readwrite:photos/2026/": {Role: ReadWrite, Bucket: "photos", Prefix: "2026/"},
		"readonly:photos/a:b *":  {Role: ReadOnly, Bucket: "photos", Prefix: "a:b *"},
	} {
		g, err := ParseGrant(text)
		if err != nil || g != want || g.String() != text {
			t.Errorf("%q: %+v (%s), %v", text, g, g, err)
		}
	}
	if g, err := ParseGrant("admin:photos/"); err != nil || g.String() != "admin:photos" {
		t.Errorf("%s, %v", g, err)
	}
	for _, tc := range []struct{ text, field, problem string }{
		{"", "role", "empty"},
		{"owner:photos", "role", "none of"},
		{"Admin:photos", "role", "none of"},
		{"photos", "role", "none of"},
		{"admin", "bucket", "empty"},
		{"admin:", "bucket", "empty"},
		{"admin:/a", "bucket", "empty"},
		{"metrics:*", "bucket", "whole mesh"},
		{"metrics:", "bucket", "whole mesh"},
		{"admin:ab", "bucket", "3 to 63"},
		{"admin:" + strings.Repeat("a", 64), "bucket", "3 to 63"},
		{"admin:Photos", "bucket", "at byte 0"},
		{"admin:pho*", "bucket", "at byte 3"},
		{"admin:-photos", "bucket", "begins or ends"},
		{"admin:*/a", "prefix", "named bucket"},
		{"admin:photos//a", "prefix", "slash"},
		{"admin:photos/" + strings.Repeat("a", 1025), "prefix", "1024 are allowed"},
		{"admin:photos/a\x00", "prefix", "U+0000"},
		{"admin:photos/a\xff", "prefix", "UTF-8"},
	} {
		g, err := ParseGrant(tc.text)
		wantField(t, err, tc.field, tc.problem)
		if g != (Grant{}) {
			t.Errorf("%q: %+v", tc.text, g)
		}
	}
	wantField(t, Grant{Role: Metrics, Prefix: "a"}.Validate(), "prefix", "whole mesh")
}

func TestValidateUser(t *testing.T) {
	for _, tc := range []struct {
		change         func(u *User)
		field, problem string
	}{
		{func(*User) {}, "", ""},
		{func(u *User) { u.Name = "a.b_c-d@example.com" }, "", ""},
		{func(u *User) { u.Name = "" }, "name", "empty"},
		{func(u *User) { u.Name = "root" }, "name", "root key"},
		{func(u *User) { u.Name = "Alice" }, "name", "at byte 0"},
		{func(u *User) { u.Name = "-alice" }, "name", "at byte 0"},
		{func(u *User) { u.Name = "al/ice" }, "name", "at byte 2"},
		{func(u *User) { u.Name = "älice" }, "name", "at byte 0"},
		{func(u *User) { u.Name = strings.Repeat("a", 65) }, "name", "64 are allowed"},
		{func(u *User) { u.Grants = make([]Grant, MaxGrants+1) }, "grants", "64 are allowed"},
		{func(u *User) { u.Grants = []Grant{{Role: Metrics}, {Role: "x"}} }, "grants[1].role", "none of"},
		{func(u *User) { u.Certificates = []string{"a", "Alice Smith", "spiffe://x/y"} }, "", ""},
		{func(u *User) { u.Certificates = []string{"a", ""} }, "certificates[1]", "empty"},
		{func(u *User) { u.Certificates = []string{"a", "b", "a"} }, "certificates[2]", "same as certificates[0]"},
		{func(u *User) { u.Certificates = []string{"a "} }, "certificates[0]", "white space"},
		{func(u *User) { u.Certificates = []string{"a\x1b"} }, "certificates[0]", "U+001B"},
		{func(u *User) { u.Certificates = []string{strings.Repeat("a", 256)} }, "certificates[0]", "255 are allowed"},
		{func(u *User) { u.Certificates = make([]string, MaxCertificates+1) }, "certificates", "16 are allowed"},
		{func(u *User) { u.Created = -1 }, "created", "negative"},
	} {
		u := User{Name: "alice", Grants: []Grant{{Role: ReadOnly, Bucket: "photos"}}, Created: 1}
		tc.change(&u)
		wantField(t, u.Validate(), tc.field, tc.problem)
	}
}

func TestValidateKey(t *testing.T) {
	for _, tc := range []struct {
		change         func(k *Key)
		field, problem string
	}{
		{func(*Key) {}, "", ""},
		{func(k *Key) { k.Service, k.Grants = true, grants("readonly:*") }, "", ""},
		{func(k *Key) { k.ID = "" }, "id", "the id is empty"},
		{func(k *Key) { k.ID = "A" }, "id", "the id may have"},
		{func(k *Key) { k.ID = RootID }, "id", "root key"},
		{func(k *Key) { k.User = "" }, "user", "empty"},
		{func(k *Key) { k.User = RootID }, "user", "root key"},
		{func(k *Key) { k.Service = true }, "grants", "missing"},
		{func(k *Key) { k.Grants = grants("readonly:*") }, "grants", "service keys"},
		{func(k *Key) { k.Service, k.Grants = true, []Grant{{}} }, "grants[0].role", "empty"},
		{func(k *Key) { k.Sealed = nil }, "sealed", "0 bytes"},
		{func(k *Key) { k.Created = -1 }, "created", "negative"},
		{func(k *Key) { k.LastUsed = -1 }, "last_used", "negative"},
		{func(k *Key) { k.Expires = -1 }, "expires", "negative"},
		{func(k *Key) { k.Expires = 5 }, "expires", "not after"},
		{func(k *Key) { k.Comment = "a\nb" }, "comment", "U+000A"},
		{func(k *Key) { k.Comment = strings.Repeat("a", 257) }, "comment", "256 are allowed"},
	} {
		k := Key{ID: "k", User: "alice", Sealed: make([]byte, sealedKeyBytes), Created: 5}
		tc.change(&k)
		wantField(t, k.Validate(), tc.field, tc.problem)
	}
}
